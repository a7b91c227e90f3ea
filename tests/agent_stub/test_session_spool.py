"""What the session has for a spool: outcomes that are kept first, restored ones, and a capacity that changes."""

from __future__ import annotations

import dataclasses

import pytest

from agent_stub.session import (
    AgentSession,
    Assign,
    Cancel,
    Frame,
    Hello,
    KeepOutcome,
    Outcome,
    OutcomeStatus,
    RejectedReason,
    StopRun,
    Verdict,
    Welcome,
)

S = 1_000_000
LEASE = Welcome(1, 5, 10 * S, 2 * S, 2 * S, 5 * S)


class Bench:
    """A session that keeps first; the clock stands still unless a test moves it."""

    def __init__(self, slots: int = 4) -> None:
        self.session = AgentSession(slots, keeps_first=True)
        self.now = 0

    def hello(self) -> Hello:
        return self.session.hello(self.now)

    def welcome(self, hello: Hello, verdict: Verdict = Verdict.KEEP) -> None:
        verdicts = [verdict] * len(hello.held)
        self.session.welcomed(self.now, dataclasses.replace(LEASE, verdicts=verdicts))

    def run(self, job_key: int, *, exclusive: bool = True, is_kept_first: bool = False) -> None:
        self.session.assigned(self.now, Assign(job_key, 1, "copy", exclusive, is_kept_first=is_kept_first))

    def finish(self, job_key: int, status: OutcomeStatus = OutcomeStatus.SUCCEEDED) -> None:
        self.session.finished(self.now, Outcome(job_key, 1, status))

    def to_keep(self) -> list[Outcome]:
        return [order.outcome for order in self.session.take_orders() if isinstance(order, KeepOutcome)]

    def frames(self) -> list[Frame]:
        found = []
        while (frame := self.session.take_frame(self.now)) is not None:
            found.append(frame)
        return found

    def has_only_outcomes(self) -> bool:
        return self.session.has_only_outcomes

    def sent(self) -> list[int]:
        return [outcome.job_key for frame in self.frames() for outcome in frame.outcomes]


@pytest.fixture
def live() -> Bench:
    bench = Bench()
    bench.welcome(bench.hello())
    return bench


def test_exclusive_outcome_is_sent_when_it_is_kept_and_not_before(live: Bench) -> None:
    live.run(1)
    live.finish(1)
    assert [outcome.job_key for outcome in live.to_keep()] == [1]
    assert live.sent() == []
    live.session.kept((1, 1))
    assert live.sent() == [1]
    live.session.kept((1, 1))
    assert live.sent() == []


def test_repeatable_outcome_that_nobody_makes_up_for_is_sent_when_it_is_kept_and_not_before(live: Bench) -> None:
    live.run(1, exclusive=False, is_kept_first=True)
    live.finish(1)
    assert [outcome.job_key for outcome in live.to_keep()] == [1]
    assert live.sent() == []
    live.session.kept((1, 1))
    assert live.sent() == [1]


def test_lease_does_not_end_a_repeatable_run_whose_outcome_is_kept_first(live: Bench) -> None:
    live.run(1, exclusive=False, is_kept_first=True)
    live.session.take_orders()
    live.now = 60 * S
    live.session.timer(live.now)
    assert live.session.running == 1
    assert not [order for order in live.session.take_orders() if isinstance(order, StopRun)]


def test_repeatable_outcome_is_sent_at_once(live: Bench) -> None:
    live.run(1, exclusive=False)
    live.finish(1)
    assert live.to_keep() == []
    assert live.sent() == [1]


def test_slot_of_an_outcome_that_is_being_kept_is_free(live: Bench) -> None:
    for job_key in range(4):
        live.run(job_key)
    live.finish(0)
    assert live.session.running == 3
    assert live.session.held == 4


def test_outcome_that_is_being_kept_is_listed_as_held_and_follows_when_it_is_kept(live: Bench) -> None:
    live.run(1)
    live.finish(1)
    live.session.disconnected(0)
    hello = live.hello()
    assert (hello.held, hello.outcomes) == ([(1, 1)], [])
    live.welcome(hello)
    assert live.sent() == []
    live.session.kept((1, 1))
    assert live.sent() == [1]


def test_outcome_that_is_kept_while_offline_is_in_the_next_hello(live: Bench) -> None:
    live.run(1)
    live.finish(1)
    live.session.disconnected(0)
    live.session.kept((1, 1))
    assert [outcome.job_key for outcome in live.hello().outcomes] == [1]


def test_fenced_attempt_is_kept_as_it_is_reported(live: Bench) -> None:
    live.run(1)
    live.now = 8 * S
    live.session.timer(live.now)
    live.finish(1, OutcomeStatus.CANCELLED)
    assert [outcome.status for outcome in live.to_keep()] == [OutcomeStatus.FENCED]


def test_run_that_a_verdict_stopped_needs_no_keeping(live: Bench) -> None:
    live.run(1)
    live.session.disconnected(0)
    live.welcome(live.hello(), Verdict.STOP)
    live.session.take_orders()
    live.finish(1, OutcomeStatus.CANCELLED)
    assert live.to_keep() == []
    assert live.sent() == [1]


def test_duplicate_assign_of_an_outcome_that_is_being_kept_does_not_send_it(live: Bench) -> None:
    live.run(1)
    live.finish(1)
    live.run(1)
    assert live.sent() == []
    live.session.kept((1, 1))
    assert live.sent() == [1]


def test_kept_of_what_is_not_held_changes_nothing(live: Bench) -> None:
    live.session.kept((9, 9))
    assert live.frames() == []


def test_restored_outcomes_are_held_said_in_hello_and_forgotten_when_acknowledged() -> None:
    bench = Bench()
    bench.session.restore([Outcome(1, 2, OutcomeStatus.SUCCEEDED, content=b"x"), Outcome(2, 1, OutcomeStatus.FAILED)])
    assert bench.session.held == 2
    assert bench.session.holds((1, 2))
    assert bench.session.has_only_outcomes
    hello = bench.hello()
    assert [(one.job_key, one.attempt, one.content) for one in hello.outcomes] == [(1, 2, b"x"), (2, 1, b"")]
    bench.welcome(hello)
    bench.session.acknowledged([(1, 2), (2, 1)])
    assert bench.session.is_idle


def test_new_attempt_of_a_job_whose_outcome_was_restored_runs(live: Bench) -> None:
    live.session.restore([Outcome(1, 1, OutcomeStatus.SUCCEEDED)])
    live.session.assigned(0, Assign(1, 2, "copy"))
    assert live.session.running == 1


def test_what_runs_or_waits_is_more_than_outcomes(live: Bench) -> None:
    assert live.has_only_outcomes()
    live.run(1)
    assert not live.has_only_outcomes()
    assert live.session.unacknowledged == []
    live.finish(1)
    assert live.has_only_outcomes()
    assert [outcome.job_key for outcome in live.session.unacknowledged] == [1]


def test_capacity_is_stated_when_it_changes_and_takes_nothing_back(live: Bench) -> None:
    for job_key in range(3):
        live.run(job_key)
    live.frames()
    live.session.limit(1)
    frame = live.frames()[0]
    assert frame.capacity is not None
    assert frame.capacity.attempts == 1
    live.run(3)
    assert [one.reason for frame in live.frames() for one in frame.rejected] == [RejectedReason.BUSY]
    assert live.session.running == 3
    live.session.limit(100)
    assert [frame.capacity.attempts for frame in live.frames() if frame.capacity] == [4]
    live.session.limit(4)
    assert live.frames() == []


def test_capacity_that_changes_offline_is_in_the_next_hello() -> None:
    bench = Bench()
    bench.session.limit(2)
    assert bench.hello().capacity.attempts == 2
    bench.session.limit(-5)
    assert bench.session.capacity == 0


def test_cancel_of_an_attempt_that_is_being_kept_leaves_its_outcome(live: Bench) -> None:
    live.run(1)
    live.finish(1)
    live.session.cancelled(0, Cancel(1, 1))
    live.session.kept((1, 1))
    assert live.sent() == [1]
