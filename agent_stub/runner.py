"""Runs handlers and says how each ended: in threads, on the event loop, or at once.

Every run that is started ends in exactly one call of `finished`, on the event loop's thread. A thread cannot be
killed: a function that does not look at `job.cancelled` keeps its slot until it returns, and is logged as stuck.
"""

from __future__ import annotations

import asyncio
import logging
import re
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from agent_stub.logs import fields
from agent_stub.operations import JobCancelledError, JobContext, Operation, OperationError, as_text, result_of
from agent_stub.session import Key, Outcome, OutcomeStatus, Progress

CODE_CHARACTERS_MAX = 128
STUCK_AFTER_S = 10.0
WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

log = logging.getLogger("mesh.agent.runner")


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What an outcome may hold; stated by the broker."""

    result_bytes_max: int = 1 << 20
    failure_message_bytes_max: int = 4_096


@dataclass(slots=True, eq=False)
class _Run:
    job: JobContext
    operation: Operation
    started_s: float
    task: asyncio.Task[object] | None = None
    stuck: asyncio.TimerHandle | None = None


class Runner:
    """The runs of one agent.

    Args:
        slots: threads at most; the session never starts more runs than this.
        finished: called with each outcome.
        progressed: called with each progress report.
    """

    def __init__(
        self, slots: int, finished: Callable[[Outcome], None], progressed: Callable[[Progress], None] | None = None
    ) -> None:
        self.limits = RunLimits()
        self._finished = finished
        self._progressed = progressed
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="mesh-run")
        self._runs: dict[Key, _Run] = {}
        # Filled by handlers' threads, emptied on the loop; one wake-up for all that gathers meanwhile.
        self._from_threads: deque[Progress | tuple[_Run, Outcome]] = deque()
        self._is_woken = False

    def __len__(self) -> int:
        return len(self._runs)

    def start(self, job: JobContext, operation: Operation) -> None:
        """Run a handler; an inline one has finished when this returns."""
        job.report = self._report
        run = _Run(job, operation, time.monotonic())
        if operation.is_inline:
            self._finished(self._called(run))
            return
        self._runs[(job.job_key, job.attempt)] = run
        if operation.is_async:
            self._start_task(run)
        else:
            self._threads.submit(self._run_in_thread, run)

    def stop(self, key: Key, grace_s: float = 0.0) -> None:
        """Ask a run to end; one that has ended, or never was, is left alone."""
        run = self._runs.get(key)
        if run is None:
            return
        run.job.cancel()
        if run.stuck is None:
            run.stuck = self._loop.call_later(grace_s or STUCK_AFTER_S, self._warn_of, run)
        if run.task is not None:
            run.task.cancel()

    def close(self) -> None:
        """Ask all runs to end and start nothing more; threads that do not listen are left behind."""
        for key in list(self._runs):
            self.stop(key)
        for run in self._runs.values():
            if run.stuck is not None:
                run.stuck.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    # On the loop -----------------------------------------------------------------------------------------------------

    def _start_task(self, run: _Run) -> None:
        coroutine = _guarded(run)
        if sys.version_info >= (3, 12):
            # A handler that never waits ends here, without a turn of the loop.
            run.task = asyncio.Task(coroutine, loop=self._loop, eager_start=True)
        else:
            run.task = self._loop.create_task(coroutine)
        # By callback: a task that is cancelled before its first step runs no line of its coroutine.
        run.task.add_done_callback(lambda task: self._on_task_done(run, task))

    def _on_task_done(self, run: _Run, task: asyncio.Task[object]) -> None:
        if task.cancelled():
            self._end(run, self._failure(run, asyncio.CancelledError()))
            return
        error = task.exception()
        self._end(run, self._success(run, task.result()) if error is None else self._failure(run, error))

    def _end(self, run: _Run, outcome: Outcome) -> None:
        self._runs.pop((run.job.job_key, run.job.attempt), None)
        if run.stuck is not None:
            run.stuck.cancel()
        self._finished(outcome)

    def _take_from_threads(self) -> None:
        self._is_woken = False
        while self._from_threads:
            item = self._from_threads.popleft()
            if isinstance(item, Progress):
                if self._progressed is not None:
                    self._progressed(item)
            else:
                self._end(*item)

    def _warn_of(self, run: _Run) -> None:
        log.warning("attempt.stuck", extra=fields(job_id=run.job.job_id, attempt=run.job.attempt))

    # In any thread ---------------------------------------------------------------------------------------------------

    def _run_in_thread(self, run: _Run) -> None:
        self._hand_over((run, self._called(run)))

    def _report(self, job: JobContext, fraction: float, text: str, checkpoint: bytes) -> None:
        self._hand_over(Progress(job.job_key, job.attempt, fraction, text, checkpoint))

    def _hand_over(self, item: Progress | tuple[_Run, Outcome]) -> None:
        self._from_threads.append(item)
        if not self._is_woken:
            self._is_woken = True
            if not self._loop.is_closed():
                self._loop.call_soon_threadsafe(self._take_from_threads)

    def _called(self, run: _Run) -> Outcome:
        try:
            run.job.raise_if_cancelled()
            return self._success(run, run.operation.handler(run.job))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a handler raises is its outcome
            return self._failure(run, error)

    def _success(self, run: _Run, value: object) -> Outcome:
        try:
            content, content_type = result_of(value)
        except OperationError as error:
            return self._failure(run, error)
        limit = self.limits.result_bytes_max
        if len(content) > limit:
            text = f"the result has {len(content)} bytes, at most {limit} can be kept"
            return self._failure(run, OperationError("result_too_large", text))
        return self._outcome(run, OutcomeStatus.SUCCEEDED, content=content, content_type=content_type)

    def _failure(self, run: _Run, error: BaseException) -> Outcome:
        if isinstance(error, JobCancelledError | asyncio.CancelledError) and run.job.cancelled:
            return self._outcome(run, OutcomeStatus.CANCELLED)
        if isinstance(error, OperationError):
            code, text, is_retryable = error.code, error.message, error.retryable
        else:
            log.warning("job.raised", exc_info=error, extra=fields(job_id=run.job.job_id, attempt=run.job.attempt))
            code, text, is_retryable = code_of(error), str(error) or type(error).__name__, True
        text = text.encode(errors="replace")[: self.limits.failure_message_bytes_max].decode(errors="ignore")
        code = as_text(code[:CODE_CHARACTERS_MAX])
        return self._outcome(run, OutcomeStatus.FAILED, code=code, text=text, retryable=is_retryable)

    def _outcome(self, run: _Run, status: OutcomeStatus, **more: Any) -> Outcome:
        run_time_us = int((time.monotonic() - run.started_s) * 1_000_000)
        return Outcome(run.job.job_key, run.job.attempt, status, run_time_us=run_time_us, **more)


def code_of(error: BaseException) -> str:
    """The failure code of an exception that says nothing about itself: `python.value_error` for a `ValueError`."""
    return "python." + WORD_START.sub("_", type(error).__name__).lower().strip("_")


async def _guarded(run: _Run) -> object:
    try:
        return await cast("Coroutine[Any, Any, object]", run.operation.handler(run.job))
    except SystemExit as error:
        # It would end the loop; for a handler it is a failure like any other.
        raise OperationError(code_of(error), str(error), retryable=True) from error
