"""Exclusive attempts and the lease, without a stream."""

from __future__ import annotations

from agent_stub.session import (
    Capacity,
    LeaveStream,
    OutcomeStatus,
    Phase,
    RejectedReason,
)
from tests.agent_stub.sessions import Bench, S

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


def test_broker_whose_assignments_arrive_is_not_left_though_its_acknowledgements_are_late(live: Bench) -> None:
    before_us = live.session.lease_end_us
    for at_us in (109 * S, 118 * S):
        live.now = at_us
        live.assign((at_us, 1))
        live.session.timer(at_us + 9 * S)
    assert live.given(LeaveStream) == []
    assert live.session.lease_end_us == before_us
    live.session.timer(128 * S)
    assert len(live.given(LeaveStream)) == 1


def test_broker_whose_welcome_took_long_is_given_a_lease_to_answer_the_first_heartbeat() -> None:
    """Hello waited for its turn among thousands: the lease is short then, but the stream is not silent."""
    late = Bench()
    hello = late.hello()
    late.now = 109 * S
    late.welcome(hello)
    assert late.session.lease_end_us == 108 * S
    late.session.timer(119 * S - 1)
    assert late.given(LeaveStream) == []
    late.session.timer(119 * S)
    assert len(late.given(LeaveStream)) == 1


def test_exclusive_attempt_that_waits_does_not_start_when_a_run_ends_after_the_lease() -> None:
    bench = Bench(slots=1, prefetch=1)
    bench.connect()
    bench.assign((1, 1))
    bench.assign((2, 1), exclusive=True)
    bench.now = 108 * S
    bench.finish((1, 1))
    assert bench.started() == [(1, 1)]
    assert bench.outcomes()[2, 1] is OutcomeStatus.FENCED
