"""The stream: Hello and Welcome, epochs, heartbeats, resync and frames. Calls in, orders and frames out."""

from __future__ import annotations

import dataclasses
import math

import pytest

from agent_stub.session import (
    OWN_PREFETCH,
    Capacity,
    LeaveStream,
    Outcome,
    OutcomeStatus,
    Phase,
    RejectedReason,
    Verdict,
    Welcome,
)
from tests.agent_stub.sessions import LEASE, Bench, S

# Hello and Welcome ---------------------------------------------------------------------------------------------------


def test_hello_states_slots_and_capacity_and_grows_with_each_connect() -> None:
    bench = Bench(slots=3, prefetch=2)
    first, second = bench.hello(), bench.hello()
    assert (first.slots, first.capacity.attempts) == (3, 9)
    assert second.connect_seq == first.connect_seq + 1
    assert second.capacity.seq > first.capacity.seq


def test_group_says_how_much_waits_for_each_slot_and_the_agent_states_what_it_holds_then() -> None:
    bench = Bench(slots=3, prefetch=2)
    bench.session.welcomed(bench.now, dataclasses.replace(LEASE, prefetch=bench.hello().slots * 0.5))
    assert bench.frame().capacity == Capacity(2, 7)
    bench.session.prefetch_set(0.0)
    assert bench.frame().capacity == Capacity(3, 3)
    bench.session.prefetch_set(OWN_PREFETCH)
    assert bench.frame().capacity == Capacity(4, 9)
    bench.session.prefetch_set(2.0)
    assert bench.frames() == []  # what it said already


def test_capacity_by_the_group_is_bounded_by_what_fits_and_by_the_contract() -> None:
    bench = Bench(slots=3)
    bench.session.limit(5)
    bench.connect()
    bench.session.prefetch_set(4.0)
    assert (bench.session.capacity, bench.session.capacity_max) == (5, 15)
    bench.session.limit(99)
    assert bench.session.capacity == 15
    bench.session.prefetch_set(math.inf)
    assert bench.session.capacity_max == 4_096


def test_work_that_was_on_its_way_when_the_capacity_became_less_is_taken_and_more_is_refused_as_busy() -> None:
    bench = Bench(slots=1, prefetch=2)
    bench.connect()
    bench.assign((1, 1), (2, 1))
    bench.frames()
    bench.session.prefetch_set(0.0)
    bench.assign((3, 1))
    frame = bench.frame()
    assert (frame.capacity, frame.accepted, frame.rejected) == (Capacity(2, 1), [(3, 1)], [])
    bench.assign((4, 1))
    assert [one.reason for one in bench.frame().rejected] == [RejectedReason.BUSY]
    bench.finish((1, 1))
    bench.ack((1, 1))
    assert bench.started() == [(1, 1), (2, 1)]


def test_nothing_is_on_its_way_any_more_from_before_a_hello() -> None:
    bench = Bench(slots=1, prefetch=2)
    bench.connect()
    bench.session.prefetch_set(0.0)
    bench.session.disconnected(bench.now)
    assert bench.hello().capacity.attempts == 1
    bench.session.welcomed(bench.now, dataclasses.replace(LEASE, prefetch=0.0))
    bench.assign((1, 1), (2, 1))
    assert [one.job_key for one in bench.frame().rejected] == [2]


def test_work_that_was_on_its_way_is_refused_when_there_is_no_room_for_it() -> None:
    bench = Bench(slots=3, prefetch=1)
    bench.connect()
    bench.session.prefetch_set(0.0)
    bench.session.limit(1)
    bench.assign((1, 1), (2, 1))
    assert [one.job_key for one in bench.frame().rejected] == [2]


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


# Rule 9: what is held belongs to its mesh -----------------------------------------------------------------------------


def joined(bench: Bench, mesh_id: str, epoch: int = 5) -> bool:
    """Whether the session begins with a broker of this mesh."""
    hello = bench.hello()
    verdicts = [Verdict.KEEP] * len(hello.held)
    bench.session.welcomed(bench.now, dataclasses.replace(LEASE, mesh_id=mesh_id, epoch=epoch, verdicts=verdicts))
    return bench.session.is_live


def test_agent_with_work_in_hand_leaves_a_broker_of_another_mesh_in_words_and_goes_on_working() -> None:
    bench = Bench()
    assert joined(bench, "north")
    bench.assign((1, 1))
    bench.session.disconnected(bench.now)
    assert not joined(bench, "south", epoch=9)
    (order,) = bench.given(LeaveStream)
    assert order.reason == "this is mesh south, and the agent holds work of mesh north"
    assert bench.session.running == 1
    bench.session.disconnected(bench.now)
    assert joined(bench, "north")  # the epoch of the other one counts for nothing


def test_agent_says_in_hello_which_mesh_it_was_in() -> None:
    bench = Bench()
    assert bench.hello().mesh_id == ""
    assert joined(bench, "north")
    assert bench.hello().mesh_id == "north"


def test_agent_with_nothing_in_hand_joins_another_mesh_whatever_its_epoch() -> None:
    bench = Bench()
    assert joined(bench, "north", epoch=5)
    bench.session.disconnected(bench.now)
    assert joined(bench, "south", epoch=1)
    bench.session.disconnected(bench.now)
    assert not joined(bench, "south", epoch=0)


def test_agent_goes_on_with_a_broker_that_names_no_mesh() -> None:
    bench = Bench()
    assert joined(bench, "north")
    bench.assign((1, 1))
    bench.session.disconnected(bench.now)
    assert joined(bench, "")
    assert bench.session.mesh_id == "north"


def test_outcomes_of_an_earlier_process_are_for_their_mesh_only() -> None:
    bench = Bench()
    bench.session.restore([Outcome(1, 1, OutcomeStatus.SUCCEEDED)], "north")
    assert not joined(bench, "south")
    bench.session.disconnected(bench.now)
    assert joined(bench, "north")
