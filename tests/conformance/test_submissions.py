from __future__ import annotations

import asyncio

import pytest

from broker.dispatch.model import JobKey
from broker.dispatch.rows import JobRow, KeyRow, Writes
from broker.errors import StoreFailedError
from broker.store.base import KnownSubmission, SubmissionLookup
from tests.conformance.bench import START_US, StoreBench

FAR_US = START_US + 3_600_000_000


def _key(row: JobRow, key: str, expires_us: int = FAR_US) -> KeyRow:
    return KeyRow(row.group_no, key, row.job_key, row.digest, expires_us)


def _lookup(row: JobRow, key: str = "") -> SubmissionLookup:
    return SubmissionLookup(row.group_no, row.job_id, key)


async def test_submission_is_found_by_its_job_id(bench: StoreBench) -> None:
    row = bench.job(1)
    await bench.insert(row)

    found = await bench.store.find_submissions([_lookup(row), _lookup(bench.job(2))])

    assert found == [KnownSubmission(row.job_key, row.digest), None]


async def test_submission_is_found_by_its_key_when_it_has_another_id(bench: StoreBench) -> None:
    row = bench.job(1)
    await bench.commit(Writes(inserts=[row], keys=[_key(row, "order-1")]))

    found = await bench.store.find_submissions([_lookup(bench.job(2), "order-1"), _lookup(bench.job(3), "order-2")])

    assert found == [KnownSubmission(row.job_key, row.digest), None]
    assert (await bench.read(row)).idempotency_key == "order-1"


async def test_submission_is_another_one_in_another_group(bench: StoreBench) -> None:
    here = bench.job(1)
    await bench.commit(Writes(inserts=[here], keys=[_key(here, "order-1")]))
    there = bench.job(1, group=bench.other_group, job_id=here.job_id)

    assert await bench.store.find_submissions([_lookup(there, "order-1")]) == [None]

    await bench.commit(other_group=Writes(inserts=[there], keys=[_key(there, "order-1")]))
    found = await bench.store.find_submissions([_lookup(here, "order-1"), _lookup(there, "order-1")])
    assert [known.job_key for known in found if known] == [here.job_key, there.job_key]


async def test_key_is_free_when_it_has_expired(bench: StoreBench) -> None:
    old, new = bench.job(1), bench.job(2)
    await bench.commit(Writes(inserts=[old], keys=[_key(old, "order-1", expires_us=bench.at_us + 1)]))
    assert await bench.store.find_submissions([_lookup(new, "order-1")]) != [None]

    await bench.commit()
    assert await bench.store.find_submissions([_lookup(new, "order-1")]) == [None]

    await bench.commit(Writes(inserts=[new], keys=[_key(new, "order-1")]))
    found = await bench.store.find_submissions([_lookup(bench.job(3), "order-1")])
    assert found == [KnownSubmission(new.job_key, new.digest)]


async def test_key_is_never_taken_from_a_job_that_still_has_it(bench: StoreBench) -> None:
    row = bench.job(1)
    await bench.commit(Writes(inserts=[row], keys=[_key(row, "order-1")]))

    with pytest.raises(StoreFailedError, match="keys"):
        await bench.commit(Writes(inserts=[bench.job(2)], keys=[_key(bench.job(2), "order-1")]))

    await bench.reopen()
    assert await bench.keys() == [row.job_key]


async def test_expiry_is_measured_in_committed_time_after_a_restart(bench: StoreBench) -> None:
    row = bench.job(1)
    await bench.commit(Writes(inserts=[row], keys=[_key(row, "order-1", expires_us=bench.at_us + 1)]))
    await bench.commit()
    await bench.reopen()

    assert await bench.store.find_submissions([_lookup(bench.job(2), "order-1")]) == [None]


@pytest.mark.parametrize("count", [1, 8, 9, 500, 1_201])
async def test_submissions_are_found_in_the_order_of_the_lookups_whatever_their_number(
    bench: StoreBench, count: int
) -> None:
    rows = [bench.job(number) for number in range(1, count + 1)]
    keyed = rows[::3]
    await bench.commit(Writes(inserts=rows, keys=[_key(row, f"order-{row.job_key}") for row in keyed]))
    by_id = [_lookup(row) for row in reversed(rows)]
    by_key = [SubmissionLookup(row.group_no, b"other", f"order-{row.job_key}") for row in keyed]

    found = await bench.store.find_submissions([*by_id, _lookup(bench.job(count + 1)), *by_key])

    keys: list[JobKey | None] = [row.job_key for row in reversed(rows)]
    assert [known and known.job_key for known in found] == [*keys, None, *(row.job_key for row in keyed)]


async def test_look_up_that_is_asked_for_after_a_commit_sees_what_that_writes(bench: StoreBench) -> None:
    rows = [bench.job(number) for number in range(1, 301)]

    committing = asyncio.create_task(bench.commit(Writes(inserts=rows)))
    looking = asyncio.create_task(bench.store.find_submissions([_lookup(row) for row in rows]))

    assert [known and known.job_key for known in await looking] == [row.job_key for row in rows]
    await committing


async def test_nothing_is_found_for_no_lookups(bench: StoreBench) -> None:
    assert await bench.store.find_submissions([]) == []
