from __future__ import annotations

from typing import Any

from broker.dispatch.model import AgentNo, GroupNo, JobKey, JobState
from broker.dispatch.rows import JobRow, KeyRow, LabelSetRow, Writes
from broker.store.base import Body, JobQuery, JobRecord
from tests.conformance.bench import START_US, StoreBench


def _numbers(records: list[JobRecord]) -> list[int]:
    return [record.row.accepted_us - START_US for record in records]


async def _fill(bench: StoreBench) -> None:
    """Jobs 1, 3, 5 in the first group and 2, 4, 6 in the other, accepted in that order."""
    groups: list[list[JobRow]] = [
        [bench.job(place, group=group, accepted_us=START_US + number) for place, number in enumerate(numbers, start=1)]
        for group, numbers in ((bench.group, (1, 3, 5)), (bench.other_group, (2, 4, 6)))
    ]
    await bench.commit(group=Writes(inserts=groups[0]), other_group=Writes(inserts=groups[1]))


async def test_job_is_found_only_inside_the_given_groups(bench: StoreBench) -> None:
    row = bench.job(1)
    await bench.insert(row)

    assert await bench.store.job([bench.other_group], row.job_id) is None
    assert await bench.store.job([], row.job_id) is None
    assert await bench.store.job([bench.group], b"another id") is None
    found = await bench.store.job([bench.other_group, bench.group], row.job_id)
    assert found is not None
    assert found.row == row


async def test_jobs_come_newest_first_over_all_groups(bench: StoreBench) -> None:
    await _fill(bench)

    assert _numbers(await bench.store.jobs(JobQuery((bench.group, bench.other_group)))) == [6, 5, 4, 3, 2, 1]
    assert _numbers(await bench.store.jobs(JobQuery((bench.other_group,)))) == [6, 4, 2]
    assert await bench.store.jobs(JobQuery(())) == []


async def test_jobs_are_paged_by_the_last_key_of_each_group(bench: StoreBench) -> None:
    await _fill(bench)
    before: dict[GroupNo, JobKey] = {}
    pages = []

    while page := await bench.store.jobs(JobQuery((bench.group, bench.other_group), before_key=before, limit=4)):
        pages.append(_numbers(page))
        before |= {record.row.group_no: record.row.job_key for record in page}

    assert pages == [[6, 5, 4, 3], [2, 1]]


async def test_page_of_jobs_is_not_moved_by_jobs_that_come_meanwhile(bench: StoreBench) -> None:
    await _fill(bench)
    first = await bench.store.jobs(JobQuery((bench.group,), limit=2))
    await bench.insert(bench.job(9, accepted_us=START_US + 9))

    second = await bench.store.jobs(JobQuery((bench.group,), before_key={bench.group: first[-1].row.job_key}))

    assert _numbers(second) == [1]


async def test_jobs_are_filtered(bench: StoreBench) -> None:
    await bench.insert(
        bench.job(1),
        bench.job(2, state=JobState.RUNNING, agent_no=AgentNo(7)),
        bench.job(3, state=JobState.FAILED, agent_no=AgentNo(7), operation="db.load"),
        bench.job(4, state=JobState.RUNNING, agent_no=AgentNo(8), operation="db.load"),
    )

    async def listed(**filters: Any) -> list[int]:
        return _numbers(await bench.store.jobs(JobQuery((bench.group,), **filters)))

    assert await listed(states=("running",)) == [4, 2]
    assert await listed(states=("failed", "queued")) == [3, 1]
    assert await listed(operation="db.load") == [4, 3]
    assert await listed(agent_no=AgentNo(7)) == [3, 2]
    assert await listed(agent_no=AgentNo(0)) == [1]
    assert await listed(states=("running",), operation="db.load", agent_no=AgentNo(8)) == [4]
    assert await listed(states=("running",), limit=1) == [4]


async def test_records_are_those_jobs_that_are_kept_by_key(bench: StoreBench) -> None:
    rows = [bench.job(number) for number in range(1, 1_102)]
    await bench.insert(*rows)

    keys = [bench.job(5_000).job_key, *(row.job_key for row in reversed(rows))]

    assert await bench.store.records(keys) == [JobRecord(row, "") for row in rows]
    assert await bench.store.records([]) == []


async def test_listed_job_has_its_row_and_key_but_no_bytes(bench: StoreBench) -> None:
    row = bench.job(1)
    key = KeyRow(bench.group, "order-1", row.job_key, row.digest, START_US * 2)
    await bench.commit(Writes(inserts=[row], keys=[key], payloads={row.job_key: Body(b"secret")}))

    assert await bench.store.jobs(JobQuery((bench.group,))) == [JobRecord(row, "order-1")]


async def test_jobs_are_read_with_the_labels_that_they_ask_for(bench: StoreBench) -> None:
    labelled = bench.job(1, labels_no=1)
    bare = bench.job(2, labels_no=2)
    label_sets = [
        LabelSetRow(bench.group, 1, "file.copy", ("disk=ssd", "zone=eu")),
        LabelSetRow(bench.group, 2, "file.copy", ()),
    ]
    await bench.commit(Writes(inserts=[labelled, bare], label_sets=label_sets))

    expected = {labelled.job_key: ("disk=ssd", "zone=eu"), bare.job_key: ()}

    listed = await bench.store.jobs(JobQuery((bench.group,)))
    read = await bench.store.records(list(expected))
    one = await bench.store.job((bench.group,), labelled.job_id)
    assert {record.row.job_key: record.labels for record in listed} == expected
    assert {record.row.job_key: record.labels for record in read} == expected
    assert one is not None
    assert one.labels == expected[labelled.job_key]
