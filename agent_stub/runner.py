"""Runs handlers and says how each ended: at once, in threads, as coroutines, or in processes of their own.

Every run that is started ends in exactly one call of `finished`, on the agent's event loop. Only inline handlers run
there, and one that is found slow does not any more. A process is killed when it does not end in its grace; a thread
cannot be: a function that does not look at `job.cancelled` keeps its slot until it returns, and is logged as stuck.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

from agent_stub.context import JobContext
from agent_stub.coroutines import Coroutines
from agent_stub.logs import fields
from agent_stub.operations import Operation
from agent_stub.outcomes import Course, RunLimits
from agent_stub.process import AttemptProcess
from agent_stub.session import Key, Outcome, Progress

GRACE_S = 10.0
STUCK_AFTER_KILL_S = 5.0
INLINE_US_MAX = 50_000
"""An inline handler that took longer holds up heartbeats: it runs in threads from then on."""

log = logging.getLogger("mesh.agent.runner")


@dataclass(slots=True, eq=False)
class _Run:
    course: Course
    operation: Operation
    process: AttemptProcess | None = None
    is_exclusive: bool = False
    task: asyncio.Task[Outcome] | None = None
    kill: asyncio.TimerHandle | None = None
    stuck: asyncio.TimerHandle | None = None
    is_stuck: bool = False

    @property
    def job(self) -> JobContext:
        return self.course.job


class Runner:
    """The runs of one agent.

    Args:
        slots: threads at most; the session never starts more runs than this.
        finished: called with each outcome.
        progressed: called with the latest reports of some runs, before those end.
    """

    def __init__(
        self,
        slots: int,
        finished: Callable[[Outcome], None],
        progressed: Callable[[Iterable[Progress]], None] | None = None,
    ) -> None:
        self.limits = RunLimits()
        self.grace_s = GRACE_S
        self._finished = finished
        self._progressed = progressed
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(slots, thread_name_prefix="mesh-run")
        self.coroutines = Coroutines(type(self._loop))
        self._runs: dict[Key, _Run] = {}
        self._exclusive: dict[Key, _Run] = {}
        self._slow: set[str] = set()
        self._lease_end_us = 0
        # Filled by handlers' threads, emptied on the loop; one wake-up for all that gathers meanwhile. Of reports the
        # latest is kept: a handler may report faster than anybody can listen.
        self._ended: deque[tuple[_Run, Outcome]] = deque()
        self._reports: dict[Key, Progress] = {}
        self._reports_lock = threading.Lock()
        self._is_woken = False

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def stuck(self) -> int:
        """Runs that were told to end and have not in their grace."""
        return sum(run.is_stuck for run in self._runs.values())

    @property
    def stuck_keys(self) -> list[Key]:
        """Which ones, the oldest first."""
        return [key for key, run in self._runs.items() if run.is_stuck]

    @property
    def has_exclusive(self) -> bool:
        """Whether a run must end with the lease."""
        return bool(self._exclusive)

    def start(self, job: JobContext, operation: Operation, *, is_exclusive: bool = False) -> None:
        """Run a handler; an inline one has finished when this returns."""
        job.report = self._report
        is_exclusive = is_exclusive or operation.is_exclusive
        run = _Run(Course(job, self.limits, time.monotonic()), operation, is_exclusive=is_exclusive)
        is_process = is_exclusive or operation.is_process
        if operation.is_inline and not is_process and operation.name not in self._slow:
            self._run_inline(run)
            return
        key = (job.job_key, job.attempt)
        self._runs[key] = run
        if is_process:
            run.process = AttemptProcess(run.course, operation, self._lease_end_us if is_exclusive else None)
            if is_exclusive:
                self._exclusive[key] = run
            self._threads.submit(self._run_in_process, run, run.process)
        elif operation.is_async:
            self.coroutines.start(_guarded(run), lambda task: self._on_task(run, task))
        else:
            self._threads.submit(self._run_in_thread, run)

    def stop(self, key: Key, grace_s: float = 0.0, *, at_once: bool = False) -> None:
        """Ask a run to end; one that has ended, or never was, is left alone.

        A process that has not ended in `grace_s` (0: `self.grace_s`) is killed, with `at_once` now. Of several stops
        the one that ends first counts.
        """
        run = self._runs.get(key)
        if run is None:
            return
        grace_s = grace_s or self.grace_s
        run.job.cancel()
        stuck_after_s = grace_s
        if run.process is not None:
            self._stop_process(run, run.process, grace_s, at_once=at_once)
            stuck_after_s += STUCK_AFTER_KILL_S
        elif run.task is not None:
            self.coroutines.cancel(run.task)
        run.stuck = self._sooner(run.stuck, stuck_after_s, lambda: self._warn_of(run))

    def renew_lease(self, end_us: int) -> None:
        """Exclusive runs may go on until then, also those that start later."""
        if end_us != self._lease_end_us:
            self._lease_end_us = end_us
            for run in self._exclusive.values():
                if run.process is not None:
                    run.process.lease(end_us)

    def fence(self) -> None:
        """Kill what must have ended with the lease. From any thread: the loop may be what does not go on."""
        for run in list(self._exclusive.values()):
            if run.process is not None:
                run.process.kill()

    def close(self) -> None:
        """End all runs and start nothing more; threads that do not listen are left behind."""
        for key in list(self._runs):
            self.stop(key, at_once=True)
        for run in self._runs.values():
            _disarm(run)
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.coroutines.close()

    # On the loop -----------------------------------------------------------------------------------------------------

    def _run_inline(self, run: _Run) -> None:
        outcome = self._called(run)
        if outcome.run_time_us > INLINE_US_MAX:
            name = run.operation.name
            self._slow.add(name)
            log.warning(
                "operation.slow", extra=fields(operation=name, run_time_us=outcome.run_time_us, now="in threads")
            )
        self._finished(outcome)

    def _stop_process(self, run: _Run, process: AttemptProcess, grace_s: float, *, at_once: bool) -> None:
        process.cancel()
        if at_once:
            process.kill()
        else:
            run.kill = self._sooner(run.kill, grace_s, process.kill)

    def _sooner(
        self, timer: asyncio.TimerHandle | None, delay_s: float, act: Callable[[], None]
    ) -> asyncio.TimerHandle:
        """What acts after so long, or when `timer` does if that is sooner."""
        if timer is not None:
            if timer.when() <= self._loop.time() + delay_s:
                return timer
            timer.cancel()
        return self._loop.call_later(delay_s, act)

    def _end(self, run: _Run, outcome: Outcome) -> None:
        key = (run.job.job_key, run.job.attempt)
        self._runs.pop(key, None)
        self._exclusive.pop(key, None)
        _disarm(run)
        if run.is_stuck:
            facts = fields(
                job_id=run.job.job_id,
                job_key=run.job.job_key,
                attempt=run.job.attempt,
                run_time_us=outcome.run_time_us,
            )
            log.info("attempt.unstuck", extra=facts)
        self._finished(outcome)

    def _take_from_threads(self) -> None:
        self._is_woken = False
        # No more than there is now, or threads that go on could keep the loop here for ever. Counted before the reports
        # are taken: what a run reported comes before its end.
        ended = len(self._ended)
        with self._reports_lock:
            reports, self._reports = self._reports, {}
        if reports and self._progressed is not None:
            self._progressed(reports.values())
        for _ in range(ended):
            self._end(*self._ended.popleft())

    def _warn_of(self, run: _Run) -> None:
        run.is_stuck = True
        job = run.job
        facts = fields(
            job_id=job.job_id, job_key=job.job_key, attempt=job.attempt, operation=job.operation, stuck=self.stuck
        )
        log.warning("attempt.stuck", extra=facts)

    # In any thread ---------------------------------------------------------------------------------------------------

    def _on_task(self, run: _Run, task: asyncio.Task[Outcome]) -> None:
        # In this order: a stop at this moment sees the task, or is seen here.
        run.task = task
        # By callback: a task that is cancelled before its first step runs no line of its coroutine.
        task.add_done_callback(lambda done: self._hand_over(run, _outcome_of(run, done)))
        if run.job.cancelled:
            task.cancel()

    def _run_in_thread(self, run: _Run) -> None:
        self._hand_over(run, self._called(run))

    def _run_in_process(self, run: _Run, process: AttemptProcess) -> None:
        try:
            outcome = process.run()
        except BaseException as error:  # noqa: BLE001 - a slot must never be lost, whatever it is
            outcome = run.course.raised(error)
        self._hand_over(run, outcome)

    def _report(self, job: JobContext, fraction: float, text: str, checkpoint: bytes) -> None:
        key = (job.job_key, job.attempt)
        progress = Progress(*key, fraction, text, checkpoint)
        with self._reports_lock:
            self._reports[key] = progress.after(self._reports.get(key))
        self._wake()

    def _hand_over(self, run: _Run, outcome: Outcome) -> None:
        self._ended.append((run, outcome))
        self._wake()

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            with suppress(RuntimeError):  # the loop is closed: the agent has left
                self._loop.call_soon_threadsafe(self._take_from_threads)

    def _called(self, run: _Run) -> Outcome:
        try:
            run.job.raise_if_cancelled()
            return run.course.returned(run.operation.handler(run.job))
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its outcome
            return run.course.raised(error)
        finally:
            run.job.close()


def _disarm(run: _Run) -> None:
    for timer in (run.kill, run.stuck):
        if timer is not None:
            timer.cancel()


async def _guarded(run: _Run) -> Outcome:
    try:
        handler = cast("Callable[[JobContext], Coroutine[Any, Any, object]]", run.operation.handler)
        return run.course.returned(await handler(run.job))
    except BaseException as error:  # noqa: BLE001 - an exit would end the loop; for a handler it is a failure
        return run.course.raised(error)


def _outcome_of(run: _Run, task: asyncio.Task[Outcome]) -> Outcome:
    run.job.close()
    return run.course.raised(asyncio.CancelledError()) if task.cancelled() else task.result()
