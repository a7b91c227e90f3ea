from __future__ import annotations

from broker.dispatch.rows import KeyRow, LabelSetRow, Writes
from broker.store.base import Body, JobQuery, JobRecord
from tests.conformance.bench import START_US, StoreBench, succeed


async def test_job_is_found_only_inside_the_given_groups(bench: StoreBench) -> None:
    row = bench.job(1)
    await bench.insert(row)

    assert await bench.store.job([bench.other_group], row.job_id) is None
    assert await bench.store.job([], row.job_id) is None
    assert await bench.store.job([bench.group], b"another id") is None
    found = await bench.store.job([bench.other_group, bench.group], row.job_id)
    assert found is not None
    assert found.row == row


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

    assert (await bench.store.jobs(JobQuery((bench.group,)))).records == [JobRecord(row, "order-1")]


async def test_jobs_are_read_with_the_labels_that_they_ask_for(bench: StoreBench) -> None:
    labelled = bench.job(1, labels_no=1)
    bare = bench.job(2, labels_no=2)
    label_sets = [
        LabelSetRow(bench.group, 1, "file.copy", ("disk=ssd", "zone=eu")),
        LabelSetRow(bench.group, 2, "file.copy", ()),
    ]
    await bench.commit(Writes(inserts=[labelled, bare], label_sets=label_sets))

    expected = {labelled.job_key: ("disk=ssd", "zone=eu"), bare.job_key: ()}

    listed = (await bench.store.jobs(JobQuery((bench.group,)))).records
    read = await bench.store.records(list(expected))
    one = await bench.store.job((bench.group,), labelled.job_id)
    assert {record.row.job_key: record.labels for record in listed} == expected
    assert {record.row.job_key: record.labels for record in read} == expected
    assert one is not None
    assert one.labels == expected[labelled.job_key]


async def test_job_names_the_newest_one_that_repeats_it(bench: StoreBench) -> None:
    first, other = bench.job(1), bench.job(2)
    again = [bench.job(number, requeued_from=first.job_key) for number in (3, 4)]
    await bench.insert(first, other, *again)

    assert (await bench.read(first)).requeued_as == again[1].job_id
    assert (await bench.read(other)).requeued_as == b""
    assert await bench.store.repeated([first.job_key, other.job_key]) == {first.job_key}
    assert await bench.store.repeated([]) == set()


async def test_store_says_how_large_it_is(bench: StoreBench) -> None:
    before = await bench.store.file_state()
    rows = [bench.job(number) for number in range(1, 2_001)]
    await bench.insert(*rows)
    await bench.commit(Writes(updates=[succeed(row) for row in rows]))
    full = await bench.store.file_state()
    while (await bench.store.retire(START_US * 2, 0, 500)).rows:
        pass
    empty = await bench.store.file_state()

    assert full.bytes > before.bytes
    assert (empty.bytes, empty.free_bytes > full.bytes // 2) == (full.bytes, True)
