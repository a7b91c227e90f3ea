"""The operations that every agent has, with real files and a real database."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from agent_stub.builtins import builtin_operations, echo, sleep
from agent_stub.csv_to_sql import csv_to_sql
from agent_stub.operations import Content, JobCancelledError, JobContext, OperationError

ROWS = [(number, f"customer {number}", f"{number}.25") for number in range(1, 101)]


def job_of(payload: object) -> JobContext:
    content = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return JobContext(job_id="j", job_key=1, attempt=1, operation="x", payload=content)


class Copy:
    """A CSV file of a hundred orders and an empty table."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "orders.csv"
        self.target = folder / "erp.sqlite"
        self.write("".join(f"{number},{name},{amount}\n" for number, name, amount in ROWS))
        with closing(sqlite3.connect(self.target)) as database:
            database.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY, name TEXT, cents INTEGER) STRICT")

    def write(self, rows: str) -> None:
        self.source.write_text("order_no,customer,amount\n" + rows)

    def payload(self, **more: Any) -> dict[str, Any]:
        wish: dict[str, Any] = {
            "source": str(self.source),
            "target": str(self.target),
            "table": "orders",
            "key": ["id"],
            "mapping": {
                "id": {"column": "order_no", "type": "integer"},
                "name": {"column": "customer", "strip": True, "upper": True},
                "cents": {"column": "amount", "type": "integer", "multiply": 100},
            },
        }
        return wish | more

    def run(self, **more: Any) -> dict[str, Any]:
        return csv_to_sql(job_of(self.payload(**more)))

    def rows(self) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.target)) as database:
            return database.execute("SELECT * FROM orders ORDER BY 1").fetchall()

    def fails(self, **more: Any) -> OperationError:
        with pytest.raises(OperationError) as failure:
            self.run(**more)
        return failure.value


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    return Copy(tmp_path)


def expected(rows: list[tuple[int, str, str]]) -> list[tuple[int, str, int]]:
    return [(number, name.upper(), number * 100 + 25) for number, name, _ in rows]


def test_builtins_are_the_three_that_the_documentation_names() -> None:
    assert builtin_operations().names() == ["echo", "files.csv_to_sql", "sleep"]


def test_echo_gives_the_payload_back() -> None:
    job = job_of({"a": 1})
    job.content_type = "application/json"
    assert echo(job) == Content(b'{"a": 1}', "application/json")


async def test_sleep_ends_at_once_when_cancelled() -> None:
    task = asyncio.create_task(sleep(job_of({"seconds": 3_600})))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_sleep_ends_by_itself() -> None:
    assert await sleep(job_of({"seconds": 0})) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize("payload", [{}, [1], {"seconds": -1}, {"seconds": "1"}, {"seconds": True}])
async def test_sleep_refuses_another_payload(payload: object) -> None:
    with pytest.raises(OperationError) as failure:
        await sleep(job_of(payload))
    assert (failure.value.code, failure.value.retryable) == ("sleep.bad_payload", False)


def test_copy_transforms_all_rows_and_says_their_sums(copy: Copy) -> None:
    result = copy.run()
    assert copy.rows() == expected(ROWS)
    assert result == {"rows": 100, "sums": {"id": 5_050, "cents": 507_500}}


def test_copy_of_row_ranges_makes_up_the_whole(copy: Copy) -> None:
    results = [copy.run(offset=offset, limit=30) for offset in (0, 30, 60, 90)]
    assert [result["rows"] for result in results] == [30, 30, 30, 10]
    assert copy.rows() == expected(ROWS)


def test_copy_of_byte_ranges_makes_up_the_whole_wherever_they_are_cut(copy: Copy) -> None:
    size = copy.source.stat().st_size
    for step in (1, 7, 64, 501, size):
        counts = [copy.run(byte_range=[start, start + step])["rows"] for start in range(0, size, step)]
        assert sum(counts) == 100
    assert copy.rows() == expected(ROWS)


def test_copy_that_runs_twice_leaves_what_one_run_leaves(copy: Copy) -> None:
    assert copy.run() == copy.run()
    assert copy.rows() == expected(ROWS)


def test_copy_updates_rows_that_have_changed(copy: Copy) -> None:
    copy.run()
    copy.write("7,new name,1.00\n")
    copy.run()
    assert copy.rows()[6] == (7, "NEW NAME", 100)
    assert len(copy.rows()) == 100


def test_copies_of_two_threads_wait_for_each_other(copy: Copy) -> None:
    results: list[int] = []

    def part(offset: int) -> None:
        results.append(copy.run(offset=offset, limit=25)["rows"])

    threads = [threading.Thread(target=part, args=(offset,)) for offset in (0, 25, 50, 75)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [25] * 4
    assert copy.rows() == expected(ROWS)


def test_copy_reads_quotes_and_line_breaks_inside_of_them_by_rows(copy: Copy) -> None:
    copy.write('1,"a, ""b""\nc",1.00\n2,d,2.00\n')
    assert copy.run(offset=1, limit=1)["rows"] == 1
    assert copy.rows() == [(2, "D", 200)]
    copy.run()
    assert copy.rows()[0] == (1, 'A, "B"\nC', 100)


def test_copy_leaves_out_empty_lines_and_a_byte_order_mark(copy: Copy) -> None:
    copy.source.write_bytes(b"\xef\xbb\xbforder_no,customer,amount\n1,a,1\n\n2,b,2\n")
    assert copy.run()["rows"] == 2
    assert copy.run(byte_range=[0, 1_000])["rows"] == 2


def test_copy_keeps_decimals_exact_and_makes_the_table_if_asked(copy: Copy) -> None:
    mapping = {
        "no": {"column": "order_no", "type": "integer"},
        "amount": {"column": "amount", "type": "decimal", "multiply": "0.1"},
        "half": {"column": "amount", "type": "real", "multiply": 0.5},
    }
    result = copy.run(table="exact amounts", key=["no"], mapping=mapping, create=True, limit=2)
    assert result["sums"] == {"no": 3, "amount": "0.350", "half": 1.75}
    with closing(sqlite3.connect(copy.target)) as database:
        assert database.execute('SELECT * FROM "exact amounts"').fetchall() == [
            (1, "0.125", 0.625),
            (2, "0.225", 1.125),
        ]


def test_copy_gives_null_for_an_empty_field_that_may_be_empty(copy: Copy) -> None:
    copy.write("1,,\n")
    mapping = copy.payload()["mapping"]
    mapping["cents"]["nullable"] = True
    assert copy.run(mapping=mapping)["sums"]["cents"] == 0
    assert copy.rows() == [(1, "", None)]


def test_copy_of_keys_alone_changes_nothing_that_exists(copy: Copy) -> None:
    copy.run()
    copy.run(mapping={"id": {"column": "order_no", "type": "integer"}})
    assert copy.rows() == expected(ROWS)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("x,a,1.00", "line 3: column 'order_no' is not integer as 'id' needs it"),
        ("2,a,1.005", "line 3: column 'amount' is not integer as 'cents' needs it"),
        ("1_0,a,1.00", "line 3: column 'order_no'"),
        ("9223372036854775808,a,1", "line 3: column 'order_no'"),
        ("2,a,nan", "line 3: column 'amount'"),
        ("2,a", "line 3: has 2 fields, the first line 3"),
    ],
)
@pytest.mark.parametrize("part", [{}, {"offset": 1, "limit": 1}, {"byte_range": [30, 40]}])
def test_copy_names_line_and_column_of_a_bad_row_and_writes_nothing(
    copy: Copy, row: str, words: str, part: dict[str, object]
) -> None:
    copy.write(f"1,a,1.00\n{row}\n")
    failure = copy.fails(**part)
    assert (failure.code, failure.retryable) == ("csv.bad_row", False)
    assert words in failure.message
    assert copy.rows() == []


def test_copy_says_which_file_is_not_there(copy: Copy) -> None:
    failure = copy.fails(source="/nowhere/orders.csv")
    assert (failure.code, failure.retryable) == ("files.not_found", False)
    assert "/nowhere/orders.csv" in failure.message


def test_copy_says_which_column_the_file_has_not(copy: Copy) -> None:
    failure = copy.fails(mapping={"id": {"column": "nummer", "type": "integer"}})
    assert (failure.code, failure.retryable) == ("csv.no_column", False)
    assert "nummer" in failure.message


def test_copy_refuses_what_is_not_utf8(copy: Copy) -> None:
    copy.source.write_bytes(b"order_no,customer,amount\n1,\xff,1\n")
    assert copy.fails().code == "csv.not_utf8"
    assert copy.fails(byte_range=[0, 100]).code == "csv.not_utf8"


def test_copy_that_finds_the_database_busy_may_be_retried(copy: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_stub.csv_to_sql.BUSY_TIMEOUT_S", 0.0)
    with closing(sqlite3.connect(copy.target, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        failure = copy.fails()
    assert (failure.code, failure.retryable) == ("sql.busy", True)


def test_copy_into_a_table_that_is_not_there_fails_for_good(copy: Copy) -> None:
    failure = copy.fails(table="nothing")
    assert (failure.code, failure.retryable) == ("sql.error", False)


def test_copy_that_the_database_refuses_writes_nothing(copy: Copy) -> None:
    with closing(sqlite3.connect(copy.target)) as database:
        database.execute("CREATE TABLE few (id INTEGER PRIMARY KEY, name TEXT, cents INTEGER CHECK (cents < 5000))")
    failure = copy.fails(table="few")
    assert (failure.code, failure.retryable) == ("sql.refused", False)
    with closing(sqlite3.connect(copy.target)) as database:
        assert database.execute("SELECT count(*) FROM few").fetchone() == (0,)


def test_copy_quotes_names_so_that_a_payload_cannot_add_statements(copy: Copy) -> None:
    failure = copy.fails(table='orders"; DROP TABLE orders; --')
    assert failure.code == "sql.error"
    assert copy.rows() == []


def test_copy_that_is_cancelled_while_it_paces_writes_nothing(copy: Copy) -> None:
    job = job_of(copy.payload(pause_ms=3_600_000))
    ended: list[bool] = []

    def run() -> None:
        try:
            csv_to_sql(job)
        except JobCancelledError:
            ended.append(True)

    thread = threading.Thread(target=run)
    thread.start()
    job.cancel()
    thread.join(10.0)
    assert ended == [True]
    assert copy.rows() == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"source": ""},
        {"target": 7},
        {"table": None},
        {"key": []},
        {"key": ["other"]},
        {"mapping": {}},
        {"mapping": {"id": {"type": "integer"}}},
        {"mapping": {"id": {"column": "order_no", "type": "date"}}},
        {"mapping": {"id": {"column": "order_no", "colour": "red"}}},
        {"mapping": {"id": {"column": "order_no", "multiply": 2}}},
        {"mapping": {"id": {"column": "order_no", "type": "integer", "multiply": "x"}}},
        {"offset": -1},
        {"limit": 1.5},
        {"byte_range": [5, 1]},
        {"byte_range": [0]},
        {"byte_range": [0, 10], "offset": 0},
        {"delimiter": ";;"},
        {"pause_ms": "1"},
    ],
)
def test_copy_refuses_a_payload_that_makes_no_sense(copy: Copy, wrong: dict[str, object]) -> None:
    failure = copy.fails(**wrong)
    assert (failure.code, failure.retryable) == ("csv.bad_payload", False)
