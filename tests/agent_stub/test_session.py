"""Every rule of the agent's side, without a stream: calls in, orders and frames out."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import pytest

from agent_stub.session import (
    AgentSession,
    Assign,
    Cancel,
    Capacity,
    Frame,
    Hello,
    Key,
    LeaveStream,
    Order,
    Outcome,
    OutcomeStatus,
    Phase,
    Progress,
    RejectedReason,
    StartRun,
    StopRun,
    Verdict,
    Welcome,
)

S = 1_000_000
LEASE = Welcome(
    session_id=1, epoch=5, lease_us=10 * S, lease_margin_us=2 * S, heartbeat_us=2 * S, idle_heartbeat_us=5 * S
)
OrderT = TypeVar("OrderT", bound=Order)


class Bench:
    """A session with its driver's clock; `run` and `stop` are the orders given so far."""

    def __init__(self, slots: int = 4, prefetch: int = 0, **options: int) -> None:
        self.session = AgentSession(slots, prefetch, operations={"copy", "move"}, **options)
        self.now = 100 * S
        self.orders: list[Order] = []

    def connect(self, *stopped: Key, epoch: int = 5) -> Hello:
        hello = self.hello()
        self.welcome(hello, *stopped, epoch=epoch)
        return hello

    def hello(self) -> Hello:
        return self.session.hello(self.now)

    def welcome(self, hello: Hello, *stopped: Key, epoch: int = 5) -> None:
        verdicts = [Verdict.STOP if key in stopped else Verdict.KEEP for key in hello.held]
        self.session.welcomed(self.now, dataclasses.replace(LEASE, epoch=epoch, verdicts=verdicts))

    def assign(self, *keys: Key, **options: Any) -> None:
        for key in keys:
            self.session.assigned(self.now, Assign(*key, **{"operation": "copy", **options}))

    def cancel(self, key: Key) -> None:
        self.session.cancelled(self.now, Cancel(*key, grace_us=3 * S))

    def finish(self, key: Key, status: OutcomeStatus = OutcomeStatus.SUCCEEDED, **more: Any) -> None:
        self.session.finished(self.now, Outcome(*key, status, **more))

    def ack(self, *keys: Key) -> None:
        self.session.acknowledged(keys)

    def beat(self) -> int:
        """Let the next heartbeat leave; its number."""
        self.now = max(self.now, min(self.now + 5 * S, self.session.next_deadline_us() or 0))
        for frame in self.frames():
            if frame.heartbeat is not None:
                return frame.heartbeat.seq
        raise AssertionError("no heartbeat was due")

    def frames(self) -> list[Frame]:
        frames = []
        while (frame := self.session.take_frame(self.now)) is not None:
            frames.append(frame)
        return frames

    def frame(self) -> Frame:
        """All that is due, which is one frame."""
        frames = self.frames()
        assert len(frames) == 1
        return frames[0]

    def outcomes(self) -> dict[Key, OutcomeStatus]:
        return {(one.job_key, one.attempt): one.status for frame in self.frames() for one in frame.outcomes}

    def given(self, kind: type[OrderT]) -> list[OrderT]:
        """The orders of one kind since the last question about any."""
        self.orders = self.session.take_orders()
        return [order for order in self.orders if isinstance(order, kind)]

    def started(self) -> list[Key]:
        return [(order.assign.job_key, order.assign.attempt) for order in self.given(StartRun)]

    def stopped(self) -> list[tuple[Key, str]]:
        return [((order.job_key, order.attempt), order.reason) for order in self.given(StopRun)]


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def live(bench: Bench) -> Bench:
    bench.connect()
    return bench


# Hello and Welcome ---------------------------------------------------------------------------------------------------


def test_hello_states_slots_and_capacity_and_grows_with_each_connect() -> None:
    bench = Bench(slots=3, prefetch=2)
    first, second = bench.hello(), bench.hello()
    assert (first.slots, first.capacity.attempts) == (3, 9)
    assert second.connect_seq == first.connect_seq + 1
    assert second.capacity.seq > first.capacity.seq


def test_hello_counts_the_connects_that_came_to_nothing(bench: Bench) -> None:
    for _ in range(3):
        bench.hello()
        bench.session.disconnected(bench.now)
    assert bench.connect().previous_attempts == 3
    bench.session.disconnected(bench.now)
    assert bench.hello().previous_attempts == 0


def test_nothing_is_sent_before_welcome(bench: Bench) -> None:
    bench.hello()
    bench.now += 3 * S
    assert bench.frames() == []
    assert bench.session.phase is Phase.GREETING


def test_frames_before_welcome_are_dropped_and_counted(bench: Bench) -> None:
    bench.hello()
    bench.assign((1, 1))
    bench.cancel((2, 1))
    bench.ack((3, 1))
    assert bench.session.held == 0
    assert bench.session.frames_dropped == 3


def test_welcome_that_nobody_asked_for_changes_nothing(live: Bench) -> None:
    live.session.welcomed(live.now, dataclasses.replace(LEASE, epoch=9))
    assert live.session.epoch == 5


def test_session_leaves_the_stream_when_hello_is_not_answered(bench: Bench) -> None:
    bench.hello()
    deadline = bench.session.next_deadline_us()
    assert deadline is not None
    bench.session.timer(deadline - 1)
    assert bench.given(LeaveStream) == []
    bench.session.timer(deadline)
    assert len(bench.given(LeaveStream)) == 1


@pytest.mark.parametrize(
    "welcome",
    [
        dataclasses.replace(LEASE, verdicts=[Verdict.KEEP]),
        dataclasses.replace(LEASE, lease_us=0),
        dataclasses.replace(LEASE, lease_margin_us=10 * S),
        dataclasses.replace(LEASE, heartbeat_us=0),
    ],
)
def test_session_leaves_the_stream_when_welcome_makes_no_sense(bench: Bench, welcome: Welcome) -> None:
    bench.hello()
    bench.session.welcomed(bench.now, welcome)
    assert len(bench.given(LeaveStream)) == 1
    assert not bench.session.is_live


# Rule 1: epochs ------------------------------------------------------------------------------------------------------


def test_session_of_a_lower_epoch_is_left_and_its_frames_are_dropped(live: Bench) -> None:
    live.session.disconnected(live.now)
    live.connect(epoch=4)
    assert [order.reason for order in live.given(LeaveStream)] == ["epoch 4 is older than 5"]
    live.assign((1, 1))
    assert live.session.held == 0


def test_session_of_an_equal_or_higher_epoch_begins(live: Bench) -> None:
    for epoch in (5, 8):
        live.session.disconnected(live.now)
        live.connect(epoch=epoch)
        assert live.session.is_live
    assert live.session.epoch == 8


def test_heartbeat_ack_of_a_lower_epoch_does_not_carry_the_lease_on(live: Bench) -> None:
    before = live.session.lease_end_us
    seq = live.beat()
    live.session.heartbeat_acked(live.now, seq, epoch=4)
    assert live.session.lease_end_us == before


def test_epoch_that_an_ack_brings_counts(live: Bench) -> None:
    live.session.heartbeat_acked(live.now, live.beat(), epoch=7)
    live.session.disconnected(live.now)
    live.connect(epoch=6)
    assert len(live.given(LeaveStream)) == 1


# Assign --------------------------------------------------------------------------------------------------------------


def test_assigned_attempt_is_accepted_started_and_reported(live: Bench) -> None:
    live.assign((1, 1))
    assert live.started() == [(1, 1)]
    frame = live.frame()
    assert (frame.accepted, frame.started, frame.outcomes) == ([(1, 1)], [(1, 1)], [])
    live.finish((1, 1), content=b"done")
    frame = live.frame()
    assert (frame.accepted, frame.started) == ([], [])
    assert [(one.job_key, one.status, one.content) for one in frame.outcomes] == [(1, OutcomeStatus.SUCCEEDED, b"done")]


def test_accept_is_left_out_when_the_outcome_is_in_the_same_frame(live: Bench) -> None:
    live.assign((1, 1), (2, 1))
    live.finish((1, 1))
    frame = live.frame()
    assert (frame.accepted, frame.started) == ([(2, 1)], [(2, 1)])
    assert [one.job_key for one in frame.outcomes] == [1]


def test_duplicate_assign_changes_nothing_and_is_accepted_again(live: Bench) -> None:
    live.assign((1, 1))
    live.frames()
    live.assign((1, 1))
    assert live.started() == [(1, 1)]
    assert live.session.held == 1
    assert live.frame().accepted == [(1, 1)]


def test_duplicate_assign_of_a_finished_attempt_gets_its_outcome_again(live: Bench) -> None:
    live.assign((1, 1))
    live.finish((1, 1))
    live.frames()
    live.assign((1, 1))
    assert live.started() == [(1, 1)]
    assert live.outcomes() == {(1, 1): OutcomeStatus.SUCCEEDED}


def test_unknown_operation_is_rejected_as_unfit(live: Bench) -> None:
    live.assign((1, 1), operation="teleport")
    assert [(one.job_key, one.reason) for one in live.frame().rejected] == [(1, RejectedReason.UNFIT)]
    assert live.session.held == 0


def test_assign_beyond_capacity_is_rejected_and_capacity_is_stated_again_when_there_is_room(live: Bench) -> None:
    live.assign((1, 1), (2, 1), (3, 1), (4, 1), (5, 1))
    frame = live.frame()
    assert [(one.job_key, one.reason) for one in frame.rejected] == [(5, RejectedReason.BUSY)]
    assert frame.capacity is None
    live.finish((1, 1))
    live.ack((1, 1))
    capacity = live.frame().capacity
    assert capacity is not None
    assert capacity.attempts == 4


def test_unacknowledged_outcome_counts_against_capacity(live: Bench) -> None:
    live.assign((1, 1), (2, 1), (3, 1), (4, 1))
    live.finish((1, 1))
    live.assign((5, 1))
    assert [one.reason for frame in live.frames() for one in frame.rejected] == [RejectedReason.BUSY]


def test_prefetched_attempts_wait_in_order_and_start_as_slots_become_free() -> None:
    bench = Bench(slots=2, prefetch=2)
    bench.connect()
    bench.assign(*[(job, 1) for job in range(1, 7)])
    assert bench.started() == [(1, 1), (2, 1)]
    frame = bench.frame()
    assert len(frame.accepted) == 6
    assert frame.started == [(1, 1), (2, 1)]
    bench.finish((2, 1))
    assert bench.started() == [(3, 1)]
    bench.finish((1, 1))
    bench.finish((3, 1))
    assert bench.started() == [(4, 1), (5, 1)]


def test_session_refuses_slots_that_make_no_sense() -> None:
    for slots, prefetch in ((0, 0), (1, -1), (60_000, 1)):
        with pytest.raises(ValueError, match="slots"):
            AgentSession(slots, prefetch)


# Rule 2: one attempt of a job at a time ------------------------------------------------------------------------------


def test_higher_attempt_waits_until_the_lower_one_has_ended(live: Bench) -> None:
    live.assign((1, 1))
    assert live.started() == [(1, 1)]
    live.assign((1, 2))
    assert live.given(StartRun) == []
    assert [order for order in live.orders if isinstance(order, StopRun)] == [StopRun(1, 1, "superseded", 0)]
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    assert live.started() == [(1, 2)]
    assert live.outcomes() == {(1, 1): OutcomeStatus.CANCELLED}
    live.finish((1, 2))
    assert live.outcomes() == {(1, 2): OutcomeStatus.SUCCEEDED}


def test_higher_attempt_starts_at_once_when_the_lower_one_only_waited() -> None:
    bench = Bench(slots=1, prefetch=3)
    bench.connect()
    bench.assign((7, 1), (1, 1), (1, 2))
    assert bench.outcomes() == {(1, 1): OutcomeStatus.CANCELLED}
    assert bench.started() == [(7, 1)]
    bench.finish((7, 1))
    assert bench.started() == [(1, 2)]


def test_highest_of_three_attempts_is_the_one_that_runs(live: Bench) -> None:
    live.assign((1, 1), (1, 3), (1, 2))
    live.session.take_orders()
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    assert live.started() == [(1, 3)]
    assert live.outcomes() == {(1, 1): OutcomeStatus.CANCELLED, (1, 2): OutcomeStatus.CANCELLED}


def test_attempt_between_is_ended_when_a_higher_one_comes(live: Bench) -> None:
    live.assign((1, 1), (1, 2), (1, 3))
    assert live.outcomes() == {(1, 2): OutcomeStatus.CANCELLED}
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    assert live.started() == [(1, 1), (1, 3)]


def test_lower_attempt_that_succeeded_all_the_same_is_reported_so(live: Bench) -> None:
    live.assign((1, 1), (1, 2))
    live.finish((1, 1), OutcomeStatus.SUCCEEDED)
    assert live.outcomes() == {(1, 1): OutcomeStatus.SUCCEEDED}


# Rule 3: cancels -----------------------------------------------------------------------------------------------------


def test_cancelled_run_is_stopped_and_its_end_is_reported(live: Bench) -> None:
    live.assign((1, 1))
    live.cancel((1, 1))
    assert live.given(StopRun) == [StopRun(1, 1, "requested", 3 * S)]
    assert live.outcomes() == {}
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    assert live.outcomes() == {(1, 1): OutcomeStatus.CANCELLED}


def test_cancelled_run_that_had_succeeded_is_reported_as_succeeded(live: Bench) -> None:
    live.assign((1, 1))
    live.cancel((1, 1))
    live.finish((1, 1), OutcomeStatus.SUCCEEDED)
    assert live.outcomes() == {(1, 1): OutcomeStatus.SUCCEEDED}


def test_cancelled_attempt_that_waits_ends_at_once_and_never_starts() -> None:
    bench = Bench(slots=1, prefetch=1)
    bench.connect()
    bench.assign((1, 1), (2, 1))
    bench.cancel((2, 1))
    assert bench.outcomes() == {(2, 1): OutcomeStatus.CANCELLED}
    bench.finish((1, 1))
    assert bench.started() == [(1, 1)]


def test_cancel_of_an_unknown_attempt_is_answered_and_the_assign_that_comes_later_is_not_run(live: Bench) -> None:
    live.cancel((1, 1))
    assert live.session.held == 1
    assert live.outcomes() == {(1, 1): OutcomeStatus.CANCELLED}
    live.ack((1, 1))
    live.assign((1, 1))
    assert live.started() == []
    assert live.outcomes() == {(1, 1): OutcomeStatus.CANCELLED}


def test_cancel_of_an_unknown_attempt_is_remembered_for_the_session_only(live: Bench) -> None:
    live.cancel((1, 1))
    live.ack((1, 1))
    live.session.disconnected(live.now)
    live.connect()
    live.assign((1, 1))
    assert live.started() == [(1, 1)]


def test_cancel_of_a_finished_attempt_leaves_its_outcome(live: Bench) -> None:
    live.assign((1, 1))
    live.finish((1, 1))
    live.cancel((1, 1))
    assert live.outcomes() == {(1, 1): OutcomeStatus.SUCCEEDED}
    assert live.given(StopRun) == []


def test_broker_that_floods_cancels_is_left(live: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_stub.session.session.REMEMBERED_MAX", 3)
    for job in range(4):
        live.cancel((job, 1))
    assert len(live.given(LeaveStream)) == 1
    assert live.session.held == 3


def test_broker_that_floods_assigns_it_was_refused_is_left(live: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_stub.session.session.REMEMBERED_MAX", 3)
    live.assign(*[(job, 1) for job in range(4)], operation="teleport")
    assert len(live.given(LeaveStream)) == 1


# Rule 4: the lease ---------------------------------------------------------------------------------------------------


def test_lease_runs_from_the_send_time_of_the_newest_acknowledged_heartbeat(live: Bench) -> None:
    assert live.session.lease_end_us == 108 * S
    live.assign((1, 1))
    sent = []
    for _ in range(2):
        seq = live.beat()
        sent.append((seq, live.now))
    live.now += 1 * S
    live.session.heartbeat_acked(live.now, sent[0][0], epoch=5)
    assert live.session.lease_end_us == sent[0][1] + 8 * S
    live.session.heartbeat_acked(live.now, sent[1][0], epoch=5)
    assert live.session.lease_end_us == sent[1][1] + 8 * S


def test_ack_of_a_heartbeat_that_was_never_sent_does_not_carry_the_lease_on(live: Bench) -> None:
    live.beat()
    before = live.session.lease_end_us
    live.session.heartbeat_acked(live.now, 99, epoch=5)
    assert live.session.lease_end_us == before


def test_exclusive_attempts_are_stopped_and_reported_fenced_at_lease_end_and_others_run_on(live: Bench) -> None:
    live.assign((1, 1), exclusive=True)
    live.assign((2, 1))
    live.frames()
    live.session.timer(108 * S - 1)
    assert live.stopped() == []
    live.now = 108 * S
    live.session.timer(live.now)
    assert live.stopped() == [((1, 1), "fenced")]
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    assert live.outcomes() == {(1, 1): OutcomeStatus.FENCED}


def test_exclusive_attempt_is_fenced_while_offline_and_the_next_hello_says_so(live: Bench) -> None:
    live.assign((1, 1), exclusive=True)
    live.session.disconnected(live.now)
    assert live.session.next_deadline_us() == 108 * S
    live.now = 108 * S
    live.session.timer(live.now)
    assert live.stopped() == [((1, 1), "fenced")]
    live.finish((1, 1), OutcomeStatus.FAILED, code="python.os_error")
    assert [(one.job_key, one.status) for one in live.hello().outcomes] == [(1, OutcomeStatus.FENCED)]


def test_exclusive_attempt_that_waits_is_fenced_without_having_run() -> None:
    bench = Bench(slots=1, prefetch=1)
    bench.connect()
    bench.assign((1, 1))
    bench.assign((2, 1), exclusive=True)
    bench.now = 108 * S
    bench.session.timer(bench.now)
    assert bench.outcomes() == {(2, 1): OutcomeStatus.FENCED}
    bench.finish((1, 1))
    assert bench.started() == [(1, 1)]


def test_exclusive_assign_that_waited_in_the_socket_of_a_stopped_process_is_rejected(live: Bench) -> None:
    live.now += 60 * S
    live.assign((1, 1), exclusive=True)
    live.assign((2, 1))
    frame = live.frame()
    assert [(one.job_key, one.reason) for one in frame.rejected] == [(1, RejectedReason.LEAVING)]
    assert live.started() == [(2, 1)]


def test_lease_is_looked_at_before_an_ack_that_waited_is_read(live: Bench) -> None:
    live.assign((1, 1), exclusive=True)
    seq = live.beat()
    live.now = live.session.lease_end_us + 1 * S
    live.session.heartbeat_acked(live.now, seq, epoch=5)
    assert live.stopped() == [((1, 1), "fenced")]


def test_capacity_is_stated_again_when_the_lease_is_back(live: Bench) -> None:
    seq = live.beat()
    live.now = 109 * S
    live.assign((1, 1), exclusive=True)
    live.frames()
    live.session.heartbeat_acked(live.now, seq, epoch=5)
    assert isinstance(live.frame().capacity, Capacity)


def test_fenced_attempt_that_succeeded_before_it_stopped_is_reported_so(live: Bench) -> None:
    live.assign((1, 1), exclusive=True)
    live.now = 108 * S
    live.session.timer(live.now)
    live.finish((1, 1), OutcomeStatus.SUCCEEDED)
    assert live.outcomes() == {(1, 1): OutcomeStatus.SUCCEEDED}


def test_attempt_is_fenced_once(live: Bench) -> None:
    live.assign((1, 1), exclusive=True)
    live.now = 108 * S
    live.session.timer(live.now)
    live.session.timer(live.now + 1)
    assert len(live.stopped()) == 1


def test_broker_that_acknowledges_no_heartbeat_for_a_lease_is_left(live: Bench) -> None:
    live.now = 110 * S - 1
    live.session.timer(live.now)
    assert live.given(LeaveStream) == []
    live.session.timer(110 * S)
    assert len(live.given(LeaveStream)) == 1
    assert live.session.phase is Phase.BROKEN


# Heartbeats ----------------------------------------------------------------------------------------------------------


def test_heartbeat_says_what_is_held_and_is_slower_when_idle(live: Bench) -> None:
    live.now += 5 * S - 1
    assert live.frames() == []
    live.now += 1
    heartbeat = live.frame().heartbeat
    assert heartbeat is not None
    assert heartbeat.held == 0
    live.assign((1, 1))
    live.frames()
    live.now += 2 * S
    heartbeat = live.frame().heartbeat
    assert heartbeat is not None
    assert (heartbeat.seq, heartbeat.held) == (2, 1)


def test_next_deadline_is_the_next_heartbeat_or_the_end_of_a_silent_broker(live: Bench) -> None:
    assert live.session.next_deadline_us() == 105 * S
    live.assign((1, 1))
    assert live.session.next_deadline_us() == 102 * S


def test_next_deadline_is_none_when_offline_without_exclusive_work(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    assert live.session.next_deadline_us() is None


# Deadlines of runs ---------------------------------------------------------------------------------------------------


def test_run_beyond_its_time_is_stopped_and_reported_as_a_retryable_failure(live: Bench) -> None:
    live.assign((1, 1), run_timeout_us=1 * S)
    assert live.session.next_deadline_us() == 101 * S
    live.now = 101 * S
    live.session.timer(live.now)
    assert live.stopped() == [((1, 1), "run_timeout")]
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    outcome = live.frame().outcomes[0]
    assert (outcome.status, outcome.code, outcome.retryable) == (OutcomeStatus.FAILED, "run_timeout", True)


def test_attempt_whose_total_time_ends_while_it_waits_fails_for_good() -> None:
    bench = Bench(slots=1, prefetch=1)
    bench.connect()
    bench.assign((1, 1))
    bench.assign((2, 1), total_remaining_us=1 * S)
    bench.now = 101 * S
    bench.session.timer(bench.now)
    outcome = bench.frame().outcomes[0]
    assert (outcome.job_key, outcome.code, outcome.retryable) == (2, "deadline_exceeded", False)


def test_deadlines_of_attempts_that_ended_in_time_do_not_pile_up(live: Bench) -> None:
    for job in range(1_000):
        live.assign((job, 1), run_timeout_us=3_600 * S)
        live.finish((job, 1))
        live.ack((job, 1))
    assert len(live.session._deadlines) < 100


# Rules 5, 6, 8: outcomes are kept, Hello is a snapshot ---------------------------------------------------------------


def test_outcome_is_held_until_it_is_acknowledged(live: Bench) -> None:
    live.assign((1, 1))
    live.finish((1, 1))
    live.frames()
    assert live.session.held == 1
    live.ack((1, 1))
    assert live.session.held == 0


def test_acknowledgement_of_a_running_attempt_changes_nothing(live: Bench) -> None:
    live.assign((1, 1))
    live.ack((1, 1), (9, 9))
    assert live.session.held == 1


def test_hello_lists_what_runs_and_carries_what_is_unacknowledged(live: Bench) -> None:
    live.assign((1, 1), (2, 1), (3, 1))
    live.finish((2, 1))
    live.frames()
    live.session.disconnected(live.now)
    live.finish((3, 1), OutcomeStatus.FAILED, code="x")
    hello = live.hello()
    assert hello.held == [(1, 1)]
    assert [one.job_key for one in hello.outcomes] == [2, 3]


def test_outcome_survives_any_number_of_streams(live: Bench) -> None:
    live.assign((1, 1))
    live.finish((1, 1))
    for _ in range(3):
        live.session.disconnected(live.now)
        assert [one.job_key for one in live.connect().outcomes] == [1]
        assert live.outcomes() == {}, "Hello has said it"
    live.ack((1, 1))
    live.session.disconnected(live.now)
    assert live.hello().outcomes == []


def test_outcomes_that_do_not_fit_into_hello_are_listed_and_follow_after_welcome() -> None:
    bench = Bench(slots=4, hello_bytes_max=2_500)
    bench.connect()
    bench.assign((1, 1), (2, 1), (3, 1))
    bench.session.disconnected(bench.now)
    for job in (1, 2, 3):
        bench.finish((job, 1), content=bytes(1_000))
    hello = bench.connect()
    assert [one.job_key for one in hello.outcomes] == [1, 2]
    assert hello.held == [(3, 1)]
    assert bench.outcomes() == {(3, 1): OutcomeStatus.SUCCEEDED}


def test_outcome_of_a_run_that_ends_between_hello_and_welcome_follows_after_welcome(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    hello = live.hello()
    live.finish((1, 1))
    assert live.frames() == []
    live.welcome(hello)
    assert live.outcomes() == {(1, 1): OutcomeStatus.SUCCEEDED}


def test_waiting_attempts_are_listed_too_and_start_after_the_stream_is_back() -> None:
    bench = Bench(slots=1, prefetch=1)
    bench.connect()
    bench.assign((1, 1), (2, 1))
    bench.session.disconnected(bench.now)
    assert bench.connect().held == [(1, 1), (2, 1)]
    bench.finish((1, 1))
    frame = bench.frame()
    assert frame.started == [(2, 1)]
    assert [one.job_key for one in frame.outcomes] == [1]


def test_run_that_starts_while_offline_goes_on_when_kept() -> None:
    bench = Bench(slots=1, prefetch=1)
    bench.connect()
    bench.assign((1, 1), (2, 1))
    bench.session.disconnected(bench.now)
    bench.finish((1, 1))
    assert bench.started() == [(1, 1), (2, 1)]
    hello = bench.connect()
    assert (hello.held, [one.job_key for one in hello.outcomes]) == ([(2, 1)], [1])


# Verdicts ------------------------------------------------------------------------------------------------------------


def test_verdict_stop_ends_the_run_and_forgets_it(live: Bench) -> None:
    live.assign((1, 1), (2, 1))
    live.session.disconnected(live.now)
    live.connect((1, 1))
    assert live.stopped() == [((1, 1), "verdict")]
    assert live.session.held == 1
    live.session.disconnected(live.now)
    assert live.hello().held == [(2, 1)]


def test_verdict_stop_keeps_the_slot_until_the_run_has_ended() -> None:
    bench = Bench(slots=1)
    bench.connect()
    bench.assign((1, 1))
    bench.session.disconnected(bench.now)
    bench.connect((1, 1))
    bench.assign((2, 1))
    assert bench.started() == [(1, 1)]
    bench.finish((1, 1), OutcomeStatus.CANCELLED)
    assert bench.started() == [(2, 1)]


def test_end_of_a_run_stopped_by_verdict_is_said_once_and_not_kept(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    live.connect((1, 1))
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    assert live.outcomes() == {(1, 1): OutcomeStatus.CANCELLED}
    live.session.disconnected(live.now)
    assert live.hello().outcomes == []


def test_verdict_stop_of_an_attempt_that_waits_takes_it_off_the_line() -> None:
    bench = Bench(slots=1, prefetch=2)
    bench.connect()
    bench.assign((1, 1), (2, 1), (3, 1))
    bench.session.disconnected(bench.now)
    bench.connect((2, 1))
    bench.finish((1, 1))
    assert bench.started() == [(1, 1), (3, 1)]


def test_new_attempt_of_a_job_stopped_by_verdict_waits_for_the_old_run(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    live.connect((1, 1))
    live.session.take_orders()
    live.assign((1, 2))
    assert live.started() == []
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    assert live.started() == [(1, 2)]


# Resync --------------------------------------------------------------------------------------------------------------


def test_resync_is_answered_by_a_hello_alone_with_all_that_is_unacknowledged(live: Bench) -> None:
    live.assign((1, 1), (2, 1), (3, 1))
    live.finish((1, 1))
    live.frames()
    live.finish((2, 1))
    live.session.resynced()
    frame = live.frame()
    assert frame.hello is not None
    assert (frame.outcomes, frame.accepted) == ([], [])
    assert ([one.job_key for one in frame.hello.outcomes], frame.hello.held) == ([1, 2], [(3, 1)])
    assert frame.hello.connect_seq == 2
    live.finish((3, 1))
    assert live.outcomes() == {(3, 1): OutcomeStatus.SUCCEEDED}
    live.welcome(frame.hello)
    assert live.outcomes() == {}


def test_second_resync_waits_for_the_answer_to_the_first_hello(live: Bench) -> None:
    """Else that answer is taken for the second one's, and an Assign that crossed the second Hello is run."""
    live.session.resynced()
    first = live.frame().hello
    assert first is not None
    live.session.resynced()
    assert live.frames() == []
    live.welcome(first)
    second = live.frame().hello
    assert second is not None
    assert second.connect_seq == first.connect_seq + 1
    live.assign((1, 1))
    assert live.session.held == 0


def test_stream_goes_on_while_a_resync_is_answered(live: Bench) -> None:
    live.assign((1, 1))
    live.frames()
    live.session.resynced()
    live.frames()
    live.finish((1, 1))
    assert live.outcomes() == {(1, 1): OutcomeStatus.SUCCEEDED}
    assert live.session.is_live


def test_assignment_that_crosses_a_hello_is_dropped_because_the_broker_takes_it_back(live: Bench) -> None:
    live.session.resynced()
    hello = live.frame().hello
    assert hello is not None
    live.assign((1, 1))
    assert live.frames() == []
    assert live.session.held == 0
    live.welcome(hello)
    live.assign((1, 2))
    assert live.frame().accepted == [(1, 2)]


# Progress ------------------------------------------------------------------------------------------------------------


def test_progress_is_sent_at_most_once_a_second_and_only_the_latest(live: Bench) -> None:
    live.assign((1, 1))
    live.session.progressed(Progress(1, 1, 0.1, "a", b"c1"))
    assert [one.fraction for one in live.frame().progress] == [0.1]
    live.session.progressed(Progress(1, 1, 0.2, "b", b"c2"))
    live.session.progressed(Progress(1, 1, 0.3, "c"))
    assert live.frames() == []
    assert live.session.next_deadline_us() == live.now + 1 * S
    live.now += 1 * S
    progress = live.frame().progress
    assert [(one.fraction, one.text, one.checkpoint) for one in progress] == [(0.3, "c", b"c2")]


def test_checkpoint_that_waits_goes_with_the_outcome(live: Bench) -> None:
    live.assign((1, 1))
    live.session.progressed(Progress(1, 1, 0.1))
    live.frames()
    live.session.progressed(Progress(1, 1, 0.9, checkpoint=b"half"))
    live.finish((1, 1), OutcomeStatus.FAILED, code="x")
    frame = live.frame()
    assert [one.checkpoint for one in frame.progress] == [b"half"]
    assert len(frame.outcomes) == 1


def test_accept_and_start_stay_in_front_of_progress_that_goes_with_the_outcome(live: Bench) -> None:
    live.assign((1, 1))
    live.session.progressed(Progress(1, 1, 0.9, checkpoint=b"half"))
    live.finish((1, 1), OutcomeStatus.FAILED, code="x")
    frame = live.frame()
    assert (frame.accepted, frame.started, len(frame.progress)) == ([(1, 1)], [(1, 1)], 1)


def test_progress_of_an_outcome_that_hello_carries_is_not_worth_sending(live: Bench) -> None:
    live.assign((1, 1))
    live.session.progressed(Progress(1, 1, 0.9))
    live.finish((1, 1))
    live.session.disconnected(live.now)
    live.connect()
    assert live.frames() == []


def test_progress_of_a_run_is_kept_for_the_next_stream(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    live.session.progressed(Progress(1, 1, 0.5, checkpoint=b"half"))
    live.connect()
    assert [one.checkpoint for one in live.frame().progress] == [b"half"]


def test_progress_that_does_not_fit_follows_a_second_later() -> None:
    bench = Bench(frame_bytes_max=1_000)
    bench.connect()
    bench.assign((1, 1), (2, 1))
    bench.session.progressed(Progress(1, 1, 0.5, checkpoint=bytes(900)))
    bench.session.progressed(Progress(2, 1, 0.5, checkpoint=bytes(900)))
    assert [one.job_key for one in bench.frame().progress] == [1]
    bench.now += 1 * S
    assert [one.job_key for one in bench.frame().progress] == [2]


def test_progress_of_an_attempt_that_is_not_running_is_dropped(live: Bench) -> None:
    live.session.progressed(Progress(1, 1, 0.5))
    assert live.frames() == []


# Frames --------------------------------------------------------------------------------------------------------------


def test_frames_are_capped_by_items_and_outcomes_go_first() -> None:
    bench = Bench(slots=10, frame_items_max=4)
    bench.connect()
    bench.assign(*[(job, 1) for job in range(10)])
    for job in range(6):
        bench.finish((job, 1))
    frames = bench.frames()
    assert [len(frame.outcomes) for frame in frames] == [4, 2, 0, 0]
    assert [len(frame.accepted) for frame in frames] == [0, 2, 2, 0]
    assert [len(frame.started) for frame in frames] == [0, 0, 2, 2]


def test_frames_are_capped_by_bytes_but_a_large_outcome_goes_by_itself() -> None:
    bench = Bench(slots=4, frame_bytes_max=1_000)
    bench.connect()
    bench.assign((1, 1), (2, 1), (3, 1))
    bench.finish((1, 1), content=bytes(5_000))
    bench.finish((2, 1), content=bytes(400))
    bench.finish((3, 1), content=bytes(400))
    assert [[one.job_key for one in frame.outcomes] for frame in bench.frames()] == [[1], [2, 3]]


# Drain and Goodbye ---------------------------------------------------------------------------------------------------


def test_drained_agent_asks_for_it_finishes_and_says_goodbye_when_nothing_is_held(live: Bench) -> None:
    live.assign((1, 1))
    live.frames()
    live.session.drain("SIGTERM")
    frame = live.frame()
    assert (frame.drain_request, frame.drain_status, frame.goodbye) == ("SIGTERM", [(1, 1)], None)
    live.finish((1, 1))
    assert live.frame().goodbye is None, "its outcome is not acknowledged"
    live.ack((1, 1))
    assert live.frame().goodbye == "SIGTERM"
    assert live.session.phase is Phase.LEFT
    assert live.frames() == []


def test_idle_agent_says_goodbye_at_once(live: Bench) -> None:
    live.session.drain("SIGTERM")
    assert live.frame().goodbye == "SIGTERM"


def test_draining_agent_takes_nothing_new(live: Bench) -> None:
    live.assign((1, 1))
    live.session.drain("SIGTERM")
    live.assign((2, 1))
    assert [(one.job_key, one.reason) for one in live.frame().rejected] == [(2, RejectedReason.LEAVING)]


def test_drain_goes_on_after_a_reconnect_and_waits_for_the_acknowledgement(live: Bench) -> None:
    live.assign((1, 1))
    live.session.drain("SIGTERM")
    assert live.frame().drain_request == "SIGTERM"
    live.finish((1, 1))
    live.session.disconnected(live.now)
    live.connect()
    frame = live.frame()
    assert (frame.drain_request, frame.goodbye) == ("SIGTERM", None)
    live.ack((1, 1))
    assert live.frame().goodbye == "SIGTERM"


def test_goodbye_waits_for_a_run_that_a_verdict_stopped(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    live.connect((1, 1))
    live.session.drain("SIGTERM")
    assert live.frame().goodbye is None
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    frame = live.frame()
    assert len(frame.outcomes) == 1
    assert frame.goodbye == "SIGTERM"


def test_operators_drain_is_reported_with_each_heartbeat_that_finds_a_change(live: Bench) -> None:
    live.assign((1, 1), (2, 1))
    live.frames()
    live.session.drain_started()
    assert live.frame().drain_status == [(1, 1), (2, 1)]
    live.finish((1, 1))
    live.ack((1, 1))
    assert live.frames() == []
    live.now += 2 * S
    assert live.frame().drain_status == [(2, 1)]
    live.session.drain_cancelled()
    live.finish((2, 1))
    assert live.frame().drain_status is None


@pytest.mark.parametrize(("is_stop", "goodbye"), [(True, "drained"), (False, None)])
def test_agent_leaves_after_a_drain_to_stop_and_stays_after_one_to_pause(
    live: Bench, is_stop: bool, goodbye: str | None
) -> None:
    live.session.drain_started()
    live.frames()
    live.session.drain_done(is_stop=is_stop)
    assert [frame.goodbye for frame in live.frames()] == ([goodbye] if goodbye else [])
