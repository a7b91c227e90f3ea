"""Lists of jobs: what a query finds, in which order, page by page, and what it costs at most."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from broker.dispatch.model import AgentNo, GroupNo, JobKey, JobState
from broker.dispatch.rows import JobRow, KeyRow, Writes
from broker.store import search
from broker.store.base import JobQuery, JobRecord, Place, Span
from tests.conformance.bench import START_US, StoreBench

FINAL = ("succeeded", "failed", "cancelled", "dead")


def numbers(records: list[JobRecord]) -> list[int]:
    return [record.row.accepted_us - START_US for record in records]


async def fill(bench: StoreBench) -> None:
    """Jobs 1, 3, 5 in the first group and 2, 4, 6 in the other, accepted in that order."""
    groups: list[list[JobRow]] = [
        [bench.job(place, group=group, accepted_us=START_US + number) for place, number in enumerate(found, start=1)]
        for group, found in ((bench.group, (1, 3, 5)), (bench.other_group, (2, 4, 6)))
    ]
    await bench.commit(group=Writes(inserts=groups[0]), other_group=Writes(inserts=groups[1]))


async def listed(bench: StoreBench, *groups: GroupNo, **query: Any) -> list[int]:
    page = await bench.store.jobs(JobQuery(groups or (bench.group,), **query))
    return numbers(page.records)


async def every_page(bench: StoreBench, query: JobQuery) -> list[list[JobRecord]]:
    """All pages, each begun where the one before says."""
    pages: list[list[JobRecord]] = []
    start = query.start
    while True:
        page = await bench.store.jobs(replace(query, start=start))
        pages.append(page.records)
        assert page.next is None or page.next != start, "a page that leads to itself"
        start = page.next
        if start is None:
            return pages


async def test_jobs_come_newest_first_over_all_groups(bench: StoreBench) -> None:
    await fill(bench)
    both = (bench.group, bench.other_group)

    assert await listed(bench, *both) == [6, 5, 4, 3, 2, 1]
    assert await listed(bench, *both, is_ascending=True) == [1, 2, 3, 4, 5, 6]
    assert await listed(bench, bench.other_group) == [6, 4, 2]
    assert (await bench.store.jobs(JobQuery(()))).records == []


async def test_last_page_says_that_it_is_the_last(bench: StoreBench) -> None:
    await fill(bench)

    first = await bench.store.jobs(JobQuery((bench.group, bench.other_group), limit=4))
    assert first.next is not None
    second = await bench.store.jobs(JobQuery((bench.group, bench.other_group), start=first.next, limit=2))

    assert (numbers(first.records), numbers(second.records), second.next) == ([6, 5, 4, 3], [2, 1], None)


async def test_page_of_jobs_is_not_moved_by_jobs_that_come_and_go_meanwhile(bench: StoreBench) -> None:
    await bench.insert(*(bench.job(number) for number in (1, 2, 4)))
    first = await bench.store.jobs(JobQuery((bench.group,), limit=1))
    await bench.insert(bench.job(9, accepted_us=START_US + 9))

    second = await bench.store.jobs(JobQuery((bench.group,), start=first.next))

    assert numbers(second.records) == [2, 1]


async def test_jobs_are_filtered(bench: StoreBench) -> None:
    await bench.insert(
        bench.job(1, code="no_disk", fairness=""),
        bench.job(2, state=JobState.RUNNING, agent_no=AgentNo(7)),
        bench.job(3, state=JobState.FAILED, agent_no=AgentNo(7), operation="db.load", finished_us=START_US + 8),
        bench.job(4, state=JobState.RUNNING, agent_no=AgentNo(8), operation="db.load", environment_no=5),
        bench.job(5, state=JobState.SUCCEEDED, finished_us=START_US + 7),
    )

    assert await listed(bench, states=("running",)) == [4, 2]
    assert await listed(bench, states=("failed", "queued")) == [3, 1]
    assert await listed(bench, states=("dead", "failed")) == [3]
    assert await listed(bench, states=("succeeded",)) == [5]
    assert await listed(bench, operation="db.load") == [4, 3]
    assert await listed(bench, environment_no=5) == [4]
    assert await listed(bench, code="no_disk") == [1]
    assert await listed(bench, fairness="") == [1]
    assert await listed(bench, agents={bench.group: (AgentNo(7),)}) == [3, 2]
    assert await listed(bench, agents={bench.group: (AgentNo(0),)}) == [5, 1]
    assert await listed(bench, states=("running",), operation="db.load", agents={bench.group: (AgentNo(8),)}) == [4]
    assert await listed(bench, states=("running",), limit=1) == [4]


async def test_jobs_are_found_by_their_business_key_also_when_it_was_used_again(bench: StoreBench) -> None:
    rows = [bench.job(1), bench.job(2), bench.job(3, group=bench.other_group)]
    keys = [KeyRow(row.group_no, "order-1", row.job_key, row.digest, START_US) for row in rows]
    await bench.commit(group=Writes(inserts=[rows[0]], keys=[keys[0]]))
    await bench.commit(group=Writes(inserts=[rows[1]], keys=[keys[1]]))
    await bench.commit(other_group=Writes(inserts=[rows[2]], keys=[keys[2]]))

    assert await listed(bench, idempotency_key="order-1") == [2, 1]
    assert await listed(bench, bench.group, bench.other_group, idempotency_key="order-1") == [3, 2, 1]
    assert await listed(bench, idempotency_key="order-1", states=("dead",)) == []
    assert await listed(bench, idempotency_key="order-2") == []


async def test_jobs_are_found_by_when_they_were_accepted_and_when_they_ended(bench: StoreBench) -> None:
    ends = {1: 90, 2: 50, 3: 70}
    await bench.insert(
        *(bench.job(no, state=JobState.SUCCEEDED, finished_us=START_US + at) for no, at in ends.items()), bench.job(4)
    )

    def between(since: int, until: int) -> Span:
        return Span(START_US + since, START_US + until)

    assert await listed(bench, accepted=between(2, 4)) == [3, 2]
    assert await listed(bench, accepted=between(5, 9)) == []
    assert await listed(bench, accepted=Span(until_us=START_US + 3), is_ascending=True) == [1, 2]
    assert await listed(bench, finished=between(60, 91)) == [3, 1]
    assert await listed(bench, is_by_finish=True) == [1, 3, 2]
    assert await listed(bench, is_by_finish=True, is_ascending=True, finished=between(0, 90)) == [2, 3]
    assert await listed(bench, is_by_finish=True, accepted=between(2, 9)) == [3, 2]


async def test_search_looks_at_so_many_rows_only_and_goes_on_from_there(
    bench: StoreBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WINDOW_ROWS", 10)
    await bench.insert(*(bench.job(number, operation="rare" if number == 7 else "usual") for number in range(1, 101)))
    query = JobQuery((bench.group,), operation="rare", rows_max=20)

    pages = await every_page(bench, query)

    assert [numbers(page) for page in pages] == [[], [], [], [], [7]]


async def test_search_is_charged_what_groups_hold_and_not_what_they_might(bench: StoreBench) -> None:
    await fill(bench)
    both = (bench.group, bench.other_group)
    query = JobQuery(both, operation=bench.job(1).operation, rows_max=search.WINDOW_ROWS)

    page, count = await bench.store.jobs(query), await bench.store.count_jobs(query)

    assert (numbers(page.records), page.next) == ([6, 5, 4, 3, 2, 1], None)
    assert (count.jobs, count.next) == (6, None)


async def test_count_is_that_of_the_list_and_goes_on_where_it_stopped(
    bench: StoreBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "WINDOW_ROWS", 10)
    for group in (bench.group, bench.other_group):
        rows = [bench.job(no, group=group, state="dead" if no % 3 else "queued") for no in range(1, 41)]
        await bench.commit(**{"group" if group == bench.group else "other_group": Writes(inserts=rows)})
    query = JobQuery((bench.other_group, bench.group), states=("dead",), rows_max=20)

    counts = [await bench.store.count_jobs(query)]
    while (start := counts[-1].next) is not None:
        counts.append(await bench.store.count_jobs(replace(query, start=start)))

    assert sum(count.jobs for count in counts) == 2 * 27
    assert len(counts) > 2
    assert (await bench.store.count_jobs(replace(query, states=(), rows_max=1_000))).jobs == 80


def any_query(chance: random.Random, *groups: GroupNo) -> JobQuery:
    """One of very many queries, with pages and bounds so small that each of their edges is met."""
    since, until = chance.randrange(40), chance.randrange(45)
    return JobQuery(
        groups,
        states=chance.choice([(), ("dead",), ("failed", "held"), ("queued",), ("succeeded",), ("queued", "dead")]),
        operation=chance.choice([None, "a", "b"]),
        idempotency_key=chance.choice(["", "", "key-1"]),
        accepted=chance.choice([Span(), Span(START_US + since, START_US + until)]),
        finished=chance.choice([Span(), Span(START_US + 10, START_US + 35), Span(until_us=START_US + 20)]),
        is_by_finish=chance.choice([True, False]),
        is_ascending=chance.choice([True, False]),
        limit=chance.randint(1, 7),
        rows_max=chance.choice([3, 10, 1_000]),
    )


def expected(rows: list[tuple[JobRow, str]], query: JobQuery) -> list[JobKey]:
    """The definition of a search, without any index."""

    def place(row: JobRow) -> Place:
        return Place(row.finished_us if query.is_by_finish else row.accepted_us, row.job_key)

    def within(at_us: int, span: Span) -> bool:
        return span.since_us <= at_us < span.until_us

    chosen = [
        row
        for row, key in rows
        if (not query.states or row.state in query.states)
        and (query.operation is None or row.operation == query.operation)
        and (not query.idempotency_key or key == query.idempotency_key)
        and within(row.accepted_us, query.accepted)
        and (query.finished == Span() or (row.finished_us and within(row.finished_us, query.finished)))
        and (not query.is_by_finish or row.finished_us)
    ]
    return [row.job_key for row in sorted(chosen, key=place, reverse=not query.is_ascending)]


@pytest.mark.req("R83")
async def test_pages_together_are_what_the_query_asks_for_in_its_order(
    bench: StoreBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the definition; jobs of both groups share times of acceptance and of their end."""
    monkeypatch.setattr(search, "WINDOW_ROWS", 4)
    monkeypatch.setattr(search, "FETCHED_MAX", 2)
    chance = random.Random(7)
    rows: list[tuple[JobRow, str]] = []
    for name, group in (("group", bench.group), ("other_group", bench.other_group)):
        numbered = sorted(chance.randrange(40) for _ in range(30))
        for number, at in enumerate(numbered, start=1):
            state = chance.choice([*JobState])
            end_us = START_US + chance.randrange(40) if state in FINAL else 0
            row = bench.job(
                number,
                group=group,
                accepted_us=START_US + at,
                state=state,
                operation=chance.choice("ab"),
                finished_us=end_us,
            )
            key = f"key-{number % 5}" if number % 2 else ""
            written = [KeyRow(group, key, row.job_key, row.digest, 0)] if key else []
            if number % 10 != 4:  # there are holes where retention was
                await bench.commit(**{name: Writes(inserts=[row], keys=written)})
                rows.append((row, key))

    for _ in range(300):
        query = any_query(chance, bench.other_group, bench.group)
        pages = await every_page(bench, query)
        assert [record.row.job_key for page in pages for record in page] == expected(rows, query), query
        assert all(len(page) <= query.limit for page in pages)
