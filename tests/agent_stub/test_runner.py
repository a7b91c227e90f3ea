from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from agent_stub.operations import JobContext, Operation, OperationError
from agent_stub.outcomes import RunLimits, code_of
from agent_stub.runner import Runner
from agent_stub.session import Outcome, OutcomeStatus, Progress
from tests.agent_stub.handlers import MISTAKES

WAIT_S = 10.0


class Bench:
    """A runner whose outcomes are waited for."""

    def __init__(self, slots: int = 2) -> None:
        self.outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
        self.progress: asyncio.Queue[Progress] = asyncio.Queue()
        self.threads: list[str] = []
        self.runner = Runner(slots, self.outcomes.put_nowait, self._keep)

    def _keep(self, reports: Iterable[Progress]) -> None:
        for progress in reports:
            self.progress.put_nowait(progress)

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


async def test_coroutine_functions_share_a_loop_that_is_not_the_agents(bench: Bench) -> None:
    async def handler(job: JobContext) -> bytes:
        await asyncio.sleep(0)
        return threading.current_thread().name.encode()

    assert (await bench.run(handler)).content == b"mesh-coroutines"
    assert (await bench.run(handler)).content == b"mesh-coroutines"


async def test_coroutine_function_that_blocks_its_loop_leaves_the_agents_alone(bench: Bench) -> None:
    begun, go_on = threading.Event(), threading.Event()

    async def handler(job: JobContext) -> bool:
        begun.set()
        return go_on.wait(WAIT_S)

    bench.start(handler)
    assert await asyncio.to_thread(begun.wait, WAIT_S)  # this loop turns
    go_on.set()
    assert (await bench.outcome()).status is OutcomeStatus.SUCCEEDED


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


@pytest.mark.parametrize("kind", ["thread", "inline", "coroutine"])
@pytest.mark.parametrize("mistake", MISTAKES)
async def test_mistake_of_a_handler_is_a_failure_and_the_next_one_runs(bench: Bench, mistake: str, kind: str) -> None:
    err, (code, text, is_retryable) = MISTAKES[mistake]

    async def errs(job: JobContext) -> object:
        return err()

    async def echo(job: JobContext) -> bytes:
        return job.payload

    bench.start(errs if kind == "coroutine" else lambda job: err(), is_inline=kind == "inline")
    outcome = await bench.outcome()
    assert (outcome.code, outcome.retryable) == (code, is_retryable)
    assert outcome.text.startswith(text)
    assert len(bench.runner) == 0
    bench.start(echo if kind == "coroutine" else lambda job: job.payload, is_inline=kind == "inline")
    assert (await bench.outcome()).content == b"in"


@pytest.mark.parametrize("end", [lambda: sys.exit(3), lambda: asyncio.get_running_loop().stop()])
async def test_loop_of_the_coroutines_goes_on_when_a_callback_of_one_ends_it(
    bench: Bench, end: Callable[[], None]
) -> None:
    async def ends(job: JobContext) -> str:
        asyncio.get_running_loop().call_soon(end)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return "went on"

    assert (await bench.run(ends)).content == b"went on"
    assert (await bench.run(ends)).content == b"went on"


async def test_cancelled_coroutine_is_reported_cancelled(bench: Bench) -> None:
    begun = threading.Event()

    async def handler(job: JobContext) -> None:
        begun.set()
        await asyncio.Event().wait()

    bench.start(handler)
    assert await asyncio.to_thread(begun.wait, WAIT_S)
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


async def test_coroutine_that_ignores_its_cancel_is_stuck_until_it_ends(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    begun, go_on, stuck = threading.Event(), threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    async def handler(job: JobContext) -> str:
        begun.set()
        while not go_on.is_set():
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                loop.call_soon_threadsafe(stuck.set)
        return "after all"

    bench.start(handler)
    assert await asyncio.to_thread(begun.wait, WAIT_S)
    bench.runner.stop((1, 1), grace_s=0.01)
    async with asyncio.timeout(WAIT_S):
        await stuck.wait()
        while bench.runner.stuck == 0:  # noqa: ASYNC110 - the grace of the runner under test
            await asyncio.sleep(0.005)
    go_on.set()
    assert (await bench.outcome()).content == b"after all"
    assert bench.runner.stuck == 0
    assert caplog.records[0].message == "attempt.stuck"
    assert {record.message for record in caplog.records} <= {"attempt.stuck", "attempt.unstuck"}


async def test_function_is_stuck_at_the_shorter_grace_when_it_is_stopped_twice(bench: Bench) -> None:
    go_on = threading.Event()
    bench.start(lambda job: go_on.wait(WAIT_S))
    bench.runner.stop((1, 1), grace_s=60.0)
    bench.runner.stop((1, 1), grace_s=0.01)
    try:
        async with asyncio.timeout(WAIT_S):
            while bench.runner.stuck == 0:  # noqa: ASYNC110 - the grace of the runner under test
                await asyncio.sleep(0.005)
    finally:
        go_on.set()
    await bench.outcome()


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


async def test_latest_report_and_the_latest_checkpoint_are_told_when_a_handler_reports_faster_than_the_loop_turns(
    bench: Bench,
) -> None:
    reported = threading.Event()

    def handler(job: JobContext) -> None:
        job.progress(0.1, "row 0", b"row 0")
        for row in range(1, 1_000):
            job.progress(0.5, f"row {row}")
        reported.set()

    bench.start(handler)
    assert reported.wait(WAIT_S)  # this loop stands still meanwhile
    await bench.outcome()
    assert bench.progress.get_nowait() == Progress(1, 1, 0.5, "row 999", b"row 0")
    assert bench.progress.empty()


async def test_loop_of_the_agent_goes_on_when_a_handler_always_has_another_report() -> None:
    wanted, reported, over = threading.Semaphore(0), threading.Semaphore(0), threading.Event()
    outcomes: asyncio.Queue[Outcome] = asyncio.Queue()
    times = 0

    def handler(job: JobContext) -> None:
        while not over.is_set():
            job.progress(0.5)
            reported.release()
            wanted.acquire(timeout=WAIT_S)

    def progressed(reports: Iterable[Progress]) -> None:
        nonlocal times
        times += 1
        if times == 100:
            over.set()
        wanted.release()
        if not over.is_set():
            reported.acquire(timeout=WAIT_S)  # there is another one when this returns

    runner = Runner(1, outcomes.put_nowait, progressed)
    runner.start(JobContext(job_id="j", job_key=1, attempt=1, operation="x"), Operation("x", handler))
    assert reported.acquire(timeout=WAIT_S)
    for _ in range(5):
        await asyncio.sleep(0)
    over.set()
    wanted.release()
    async with asyncio.timeout(WAIT_S):
        await outcomes.get()
    assert times < 100
    runner.close()


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
