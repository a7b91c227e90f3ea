from __future__ import annotations

import asyncio

import pytest

from broker.dispatch.messages import (
    AgentConnected,
    AttemptAccepted,
    AttemptFinished,
    AttemptProgressed,
    Event,
    JobSubmitted,
)
from broker.dispatch.model import AgentNo, GroupNo, JobKey, OperationPolicy, OutcomeStatus, SessionId
from broker.errors import StoreFailedError
from broker.mailbox import Mailbox, bytes_of
from broker.store.base import Body

GROUP = GroupNo(1)
AGENT = AgentNo(1)
SESSION = SessionId(1)
SUCCEEDED = OutcomeStatus.SUCCEEDED


class Box:
    """A mailbox and how often it was full."""

    def __init__(self, events_max: int = 10, bytes_max: int = 100) -> None:
        self.full: list[str] = []
        self.mailbox = Mailbox[Event]("reports", events_max, bytes_max, self.full.append)

    def taken(self, events_max: int = 10, bytes_max: int = 1_000) -> list[int]:
        return [bytes_of(event) for _, event in self.mailbox.take(events_max, bytes_max)]


def finished(size: int = 0) -> AttemptFinished:
    return AttemptFinished(AGENT, SESSION, JobKey(1), 1, SUCCEEDED, body=Body(b"x" * size))


async def settled() -> None:
    """Whatever can go on has gone on."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_bytes_of_an_event_are_those_of_payload_result_and_checkpoint() -> None:
    submitted = JobSubmitted(1, b"i" * 16, "echo", OperationPolicy(no=1), b"d", payload_bytes=7, body=Body(b"x" * 7))
    outcomes = (finished(2), finished(3))
    hello = AgentConnected(AGENT, SESSION, b"i" * 16, 1, 1, 1, 1, frozenset({"echo"}), frozenset(), outcomes=outcomes)
    assert bytes_of(submitted) == 7
    assert bytes_of(finished(5)) == 5
    assert bytes_of(AttemptFinished(AGENT, SESSION, JobKey(1), 1, SUCCEEDED)) == 0
    assert bytes_of(AttemptProgressed(AGENT, SESSION, JobKey(1), 1, b"four")) == 4
    assert bytes_of(hello) == 5
    assert bytes_of(AttemptAccepted(AGENT, SESSION, JobKey(1), 1)) == 0


@pytest.mark.parametrize("events", [[finished(60), finished(41)], [finished()] * 11])
def test_mailbox_takes_all_that_is_offered_or_nothing(events: list[AttemptFinished]) -> None:
    box = Box()
    assert not box.mailbox.offer(GROUP, events)
    assert (len(box.mailbox), box.full) == (0, ["reports"])
    assert box.mailbox.offer(GROUP, events[:-1])
    assert len(box.mailbox) == len(events) - 1


def test_mailbox_has_room_again_when_something_was_taken() -> None:
    box = Box()
    assert box.mailbox.offer(GROUP, [finished(50), finished(50)])
    assert not box.mailbox.offer(GROUP, [finished(1)])
    assert box.taken(events_max=1) == [50]
    assert box.mailbox.offer(GROUP, [finished(50)])
    assert box.taken() == [50, 50]
    assert box.mailbox.offer(GROUP, [finished(100)])


def test_mailbox_gives_no_more_bytes_than_asked_for_but_always_one_event() -> None:
    box = Box()
    assert box.mailbox.offer(GROUP, [finished(size) for size in (40, 5, 5, 30)])
    assert box.taken(bytes_max=10) == [40]
    assert box.taken(bytes_max=10) == [5, 5]
    assert box.taken(events_max=0) == []
    assert box.taken(bytes_max=10) == [30]
    assert box.taken() == []


async def test_mailbox_lets_readers_wait_and_serves_them_in_their_order() -> None:
    box = Box()
    await box.mailbox.put(GROUP, [finished(90)])
    large = asyncio.create_task(box.mailbox.put(GROUP, [finished(60), finished(60)]))
    small = asyncio.create_task(box.mailbox.put(GROUP, [finished(1)]))
    await settled()
    assert (large.done(), small.done(), box.full) == (False, False, ["reports"])
    assert box.taken() == [90]
    await large  # more than there can ever be, but nothing else waits
    await settled()
    assert not small.done()
    assert box.taken() == [60, 60]
    await small
    assert box.taken() == [1]


async def test_mailbox_holds_back_a_frame_of_too_many_events_as_a_whole() -> None:
    box = Box(events_max=4)
    await box.mailbox.put(GROUP, [finished()])
    frame = asyncio.create_task(box.mailbox.put(GROUP, [finished()] * 4))
    await settled()
    assert (frame.done(), len(box.mailbox)) == (False, 1)
    box.taken()
    await frame
    assert len(box.mailbox) == 4


async def test_mailbox_tells_who_put_events_when_the_last_of_them_is_taken() -> None:
    box = Box()
    told: list[str] = []
    await box.mailbox.put(GROUP, [finished()] * 3, lambda: told.append("first"))
    box.mailbox.force(GROUP, finished())
    await box.mailbox.put(GROUP, [finished()] * 2, lambda: told.append("second"))
    box.taken(events_max=2)
    assert told == []
    box.taken(events_max=3)
    assert told == ["first"]
    box.taken()
    await box.mailbox.put(GROUP, [finished()], lambda: told.append("third"))
    box.taken()
    assert told == ["first", "second", "third"]


async def test_mailbox_that_failed_tells_who_put_events_that_nobody_takes_any_more() -> None:
    box = Box()
    told: list[str] = []
    await box.mailbox.put(GROUP, [finished()] * 10, lambda: told.append("in it"))
    waiting = asyncio.create_task(box.mailbox.put(GROUP, [finished()], lambda: told.append("never in it")))
    await settled()
    box.mailbox.fail(StoreFailedError("the disk is gone"))
    with pytest.raises(StoreFailedError):
        await waiting
    assert told == ["in it"]


async def test_mailbox_that_failed_tells_who_waits_and_who_comes() -> None:
    box = Box()
    await box.mailbox.put(GROUP, [finished(100)])
    waiting = [asyncio.create_task(box.mailbox.put(GROUP, [finished(1)])) for _ in range(2)]
    await settled()
    box.mailbox.fail(StoreFailedError("the disk is gone"))
    for task in waiting:
        with pytest.raises(StoreFailedError, match="the disk is gone"):
            await task
    with pytest.raises(StoreFailedError):
        box.mailbox.offer(GROUP, [finished()])


def test_mailbox_gives_of_each_source_in_turns_and_of_none_more_than_its_share() -> None:
    box = Box(events_max=1_000, bytes_max=10_000)
    assert box.mailbox.offer(GROUP, [finished(1)] * 500, "flood")
    assert box.mailbox.offer(GROUP, [finished(2)] * 3, "good")
    assert box.mailbox.offer(GROUP, [finished(3)] * 40, "other")
    taken = [bytes_of(event) for _, event in box.mailbox.take(200, 10_000, 64)]
    assert taken == [1] * 32 + [2] * 3 + [3] * 32 + [1] * 32 + [3] * 8
    assert box.taken(events_max=1_000, bytes_max=10_000) == [1] * 436


def test_mailbox_begins_with_those_who_came_short() -> None:
    box = Box(events_max=1_000, bytes_max=10_000)
    for size, source in enumerate("abc", start=1):
        assert box.mailbox.offer(GROUP, [finished(size)] * 100, source)
    assert box.taken(events_max=40) == [1] * 32 + [2] * 8
    assert box.taken(events_max=40) == [3] * 32 + [1] * 8


def test_mailbox_begins_with_whoever_did_not_fit_however_much_the_others_go_on_to_say() -> None:
    box = Box(events_max=1_000, bytes_max=100_000)
    assert box.mailbox.offer(GROUP, [finished(30)] * 40, "flood")
    assert box.mailbox.offer(GROUP, [finished(64), finished(65)], "good")
    assert box.mailbox.offer(GROUP, [finished(31)] * 40, "other flood")
    batches = list[list[int]]()
    for _ in range(3):
        assert box.mailbox.offer(GROUP, [finished(30)] * 32, "flood")
        batches.append(box.taken(events_max=100, bytes_max=1_000))
    assert batches == [[30] * 32, [64, 65] + [31] * 28, [30] * 32 + [31]]


def test_mailbox_gives_what_did_not_fit_before_smaller_events_of_the_same_source() -> None:
    box = Box(events_max=1_000, bytes_max=100_000)
    assert box.mailbox.offer(GROUP, [finished(30)] * 64, "flood")
    assert box.mailbox.offer(GROUP, [finished(1)] * 32 + [finished(64), finished(2)], "good")
    assert box.taken(events_max=100, bytes_max=1_000) == [30] * 32 + [1] * 32
    assert box.taken(events_max=100, bytes_max=1_000) == [30] * 32
    assert box.taken(events_max=100, bytes_max=1_000) == [64, 2]


def test_mailbox_is_mixed_while_somebody_who_says_little_waits_with_little_beside_others() -> None:
    box, modest = Box(events_max=1_000), {"good"}
    assert box.mailbox.offer(GROUP, [finished()] * 100, "flood")
    assert not box.mailbox.is_mixed(modest.__contains__)
    assert box.mailbox.offer(GROUP, [finished()], "end of another flood")
    assert not box.mailbox.is_mixed(modest.__contains__)
    assert box.mailbox.offer(GROUP, [finished()] * 65, "good")
    assert not box.mailbox.is_mixed(modest.__contains__)
    assert len(box.mailbox.take(8, 1_000, 2)) == 5
    assert box.mailbox.is_mixed(modest.__contains__)


@pytest.mark.parametrize("bytes_max", [1, 25, 60])
def test_mailbox_of_several_sources_gives_no_more_bytes_than_asked_for(bytes_max: int) -> None:
    box = Box(events_max=100, bytes_max=1_000)
    for source in "ab":
        assert box.mailbox.offer(GROUP, [finished(10)] * 7, source)
    taken: list[int] = []
    while part := box.taken(events_max=100, bytes_max=bytes_max):
        assert sum(part) <= max(10, bytes_max)
        taken += part
    assert taken == [10] * 14
    assert box.mailbox.offer(GROUP, [finished(1_000)])


async def test_mailbox_tells_each_source_when_its_own_events_are_taken() -> None:
    box = Box()
    told: list[str] = []
    await box.mailbox.put(GROUP, [finished()] * 4, lambda: told.append("a"), "a")
    await box.mailbox.put(GROUP, [finished()], lambda: told.append("b"), "b")
    box.mailbox.take(10, 1_000, 2)
    assert told == ["b"]
    box.taken()
    assert told == ["b", "a"]
