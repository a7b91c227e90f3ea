from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from agent_stub.context import Content, result_of
from agent_stub.operations import (
    JobCancelledError,
    JobContext,
    OperationError,
    OperationLoadError,
    Operations,
    operation,
)


@operation("orders.copy", exclusive=True)
def copy_orders(job: JobContext) -> str:
    return job.payload.decode()


@operation("orders.count", inline=True)
def count_orders(job: JobContext) -> int:
    return len(job.payload)


@operation("orders.copy")
async def other_copy(job: JobContext) -> None:
    return None


def job_of(payload: bytes = b"", deadline_s: float | None = None) -> JobContext:
    return JobContext(
        job_id="j", job_key=1, attempt=2, operation="x", payload=payload, deadline_s=deadline_s, clock=lambda: 10.0
    )


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user, importable by its name."""
    name = "orders_for_the_test_of_loading"
    source = (
        "from agent_stub.operations import Operations, operation\n"
        "@operation('a.one')\ndef one(job): return None\n"
        "@operation('a.two')\nasync def two(job): return None\n"
        "def unmarked(job): return None\n"
        "registry = Operations([two])\n"
    )
    (tmp_path / f"{name}.py").write_text(source)
    (tmp_path / f"{name}_broken.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_decorator_marks_a_handler_and_leaves_it_as_it_is() -> None:
    assert copy_orders(job_of(b"abc")) == "abc"
    found = Operations([copy_orders]).get("orders.copy")
    assert found is not None
    assert (found.is_exclusive, found.is_inline, found.is_async) == (True, False, False)


@pytest.mark.parametrize("name", ["", "Copy", "a..b", ".a", "a.", "1a", "a-b", "a" * 129])
def test_decorator_refuses_a_name_that_the_wire_would_refuse(name: str) -> None:
    with pytest.raises(OperationLoadError, match="no operation name"):
        operation(name)


def test_decorator_refuses_an_inline_coroutine_function() -> None:
    async def handler(job: JobContext) -> None: ...

    with pytest.raises(OperationLoadError, match="cannot be inline"):
        operation("a", inline=True)(handler)


def test_registry_knows_its_names() -> None:
    operations = Operations([count_orders, copy_orders])
    assert operations.names() == ["orders.copy", "orders.count"]
    assert "orders.copy" in operations
    assert "orders.move" not in operations
    assert operations.get("orders.move") is None
    assert len(operations) == 2


def test_registry_refuses_two_handlers_of_one_name_but_not_the_same_twice() -> None:
    operations = Operations([copy_orders, copy_orders])
    with pytest.raises(OperationLoadError, match=r"two operations are called orders\.copy"):
        operations.register(other_copy)


def test_registry_refuses_a_handler_without_a_mark() -> None:
    with pytest.raises(OperationLoadError, match="not marked"):
        Operations([lambda job: None])


@pytest.mark.parametrize(("suffix", "names"), [(":one", ["a.one"]), (":registry", ["a.two"]), ("", ["a.one", "a.two"])])
def test_registry_loads_a_handler_a_registry_or_a_module(module: str, suffix: str, names: list[str]) -> None:
    operations = Operations()
    operations.load(module + suffix)
    assert operations.names() == names


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (":unmarked", "holds no operation"),
        (":missing", "has no missing"),
        ("_missing", "cannot be imported: ModuleNotFoundError"),
        ("_broken", "cannot be imported: ZeroDivisionError"),
    ],
)
def test_registry_says_what_it_could_not_load(module: str, suffix: str, text: str) -> None:
    with pytest.raises(OperationLoadError, match=text):
        Operations().load(module + suffix)


def test_context_gives_the_payload_as_json_and_refuses_another() -> None:
    assert job_of(b'{"a": 1}').json() == {"a": 1}
    with pytest.raises(OperationError) as failure:
        job_of(b"{").json()
    assert (failure.value.code, failure.value.retryable) == ("payload.not_json", False)


def test_context_says_how_much_time_is_left() -> None:
    assert job_of().remaining_s() is None
    assert job_of(deadline_s=13.0).remaining_s() == 3.0
    assert job_of(deadline_s=9.0).remaining_s() == 0.0


def test_context_that_was_cancelled_raises_where_it_is_asked() -> None:
    job = job_of()
    job.raise_if_cancelled()
    job.cancel()
    assert job.cancelled
    with pytest.raises(JobCancelledError):
        job.raise_if_cancelled()
    with pytest.raises(JobCancelledError):
        job.sleep(60.0)


def test_context_that_sleeps_wakes_up_when_it_is_cancelled() -> None:
    job = job_of()
    ended: list[bool] = []

    def handler() -> None:
        try:
            job.sleep(60.0)
        except JobCancelledError:
            ended.append(True)

    thread = threading.Thread(target=handler)
    thread.start()
    job.cancel()
    thread.join(10.0)
    assert ended == [True]


def test_context_reports_progress_within_its_bounds() -> None:
    reports: list[tuple[float, str, bytes]] = []
    job = job_of()
    job.report = lambda _, fraction, text, checkpoint: reports.append((fraction, text, checkpoint))
    job.progress(1.7, "x" * 2_000, b"here")
    job.progress(-1.0, "half a character \ud800")
    job.progress(float("nan"))
    job.progress(float("inf"))
    assert reports[:2] == [(1.0, "x" * 1_024, b"here"), (0.0, "half a character ?", b"")]
    assert [fraction for fraction, _, _ in reports[2:]] == [0.0, 1.0]
    with pytest.raises(OperationError, match="65537 bytes"):
        job.progress(0.5, checkpoint=bytes(65_537))


def test_context_logs_with_its_job(caplog: pytest.LogCaptureFixture) -> None:
    job_of().logger.warning("rows.skipped")
    assert caplog.records[0].name == "mesh.operation.x"
    assert vars(caplog.records[0])["fields"] == {"job_id": "j", "job_key": 1, "attempt": 2}


@pytest.mark.req("R55")
def test_context_logs_facts_that_are_given_by_name(caplog: pytest.LogCaptureFixture) -> None:
    job_of().logger.warning("rows.copied to %s", "x", rows=7, attempt=99, exc_info=ValueError("why"))
    (record,) = caplog.records
    assert (record.getMessage(), vars(record)["fields"]) == (
        "rows.copied to x",
        {"job_id": "j", "job_key": 1, "attempt": 2, "rows": 7},
    )
    assert record.exc_info is not None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, (b"", "")),
        (b"\x00\x01", (b"\x00\x01", "application/octet-stream")),
        (bytearray(b"a"), (b"a", "application/octet-stream")),
        (Content(b"a", "image/png"), (b"a", "image/png")),
        (Content(b"a", ""), (b"a", "application/octet-stream")),
        (Content(b"a", "x" * 200), (b"a", "x" * 128)),
        ("grün", ("grün".encode(), "text/plain")),
        ({"rows": [1, 2]}, (b'{"rows":[1,2]}', "application/json")),
        (0, (b"0", "application/json")),
    ],
)
def test_result_is_bytes_text_or_json(value: object, expected: tuple[bytes, str]) -> None:
    assert result_of(value) == expected


def test_result_that_json_cannot_say_is_a_failure_for_good() -> None:
    with pytest.raises(OperationError) as failure:
        result_of({1, 2})
    assert (failure.value.code, failure.value.retryable) == ("result.not_json", False)


def test_handler_that_does_not_take_a_job_is_refused() -> None:
    def nothing() -> None: ...

    def too_much(job: JobContext, more: int) -> None: ...

    handlers: tuple[Any, ...] = (nothing, too_much)
    for handler in handlers:
        with pytest.raises(OperationLoadError, match="must take the job as its one argument"):
            operation("mine.x")(handler)
