from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, event

from broker.dispatch.model import AgentNo, GroupNo, job_key
from broker.store import file, search
from broker.store.base import JobQuery, Place, Span
from broker.store.connection import StoreConnection

GROUP = GroupNo(3)
START = Place(500, job_key(GROUP, 50))


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    """An empty store, read by one who searches."""
    path = tmp_path / "mesh.db"
    file.create(path)
    writer = StoreConnection(path, is_writer=True)
    columns = {row[1]: row[2] for row in writer.driver.execute("PRAGMA table_info(job)")}
    names = ", ".join(f'"{name}"' for name in columns)
    for number in range(1, 101):
        given: dict[str, object] = {"job_key": job_key(GROUP, number), "group_no": GROUP, "accepted_us": number * 10}
        given |= {"job_id": number.to_bytes(16, "big"), "idempotency_key": "order-1"}
        given |= {"state": "dead", "finished_us": 2_000 - number} if number % 2 else {"state": "queued"}
        empty: dict[str, object] = {"TEXT": "", "BLOB": b""}
        values = [given.get(name, empty.get(kind, 0)) for name, kind in columns.items()]
        writer.driver.execute(f"INSERT INTO job ({names}) VALUES ({', '.join('?' * len(values))})", values)
    with writer.begin() as transaction:
        yield transaction
    writer.close()


QUERIES = {
    "all": (JobQuery((GROUP,)), "INTEGER PRIMARY KEY"),
    "operation": (JobQuery((GROUP,), operation="a"), "INTEGER PRIMARY KEY"),
    "accepted": (JobQuery((GROUP,), accepted=Span(200, 700)), "INTEGER PRIMARY KEY"),
    "succeeded": (JobQuery((GROUP,), states=("succeeded",), agents={GROUP: (AgentNo(3),)}), "INTEGER PRIMARY KEY"),
    "finished by acceptance": (JobQuery((GROUP,), finished=Span(5, 1_950)), "INTEGER PRIMARY KEY"),
    "live": (JobQuery((GROUP,), states=("queued", "running"), start=START), "INDEX job_live "),
    "dead": (JobQuery((GROUP,), states=("dead",), code="no_disk"), "INDEX job_wrong "),
    "held": (JobQuery((GROUP,), states=("held",), is_ascending=True), "INDEX job_wrong "),
    "business key": (JobQuery((GROUP,), idempotency_key="order-1", states=("dead",)), "INDEX job_business_key "),
    "finished": (JobQuery((GROUP,), finished=Span(5, 1_950), is_by_finish=True), "INDEX job_finished "),
    "finished, of one operation, from a place on": (
        JobQuery((GROUP,), operation="", is_by_finish=True, is_ascending=True, start=START),
        "INDEX job_finished ",
    ),
}


@pytest.mark.parametrize(("query", "index"), QUERIES.values(), ids=QUERIES)
@pytest.mark.parametrize("ask", [search.list_jobs, search.count_jobs], ids=["list", "count"])
@pytest.mark.req("R83")
def test_every_statement_of_a_search_goes_along_its_index(
    connection: Connection,
    query: JobQuery,
    index: str,
    ask: Callable[[Connection, JobQuery], object],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(search, "WINDOW_ROWS", 30)
    asked: list[tuple[str, tuple[object, ...]]] = []

    def listen(
        _connection: object, _cursor: object, statement: str, parameters: tuple[object, ...], *_: object
    ) -> None:
        asked.append((statement, parameters))

    event.listen(connection, "before_cursor_execute", listen)
    ask(connection, query)
    event.remove(connection, "before_cursor_execute", listen)

    assert len(asked) > 1
    plans = []
    for statement, parameters in asked:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        plans.append([row[3] for row in rows])
    for plan in plans:
        (searched,) = [step for step in plan if " job " in f"{step} "]
        assert searched.startswith("SEARCH job USING"), plan
        assert index in searched or "job_key>? AND rowid<?" in searched or "rowid>? AND rowid<?" in searched, plan
        assert not any("TEMP B-TREE" in step for step in plan), plan
    assert any(index in step for plan in plans for step in plan), plans


def test_time_is_found_among_the_keys_by_halving(connection: Connection) -> None:
    low, high = job_key(GROUP, 1), job_key(GROUP, 1 << 30)

    def found(at_us: int) -> int:
        return search._key_at(connection, low, high, at_us)

    assert [found(0), found(10), found(11), found(995)] == [low, low, low + 1, low + 99]
    assert found(1_001) == high
    connection.exec_driver_sql("DELETE FROM job WHERE job_key BETWEEN ? AND ?", (low + 10, low + 80))
    assert [low + 10 <= found(at_us) <= low + 81 for at_us in (105, 300, 811)] == [True] * 3
    assert [found(100), found(821)] == [low + 9, low + 82]
    assert search._key_at(connection, 1, 2, 5) == 2
