from __future__ import annotations

import asyncio

import pytest

from broker.dispatch.messages import Notice, Transition
from broker.dispatch.model import NO_AGENT, GroupNo, JobKey, JobState
from broker.errors import FullError, MalformedError
from broker.rpc.watch import JobFeed, Watcher
from tests.broker.running import WAIT_S

GROUP = GroupNo(1)
FIRST = 1 << 40
"""The first job key of group 1."""


def changes(*numbers: int, group: GroupNo = GROUP, is_new: bool = True) -> list[Notice]:
    before = None if is_new else JobState.QUEUED
    return [transition(JobKey(FIRST + number), group, before) for number in numbers]


def transition(key: JobKey, group: GroupNo, before: JobState | None) -> Transition:
    return Transition(group, key, 0, 1, before, JobState.QUEUED, "", NO_AGENT)


async def taken(watcher: Watcher, most: int = 10) -> tuple[list[int], bool]:
    async with asyncio.timeout(WAIT_S):
        keys, is_gap = await watcher.take(most)
    return [key - FIRST for key in keys], is_gap


async def test_watcher_is_told_each_job_once_however_often_it_changed() -> None:
    feed = JobFeed(0, 10)
    watcher = await feed.watch(frozenset({GROUP}), 10, "")
    feed.on_batch(changes(1, 2), 1)
    feed.on_batch(changes(2, 1, 3, is_new=False), 2)
    feed.on_batch(changes(9, group=GroupNo(2)), 3)
    assert await taken(watcher) == ([1, 2, 3], False)
    assert watcher.taken_seq == 3


async def test_watcher_loses_the_oldest_and_hears_of_a_gap_once() -> None:
    feed = JobFeed(0, 10)
    watcher = await feed.watch(frozenset({GROUP}), 2, "")
    feed.on_batch(changes(1, 2, 3), 1)
    assert await taken(watcher) == ([2, 3], True)
    feed.on_batch(changes(4), 2)
    assert await taken(watcher) == ([4], False)


async def test_watcher_may_not_resume_behind_what_it_has_not_taken() -> None:
    feed = JobFeed(0, 10)
    watcher = await feed.watch(frozenset({GROUP}), 10, "")
    feed.on_batch(changes(1, 2, 3), 7)
    assert await taken(watcher, most=2) == ([1, 2], False)
    assert watcher.taken_seq == 0
    assert await taken(watcher, most=2) == ([3], False)
    assert watcher.taken_seq == 7


async def test_watcher_that_resumes_gets_what_it_missed_and_nothing_else() -> None:
    feed = JobFeed(10, 10)
    for seq in (11, 12, 13):
        feed.on_batch(changes(seq), seq)
    assert await taken(await feed.watch(frozenset({GROUP}), 10, "11")) == ([12, 13], False)


@pytest.mark.parametrize("token", ["9", "99"])
async def test_watcher_that_resumes_from_before_or_after_all_hears_of_a_gap(token: str) -> None:
    feed = JobFeed(10, 10)
    feed.on_batch(changes(1), 11)
    _, is_gap = await taken(await feed.watch(frozenset({GROUP}), 10, token))
    assert is_gap


async def test_watcher_that_resumes_from_what_was_forgotten_hears_of_a_gap() -> None:
    feed = JobFeed(0, 10, remembered_max=2)
    for seq in (1, 2, 3):
        feed.on_batch(changes(seq), seq)
    assert await taken(await feed.watch(frozenset({GROUP}), 10, "1")) == ([2, 3], False)
    assert await taken(await feed.watch(frozenset({GROUP}), 10, "0")) == ([2, 3], True)


async def test_watcher_that_is_narrowed_hears_of_its_jobs_and_of_new_ones_while_it_wants_them() -> None:
    feed = JobFeed(0, 10)
    watcher = await feed.watch(frozenset({GROUP}), 10, "")
    feed.on_batch(changes(1, 2, is_new=False) + changes(3), 1)
    watcher.narrow([JobKey(FIRST + 1)], wants_new=True)
    assert await taken(watcher) == ([1, 3], False)
    watcher.narrow([JobKey(FIRST + 1)], wants_new=False)
    feed.on_batch(changes(2, 4) + changes(1, is_new=False), 2)
    assert await taken(watcher) == ([1], False)


async def test_watcher_that_resumes_leaves_others_their_turn_and_misses_nothing_new() -> None:
    feed = JobFeed(0, 10)
    for seq in range(1, 51):
        feed.on_batch(changes(*range(seq * 1_000, (seq + 1) * 1_000)), seq)
    resuming = asyncio.create_task(feed.watch(frozenset({GROUP}), 100_000, "0"))
    turns = 0
    while not resuming.done():
        await asyncio.sleep(0)
        turns += 1
        if turns == 2:
            feed.on_batch(changes(7), 51)
    assert turns > 10
    watcher = await resuming
    keys, is_gap = await taken(watcher, most=100_000)
    assert (len(keys), 7 in keys, is_gap, watcher.taken_seq) == (50_001, True, False, 51)


async def test_feed_refuses_a_watcher_too_many_until_one_has_left() -> None:
    feed = JobFeed(0, 1)
    first = await feed.watch(frozenset({GROUP}), 1, "")
    with pytest.raises(FullError) as caught:
        await feed.watch(frozenset({GROUP}), 1, "")
    assert caught.value.reason == "WATCHERS_FULL"
    feed.leave(first)
    await feed.watch(frozenset({GROUP}), 1, "")


async def test_watcher_that_left_is_not_told_any_more() -> None:
    feed = JobFeed(0, 10)
    gone, other = [await feed.watch(frozenset({GROUP}), 1, "") for _ in range(2)]
    feed.leave(gone)
    feed.on_batch(changes(1), 1)
    assert await taken(other) == ([1], False)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await gone.take(1)


@pytest.mark.parametrize("token", ["-1", "1.5", "x", " 1"])
async def test_token_that_is_none_is_refused(token: str) -> None:
    with pytest.raises(MalformedError) as caught:
        await JobFeed(0, 10).watch(frozenset(), 1, token)
    assert caught.value.reason == "MALFORMED_RESUME_TOKEN"
