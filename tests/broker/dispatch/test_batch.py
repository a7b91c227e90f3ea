"""One batch, one commit: what is released when, and what a failed commit leaves."""

import random

import pytest

from broker.dispatch.batch import Batch, Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AssignJob,
    Event,
    JobAccepted,
    JobSubmitted,
    SessionClosed,
)
from broker.dispatch.model import AgentNo, DispatchPolicy, GroupNo, OperationPolicy, SessionId

ONE, TWO = GroupNo(1), GroupNo(2)
POLICY = OperationPolicy(no=1)


def submission(ticket: int) -> JobSubmitted:
    return JobSubmitted(ticket, ticket.to_bytes(16, "big"), "echo", POLICY, b"digest", delay_us=0)


@pytest.fixture
def batcher() -> Batcher:
    made = Batcher(40)
    for group in (ONE, TWO):
        made.add(group, Dispatcher(group, DispatchPolicy(), int(group), random.Random(1)))
    return made


def connected(batcher: Batcher, group: GroupNo) -> None:
    agent = AgentNo(group)
    hello = AgentConnected(agent, SessionId(group), b"i" * 16, 1, 4, 4, 1, frozenset({"echo"}), frozenset())
    events: list[tuple[GroupNo, Event]] = [(group, AgentAdded(0, agent, "a")), (group, hello)]
    batcher.run(1_000, events)
    batcher.committed()


def test_batcher_makes_one_commit_of_all_groups_and_keeps_their_epochs(batcher: Batcher) -> None:
    batch = batcher.run(1_000, [(TWO, submission(1)), (ONE, submission(2)), (TWO, submission(3))])
    assert batch.seq == 41
    assert list(batch.writes) == [ONE, TWO]
    assert batch.epochs == {ONE: 1, TWO: 2}
    assert [len(writes.inserts) for writes in batch.writes.values()] == [1, 2]


def test_batcher_steps_nothing_while_a_batch_is_pending(batcher: Batcher) -> None:
    batcher.run(1_000, [(ONE, submission(1))])
    with pytest.raises(AssertionError, match="pending"):
        batcher.run(2_000, [(ONE, submission(2))])
    batcher.committed()
    assert batcher.run(2_000, [(ONE, submission(2))]).seq == 42


def test_batcher_writes_a_job_once_that_is_queued_and_assigned_in_one_batch(batcher: Batcher) -> None:
    connected(batcher, ONE)
    batch = batcher.run(2_000, [(ONE, submission(1))])
    (row,) = batch.writes[ONE].inserts
    assert (row.state, row.phase, row.attempt) == ("assigned", "sent", 1)
    assert not batch.writes[ONE].updates
    assert [type(reply) for reply in batch.replies()] == [JobAccepted]
    assert [type(send) for send in batch.sends()] == [AssignJob]


def test_batcher_needs_no_commit_when_nothing_durable_changed(batcher: Batcher) -> None:
    batch = batcher.run(1_000, [])
    assert batch.seq == 0
    assert batcher.pending is None


def test_batcher_drops_the_part_of_groups_that_it_lost_and_commits_the_rest(batcher: Batcher) -> None:
    batcher.run(1_000, [(ONE, submission(1)), (TWO, submission(2))])
    rest = batcher.stale([ONE])
    assert list(rest.writes) == [TWO]
    assert batcher.get(ONE) is None
    assert [reply.ticket for reply in batcher.committed().replies()] == [2]


def test_batcher_releases_an_empty_rest_without_a_commit(batcher: Batcher) -> None:
    batcher.run(1_000, [(ONE, submission(1))])
    rest: Batch = batcher.stale([ONE])
    assert (rest.seq, batcher.pending, batcher.seq) == (0, None, 40)


def test_batcher_drops_events_of_groups_that_it_does_not_drive(batcher: Batcher) -> None:
    batch = batcher.run(1_000, [(GroupNo(9), submission(1))])
    assert not batch.effects


def test_batcher_tells_of_a_stall_before_the_ends_of_streams_that_waited_meanwhile(batcher: Batcher) -> None:
    connected(batcher, ONE)
    batcher.run(2_000, [(ONE, submission(1))])
    batcher.committed()
    batcher.run(12_002_000, [(ONE, SessionClosed(AgentNo(ONE), SessionId(ONE)))], lag_us=6_000_000)
    dispatcher = batcher.get(ONE)
    assert dispatcher is not None
    [job] = dispatcher.ledger.jobs.values()
    assert job.phase == "away", "its acceptance may have gone with the stream"


@pytest.mark.parametrize("exclusive", [False, True])
def test_batcher_lets_work_of_a_stream_that_ended_in_a_stall_wait_from_then_on_only(
    batcher: Batcher, exclusive: bool
) -> None:
    connected(batcher, ONE)
    job = JobSubmitted(1, bytes(16), "echo", OperationPolicy(no=1, exclusive=exclusive), b"digest")
    batcher.run(2_000, [(ONE, job)])
    batcher.committed()
    stall_us = 3_600_000_000
    end_us = 2_000 + stall_us
    batcher.run(end_us, [(ONE, SessionClosed(AgentNo(ONE), SessionId(ONE)))], lag_us=stall_us)
    dispatcher = batcher.get(ONE)
    assert dispatcher is not None
    [waiting] = dispatcher.ledger.jobs.values()
    assert waiting.phase == "away"
    batcher.run(end_us + DispatchPolicy().recovery_grace_us, [])
    assert waiting.phase == "adoptable"


def test_batcher_wakes_each_group_at_its_own_deadline(batcher: Batcher) -> None:
    late = submission(1)
    soon = JobSubmitted(2, b"2" * 16, "echo", POLICY, b"digest", delay_us=5_000_000)
    batcher.run(1_000_000, [(ONE, late), (TWO, soon)])
    batcher.committed()
    due_us = batcher.next_deadline_us()
    assert due_us is not None
    while batcher.next_deadline_us() is not None and (due_us := batcher.next_deadline_us() or 0) < 6_000_000:
        batcher.run(due_us, [])
    batch = batcher.run(6_000_000, [])
    assert [row.state for row in batch.writes[TWO].updates] == ["queued"]
    assert ONE not in batch.effects


def test_batcher_wakes_again_what_is_still_due_at_the_same_microsecond() -> None:
    """A driver in virtual time comes back at the very time at which a slice was left over."""
    batcher = Batcher(0)
    batcher.add(ONE, Dispatcher(ONE, DispatchPolicy(placements_step_max=1), 1, random.Random(1)))
    batcher.run(1_000, [(ONE, submission(ticket)) for ticket in range(1, 5)])
    batcher.committed()
    hello = AgentConnected(AgentNo(1), SessionId(1), b"i" * 16, 1, 4, 4, 1, frozenset({"echo"}), frozenset())
    batch = batcher.run(1_000, [(ONE, AgentAdded(0, AgentNo(1), "a")), (ONE, hello)])
    batcher.committed()
    placed = sum(isinstance(send, AssignJob) for send in batch.sends())
    assert placed < 4, "the step places one"
    while placed < 4 and batcher.next_deadline_us() == 1_000:
        batch = batcher.run(1_000, [])
        batcher.committed()
        placed += sum(isinstance(send, AssignJob) for send in batch.sends())
    assert placed == 4
