"""What becomes of attempts that the session is given, without a stream."""

from __future__ import annotations

import pytest

from agent_stub.session import (
    AgentSession,
    LeaveStream,
    OutcomeStatus,
    RejectedReason,
    StartRun,
    StopRun,
)
from tests.agent_stub.sessions import Bench, S

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
    assert len(live.session._attempts._deadlines) < 100
