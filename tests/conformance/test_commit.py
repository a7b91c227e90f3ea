from __future__ import annotations

from typing import Any, get_type_hints

import pytest

from broker.dispatch.model import NO_JOB, AgentNo, JobKey, JobState, Phase
from broker.dispatch.rows import AttemptRow, JobRow, JobUpdate, Writes
from broker.errors import StoreFailedError
from broker.store.base import Body, CommitStatus, Store
from tests.conformance.bench import BROKER, StoreBench, change, lost, succeed


async def test_commit_keeps_every_column_of_a_job(bench: StoreBench) -> None:
    kinds = get_type_hints(JobRow)
    numbers = {name: 1_000 + at for at, name in enumerate(JobRow._fields) if kinds[name] not in (str, bytes)}
    texts = {name: f"text of {name} \N{SNOWMAN}" for name in JobRow._fields if kinds[name] is str}
    texts |= {"state": JobState.RUNNING, "phase": Phase.ACCEPTED}
    fixed = {"job_key", "group_no"}
    columns: dict[str, Any] = {name: value for name, value in (numbers | texts).items() if name not in fixed}
    row = bench.job(1, **columns)

    await bench.insert(row)

    assert (await bench.read(row)).row == row
    assert await bench.store.live_jobs(bench.group, NO_JOB, 10) == [row]


async def test_commit_changes_every_column_of_an_update(bench: StoreBench) -> None:
    row = bench.job(1)
    await bench.insert(row)
    kinds = get_type_hints(JobUpdate)
    columns: dict[str, object] = {
        name: f"new {name}" if kinds[name] is str else 2_000 + at for at, name in enumerate(JobUpdate._fields[:-1])
    }
    update = change(row, **columns)

    await bench.commit(Writes(updates=[update]))

    changed = (await bench.read(row)).row
    assert JobUpdate._make(getattr(changed, name) for name in JobUpdate._fields) == update
    untouched = set(JobRow._fields) - set(columns)
    assert all(getattr(changed, name) == getattr(row, name) for name in untouched)


PLAIN: dict[str, Any] = {
    "fairness": "",
    "limit_key": "",
    **dict.fromkeys(("not_before_us", "schedule_by_us", "run_timeout_us", "total_by_us"), 0),
}
"""Of a job that asks for nothing special."""
NEW: tuple[dict[str, Any], ...] = (
    {"state": JobState.QUEUED},
    {"state": JobState.ASSIGNED, "phase": Phase.SENT, "attempt": 1, "agent_no": AgentNo(7), "assigned_us": 8},
    {"state": JobState.SCHEDULED, "not_before_us": 9},
    {"state": JobState.ASSIGNED, "phase": Phase.SENT, "run_timeout_us": 10},
    {"state": JobState.QUEUED, "bounces": 1},
)
CHANGED: tuple[dict[str, Any], ...] = (
    {"state": JobState.ASSIGNED, "phase": Phase.SENT, "attempt": 1, "agent_no": AgentNo(7), "assigned_us": 8},
    {"state": JobState.RUNNING, "phase": Phase.ACCEPTED, "attempt": 1, "started_us": 11},
    {"state": JobState.SUCCEEDED, "attempt": 1, "started_us": 11, "finished_us": 12},
    {"state": JobState.SUCCEEDED, "attempt": 2, "failures": 1, "finished_us": 12},
    {"state": JobState.SUCCEEDED, "code": "resolved", "finished_us": 12},
    {"state": JobState.RUNNING, "phase": Phase.STOPPING, "stop_reason": "requested"},
    {"state": JobState.FAILED, "code": "failed", "message": "it's \N{SNOWMAN}", "finished_us": 12},
)
BODIES = (Body(b""), Body(b"small", "text/plain"), Body(b"x" * 5_000, "large"), Body(b"m", "", (("trace", "1"),)))


async def test_commit_keeps_new_jobs_of_every_kind_in_one_batch(bench: StoreBench) -> None:
    rows = [bench.job(number, **{**PLAIN, **NEW[number % len(NEW)]}) for number in range(1, 201)]
    payloads: dict[JobKey, object] = {row.job_key: BODIES[row.job_key % len(BODIES)] for row in rows}

    await bench.commit(Writes(inserts=rows, payloads=payloads))

    records = [await bench.read(row) for row in rows]
    assert [record.row for record in records] == rows
    assert [record.payload for record in records] == list(payloads.values())
    assert not any(record.result for record in records)


@pytest.mark.parametrize("with_results", [True, False])
async def test_commit_keeps_changes_of_every_kind_in_one_batch(bench: StoreBench, *, with_results: bool) -> None:
    rows = [bench.job(number, **PLAIN) for number in range(1, 201)]
    await bench.insert(*rows)
    changed = [row._replace(order_us=row.order_us + 1, **CHANGED[row.job_key % len(CHANGED)]) for row in rows]
    results: dict[JobKey, object] = {
        row.job_key: BODIES[row.job_key % 3] for row in changed if with_results and row.state == JobState.SUCCEEDED
    }

    await bench.commit(Writes(updates=[change(row) for row in changed], results=results))

    records = [await bench.read(row) for row in rows]
    assert [record.row for record in records] == changed
    assert [record.result for record in records] == [results.get(row.job_key) for row in rows]


@pytest.mark.parametrize("count", [1, 40])
async def test_commit_fails_whole_when_one_of_many_changed_jobs_is_not_there(bench: StoreBench, count: int) -> None:
    rows = [bench.job(number, **PLAIN) for number in range(1, count + 1)]
    await bench.insert(*rows[1:])
    changed = [change(row, **CHANGED[2]) for row in rows]

    with pytest.raises(StoreFailedError, match="updates of jobs that are not there"):
        await bench.commit(Writes(updates=changed))

    await bench.reopen()
    assert await bench.keys() == [row.job_key for row in rows[1:]]


async def test_commit_writes_all_groups_in_one_transaction(bench: StoreBench) -> None:
    here, there = bench.job(1), bench.job(1, group=bench.other_group)

    await bench.commit(group=Writes(inserts=[here]), other_group=Writes(inserts=[there]))

    assert await bench.keys() == [here.job_key]
    assert await bench.keys(bench.other_group) == [there.job_key]
    assert await bench.store.committed_seq(BROKER) == 1


async def test_commit_changes_nothing_when_the_epoch_of_one_group_is_stale(bench: StoreBench) -> None:
    await bench.store.adopt_group(bench.other_group)

    outcome = await bench.commit(
        group=Writes(inserts=[bench.job(1)]), other_group=Writes(inserts=[bench.job(1, group=bench.other_group)])
    )

    assert outcome.status is CommitStatus.STALE
    assert outcome.stale_groups == (bench.other_group,)
    assert await bench.keys() == []
    assert await bench.keys(bench.other_group) == []
    assert (await bench.store.group_state(bench.group)).acceptance_no == 0
    assert await bench.store.committed_seq(BROKER) == 0


async def test_commit_takes_the_rest_after_a_stale_group_was_left_out(bench: StoreBench) -> None:
    await bench.store.adopt_group(bench.other_group)
    rest = bench.job(1)
    await bench.commit(
        group=Writes(inserts=[rest]), other_group=Writes(inserts=[bench.job(1, group=bench.other_group)])
    )

    outcome = await bench.commit(group=Writes(inserts=[rest]))

    assert outcome.status is CommitStatus.COMMITTED
    assert await bench.keys() == [rest.job_key]


@pytest.mark.parametrize("wrong", [-1, 1], ids=["repeated", "skipped"])
async def test_commit_is_stale_when_its_number_is_not_the_next(bench: StoreBench, wrong: int) -> None:
    await bench.insert(bench.job(1))
    bench.seq += wrong

    outcome = await bench.commit(Writes(inserts=[bench.job(2)]))

    assert outcome.status is CommitStatus.STALE
    assert outcome.stale_groups == (bench.group,)
    assert len(await bench.keys()) == 1
    assert await bench.store.committed_seq(BROKER) == 1


async def test_commit_leaves_nothing_behind_when_its_last_row_contradicts_the_disk(bench: StoreBench) -> None:
    row = bench.job(1)
    await bench.insert(row)
    writes = Writes(inserts=[bench.job(2), bench.job(3), row], payloads={bench.job(2).job_key: Body(b"x" * 10_000)})

    with pytest.raises(StoreFailedError):
        await bench.commit(writes)

    await bench.reopen()
    assert await bench.keys() == [row.job_key]
    assert await bench.store.payloads([bench.job(2).job_key]) == {}
    assert await bench.store.committed_seq(BROKER) == 1


async def test_store_refuses_everything_after_a_failure(bench: StoreBench) -> None:
    with pytest.raises(StoreFailedError):
        await bench.commit(Writes(updates=[succeed(bench.job(1))]))

    with pytest.raises(StoreFailedError, match="not there"):
        await bench.store.live_jobs(bench.group, bench.job(1).job_key, 1)
    with pytest.raises(StoreFailedError, match="not there"):
        await bench.commit(Writes(inserts=[bench.job(1)]))


async def test_payload_comes_back_as_it_was_given(bench: StoreBench) -> None:
    pairs = (("traceparent", "00-ab"), ("x", "\N{SNOWMAN}"))
    bodies = {
        bench.job(1).job_key: Body(b"", "text/plain"),
        bench.job(2).job_key: Body(b"\x00" * 4_096, "application/octet-stream", pairs),
        bench.job(3).job_key: Body(bytes(range(256)) * 400, "application/json", pairs),
    }

    await bench.commit(Writes(inserts=[bench.job(n) for n in (1, 2, 3, 4)], payloads=dict(bodies)))

    keys = [bench.job(n).job_key for n in (1, 2, 3, 4, 5)]
    assert await bench.store.payloads(keys) == bodies
    for number in (1, 2, 3):
        assert (await bench.read(bench.job(number))).payload == bodies[bench.job(number).job_key]
    assert (await bench.read(bench.job(4))).payload is None


@pytest.mark.parametrize("size", [0, 10, 4_096, 100_000])
async def test_result_comes_back_as_it_was_given(bench: StoreBench, size: int) -> None:
    row, other = bench.job(1), bench.job(2)
    await bench.insert(row, other)
    result = Body(b"r" * size, "text/plain")

    await bench.commit(Writes(updates=[succeed(row), succeed(other)], results={row.job_key: result}))

    stored = await bench.read(row)
    assert stored.result == result
    assert stored.row.state == JobState.SUCCEEDED
    without = await bench.read(other)
    assert without.result is None
    assert without.row.state == JobState.SUCCEEDED


async def test_result_is_kept_when_the_job_is_new_in_the_same_batch(bench: StoreBench) -> None:
    row = bench.job(1, state=JobState.SUCCEEDED, finished_us=5)

    await bench.commit(Writes(inserts=[row], results={row.job_key: Body(b"done")}))

    assert (await bench.read(row)).result == Body(b"done")
    assert await bench.keys() == []


async def test_checkpoint_is_the_latest_one(bench: StoreBench) -> None:
    row, other = bench.job(1), bench.job(2)
    await bench.insert(row, other)

    await bench.commit(Writes(checkpoints={row.job_key: b"first"}))
    await bench.commit(Writes(checkpoints={row.job_key: b"second"}))

    assert await bench.store.checkpoints([row.job_key, other.job_key]) == {row.job_key: b"second"}
    assert (await bench.read(row)).checkpoint == b"second"
    assert (await bench.read(other)).checkpoint == b""


async def test_transitions_are_read_with_their_job_in_the_order_of_commits(bench: StoreBench) -> None:
    row, other = bench.job(1), bench.job(2)
    await bench.insert(row, other)

    await bench.commit(Writes(transitions=[lost(row, 1), lost(other, 1)]))
    await bench.commit(Writes(transitions=[lost(row, 2)]))

    assert (await bench.read(row)).transitions == (lost(row, 1), lost(row, 2))
    assert (await bench.read(other)).transitions == (lost(other, 1),)


async def test_attempt_has_its_last_ending_when_it_ended_twice(bench: StoreBench) -> None:
    row = bench.job(1)
    await bench.insert(row)
    first = AttemptRow(row.job_key, 1, AgentNo(7), 10, 11, 12, "lost", "agent_lost")
    second = AttemptRow(row.job_key, 2, AgentNo(8), 20, 21, 22, "failed", "boom")

    await bench.commit(Writes(attempts=[second, first]))
    await bench.commit(Writes(attempts=[first._replace(ending="failed", ended_us=30)]))

    assert (await bench.read(row)).attempts == (first._replace(ending="failed", ended_us=30), second)


async def test_empty_commit_counts(bench: StoreBench, store: Store) -> None:
    assert (await bench.commit()).status is CommitStatus.COMMITTED
    assert await store.committed_seq(BROKER) == 1
