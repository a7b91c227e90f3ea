from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Callable

import pytest

from agent_stub.operations import JobContext, Operation, OperationError
from agent_stub.runner import RunLimits, Runner, code_of
from agent_stub.session import Outcome, OutcomeStatus, Progress

WAIT_S = 10.0


class Bench:
    """A runner whose outcomes are waited for."""

    def __init__(self, slots: int = 2) -> None:
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.progress: asyncio.Queue[Progress] = asyncio.Queue()
        self.threads: list[str] = []
        self.runner = Runner(slots, self.outcomes.put_nowait, self.progress.put_nowait)

    def start(self, handler: Callable[[JobContext], object], job_key: int = 1, is_inline: bool = False) -> JobContext:
        job = JobContext(job_id="j", job_key=job_key, attempt=1, operation="x", payload=b"in")
        self.runner.start(job, Operation("x", handler, is_inline=is_inline))
        return job

    async def outcome(self) -> Outcome:
        async with asyncio.timeout(WAIT_S):
            return await self.outcomes.get()

    async def run(self, handler: Callable[[JobContext], object]) -> Outcome:
        self.start(handler)
        return await self.outcome()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.runner.close()


async def test_function_runs_in_a_thread_of_the_runner(bench: Bench) -> None:
    def handler(job: JobContext) -> str:
        return f"{threading.current_thread().name} {job.payload.decode()}"

    outcome = await bench.run(handler)
    assert outcome.status is OutcomeStatus.SUCCEEDED
    assert outcome.content.startswith(b"mesh-run")
    assert outcome.content.endswith(b" in")
    assert outcome.content_type == "text/plain"
    assert outcome.run_time_us > 0
    assert len(bench.runner) == 0


async def test_coroutine_function_runs_on_the_loop(bench: Bench) -> None:
    async def handler(job: JobContext) -> bytes:
        await asyncio.sleep(0)
        return threading.current_thread().name.encode()

    assert (await bench.run(handler)).content == threading.current_thread().name.encode()


async def test_inline_function_has_finished_when_start_returns(bench: Bench) -> None:
    bench.start(lambda job: job.payload, is_inline=True)
    assert bench.outcomes.get_nowait().content == b"in"


async def test_functions_run_beside_each_other_up_to_the_slots(bench: Bench) -> None:
    barrier = threading.Barrier(2, timeout=WAIT_S)
    for job_key in (1, 2):
        bench.start(lambda job: barrier.wait() >= 0, job_key)
    statuses = [(await bench.outcome()).status for _ in range(2)]
    assert statuses == [OutcomeStatus.SUCCEEDED] * 2


@pytest.mark.parametrize("is_async", [False, True])
async def test_exception_is_a_retryable_failure_named_after_its_class(
    bench: Bench, is_async: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def function(job: JobContext) -> None:
        raise ValueError("no such row")

    async def coroutine_function(job: JobContext) -> None:
        function(job)

    outcome = await bench.run(coroutine_function if is_async else function)
    assert outcome.status is OutcomeStatus.FAILED
    assert (outcome.code, outcome.text, outcome.retryable) == ("python.value_error", "no such row", True)
    assert [(record.message, record.levelno) for record in caplog.records] == [("job.raised", logging.WARNING)]


async def test_operation_error_says_itself_whether_to_retry(bench: Bench) -> None:
    def handler(job: JobContext) -> None:
        raise OperationError("csv.bad_row", "line 7")

    outcome = await bench.run(handler)
    assert (outcome.code, outcome.text, outcome.retryable) == ("csv.bad_row", "line 7", False)


@pytest.mark.parametrize("is_async", [False, True])
async def test_handler_that_exits_fails_and_the_agent_lives(bench: Bench, is_async: bool) -> None:
    def function(job: JobContext) -> None:
        raise SystemExit(3)

    async def coroutine_function(job: JobContext) -> None:
        raise SystemExit(3)

    outcome = await bench.run(coroutine_function if is_async else function)
    assert (outcome.code, outcome.retryable) == ("python.system_exit", True)


async def test_cancelled_coroutine_is_reported_cancelled(bench: Bench) -> None:
    begun = asyncio.Event()

    async def handler(job: JobContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    bench.start(handler)
    await begun.wait()
    bench.runner.stop((1, 1))
    assert (await bench.outcome()).status is OutcomeStatus.CANCELLED


async def test_coroutine_that_is_cancelled_before_its_first_step_is_reported(bench: Bench) -> None:
    async def handler(job: JobContext) -> None:
        await asyncio.Event().wait()

    bench.start(handler)
    bench.runner.stop((1, 1))
    assert (await bench.outcome()).status is OutcomeStatus.CANCELLED


async def test_cancelled_function_is_reported_cancelled_when_it_listens(bench: Bench) -> None:
    bench.start(lambda job: job.sleep(60.0))
    bench.runner.stop((1, 1))
    assert (await bench.outcome()).status is OutcomeStatus.CANCELLED


async def test_cancelled_function_that_finishes_all_the_same_has_succeeded(bench: Bench) -> None:
    begun, go_on = threading.Event(), threading.Event()

    def handler(job: JobContext) -> bool:
        begun.set()
        return go_on.wait(WAIT_S)

    bench.start(handler)
    assert await asyncio.to_thread(begun.wait, WAIT_S)
    bench.runner.stop((1, 1))
    go_on.set()
    assert (await bench.outcome()).status is OutcomeStatus.SUCCEEDED


async def test_function_that_was_cancelled_before_its_thread_came_to_it_does_not_run() -> None:
    bench = Bench(slots=1)
    go_on, ran = threading.Event(), threading.Event()
    bench.start(lambda job: go_on.wait(WAIT_S), job_key=1)
    bench.start(lambda job: ran.set(), job_key=2)
    bench.runner.stop((2, 1))
    go_on.set()
    statuses = {outcome.job_key: outcome.status for outcome in [await bench.outcome(), await bench.outcome()]}
    assert statuses == {1: OutcomeStatus.SUCCEEDED, 2: OutcomeStatus.CANCELLED}
    assert not ran.is_set()
    bench.runner.close()


async def test_handler_that_raises_cancelled_by_itself_has_failed(bench: Bench) -> None:
    async def handler(job: JobContext) -> None:
        raise asyncio.CancelledError

    outcome = await bench.run(handler)
    assert (outcome.status, outcome.code) == (OutcomeStatus.FAILED, "python.cancelled_error")


async def test_function_that_ignores_its_cancel_is_logged_as_stuck_and_keeps_its_run(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    go_on, warned = threading.Event(), asyncio.Event()

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage() == "attempt.stuck":
                warned.set()

    listener = Listener()
    logging.getLogger("mesh.agent.runner").addHandler(listener)
    try:
        bench.start(lambda job: go_on.wait(WAIT_S))
        bench.runner.stop((1, 1), grace_s=0.01)
        async with asyncio.timeout(WAIT_S):
            await warned.wait()
        assert len(bench.runner) == 1
    finally:
        logging.getLogger("mesh.agent.runner").removeHandler(listener)
        go_on.set()
    await bench.outcome()
    assert len(bench.runner) == 0


async def test_stop_of_what_does_not_run_is_left_alone(bench: Bench) -> None:
    bench.runner.stop((9, 9))
    assert bench.outcomes.empty()


async def test_result_above_the_limit_is_a_failure_for_good(bench: Bench) -> None:
    bench.runner.limits = RunLimits(result_bytes_max=10)
    outcome = await bench.run(lambda job: bytes(11))
    assert (outcome.status, outcome.code, outcome.retryable) == (OutcomeStatus.FAILED, "result_too_large", False)
    assert outcome.content == b""
    assert (await bench.run(lambda job: bytes(10))).status is OutcomeStatus.SUCCEEDED


async def test_failure_text_is_cut_at_a_whole_character(bench: Bench) -> None:
    bench.runner.limits = RunLimits(failure_message_bytes_max=4)

    def handler(job: JobContext) -> None:
        raise OperationError("x", "abcü")

    assert (await bench.run(handler)).text == "abc"


async def test_progress_from_a_thread_arrives_before_the_outcome(bench: Bench) -> None:
    def handler(job: JobContext) -> None:
        job.progress(0.5, "half", b"row 10")

    bench.start(handler)
    await bench.outcome()
    assert bench.progress.get_nowait() == Progress(1, 1, 0.5, "half", b"row 10")


async def test_many_functions_end_in_one_outcome_each() -> None:
    bench = Bench(slots=4)
    for job_key in range(500):
        bench.start(lambda job: job.job_key, job_key)
    keys = sorted([(await bench.outcome()).job_key for _ in range(500)])
    assert keys == list(range(500))
    bench.runner.close()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyError("x"), "python.key_error"),
        (UnicodeDecodeError("utf-8", b"", 0, 1, ""), "python.unicode_decode_error"),
        (type("HTTPError", (Exception,), {})(), "python.http_error"),
    ],
)
def test_code_of_an_exception_is_its_class_in_small_letters(error: Exception, code: str) -> None:
    assert code_of(error) == code
