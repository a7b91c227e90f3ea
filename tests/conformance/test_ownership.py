from __future__ import annotations

import pytest

from broker.dispatch.model import GroupNo
from broker.dispatch.rows import Writes
from broker.errors import NotFoundError
from broker.store.base import CommitStatus
from tests.conformance.bench import BROKER, START_US, StoreBench


async def test_ownership_raises_the_epoch_of_every_group(bench: StoreBench) -> None:
    before = dict(bench.epochs)

    taken = await bench.store.take_ownership(BROKER, START_US)

    assert set(before) == {bench.group, bench.other_group}
    assert taken.epochs == {group: epoch + 1 for group, epoch in before.items()}


async def test_ownership_makes_commits_of_the_former_epoch_stale(bench: StoreBench) -> None:
    held = dict(bench.epochs)
    await bench.own()
    bench.epochs = held

    outcome = await bench.commit(
        group=Writes(inserts=[bench.job(1)]), other_group=Writes(inserts=[bench.job(1, group=bench.other_group)])
    )

    assert outcome.status is CommitStatus.STALE
    assert set(outcome.stale_groups) == {bench.group, bench.other_group}


async def test_ownership_goes_on_from_the_last_commit(bench: StoreBench) -> None:
    await bench.insert(bench.job(1))
    await bench.insert(bench.job(2))
    last_us = bench.at_us - 1_000_000
    await bench.reopen()

    taken = await bench.store.take_ownership(BROKER, last_us + 7)

    assert taken.batch_seq == 2
    assert taken.last_committed_us == last_us


async def test_last_committed_time_never_goes_back(bench: StoreBench) -> None:
    bench.at_us = START_US + 50
    await bench.insert(bench.job(1))
    bench.at_us = START_US + 20
    await bench.insert(bench.job(2))

    assert (await bench.store.take_ownership("broker-2", START_US)).last_committed_us == START_US + 50


async def test_brokers_count_their_commits_apart(bench: StoreBench) -> None:
    await bench.insert(bench.job(1))

    await bench.own("broker-2")
    await bench.insert(bench.job(2))
    await bench.insert(bench.job(3))

    assert await bench.store.committed_seq(BROKER) == 1
    assert await bench.store.committed_seq("broker-2") == 2
    assert await bench.store.committed_seq("broker-3") == 0


async def test_adopted_new_group_has_epoch_one_and_takes_commits(bench: StoreBench) -> None:
    group = await bench.make_group("north")

    epoch = await bench.store.adopt_group(group)

    assert epoch == 1
    bench.epochs[group] = epoch
    request = bench.request({group: Writes(inserts=[bench.job(1, group=group)])})
    assert (await bench.store.commit(request)).status is CommitStatus.COMMITTED


async def test_group_that_nobody_adopted_takes_no_commits_of_epoch_one(bench: StoreBench) -> None:
    group = await bench.make_group("north")
    bench.epochs[group] = 1

    outcome = await bench.store.commit(bench.request({group: Writes(inserts=[bench.job(1, group=group)])}))

    assert outcome.status is CommitStatus.STALE
    assert outcome.stale_groups == (group,)


async def test_unknown_group_is_not_adopted(bench: StoreBench) -> None:
    with pytest.raises(NotFoundError, match="99"):
        await bench.store.adopt_group(GroupNo(99))
