"""What is past its time leaves the store: finished jobs with all their rows, and business keys that have expired.

At the end of a run those go whom no job names any more (`broker.store.tombstones`).

A slice is one short transaction in the writer's thread, so a commit waits for one slice at most, and after a slice the
commits that wait have their turn. While commits come, slices come seldom; while none do, one follows the other.
Nothing that is live is ever touched. What is removed leaves room in the file that is used again before it grows.
"""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import structlog

from broker.dispatch.model import SECOND_US
from broker.errors import StoreBusyError, StoreFailedError
from broker.settings import DAY_S, StoreSettings
from broker.store import statements
from broker.store.base import FileState, Retired, Store
from broker.store.connection import StoreConnection

PAUSE_HALVINGS_MAX: Final = 10
_ROWS_PAGE: Final = 4
"""About so many rows of a slice share a page of the write-ahead log: what is removed lies together."""

log = structlog.get_logger()


@dataclass(slots=True, frozen=True)
class RetentionPolicy:
    """How long finished jobs are kept, and how gently they are removed.

    A slice removes about `slice_rows` rows. All that is due is looked for every `every_s`.
    """

    history_us: int
    slice_rows: int = 500
    pause_s: float = 0.2
    every_s: float = 60.0

    @classmethod
    def of(cls, settings: StoreSettings) -> "RetentionPolicy":
        """As an operator has set it."""
        return cls(
            history_us=round(settings.history_days * DAY_S * SECOND_US),
            slice_rows=settings.retention_slice_rows,
            pause_s=settings.retention_pause_s,
            every_s=settings.retention_every_s,
        )

    def pause_after(self, running_s: float) -> float:
        """How long to wait between two slices while commits come: `pause_s`, half of it each time a run has lasted for
        another `every_s`. A store that fills faster than this is gentle is emptied as fast as it fills.
        """
        return self.pause_s / (1 << min(int(running_s / self.every_s), PAUSE_HALVINGS_MAX))


class RetentionRun(NamedTuple):
    """What one run removed, in how many slices, how long it took, the longest slice, and the file after it.

    `names` are organisations, groups and agents that were removed long ago.
    """

    jobs: int
    keys: int
    names: int
    rows: int
    slices: int
    seconds: float
    slice_s_max: float
    file: FileState


class Retention:
    """Removes what is past its time, run after run. `now_us` is engine time, `commits` the number of the last commit.

    `purge` forgets who was removed before a time, and says how many that were. `last` is the newest run; the totals
    count since the start of the process.
    """

    def __init__(
        self,
        store: Store,
        policy: RetentionPolicy,
        now_us: Callable[[], int],
        commits: Callable[[], int],
        purge: Callable[[int], Awaitable[int]] | None = None,
    ) -> None:
        self._store = store
        self._policy = policy
        self._now_us = now_us
        self._commits = commits
        self._purge = purge
        self.jobs_total = 0
        self.keys_total = 0
        self.names_total = 0
        self.last: RetentionRun | None = None
        self.ran = asyncio.Event()
        """Set when a run has ended."""

    async def run_for_ever(self) -> None:
        """A run now and after every interval; ends only with the store."""
        while True:
            try:
                await self.run_once()
            except StoreBusyError as error:
                log.warning("history.not_retired", why=error.text, retry_after_s=self._policy.every_s)
            except StoreFailedError as error:
                log.exception("history.retention_ended", why=error.text)
                return
            await asyncio.sleep(self._policy.every_s)

    async def run_once(self) -> RetentionRun:
        """Remove all that is due, slice by slice. Raises StoreBusyError, StoreFailedError: slices before it count."""
        began_s = time.monotonic()
        jobs = keys = rows = slices = 0
        slice_s_max = 0.0
        while True:
            commits = self._commits()
            retired, seconds = await self._slice()
            slices += 1
            slice_s_max = max(slice_s_max, seconds)
            jobs, keys, rows = jobs + retired.jobs, keys + retired.keys, rows + retired.rows
            if retired.rows < self._policy.slice_rows:
                break
            if self._commits() != commits:
                await asyncio.sleep(self._policy.pause_after(time.monotonic() - began_s))
        before_us = self._now_us() - self._policy.history_us
        names = 0 if self._purge is None else await self._purge(before_us)
        self.names_total += names
        spent_s = time.monotonic() - began_s
        run = RetentionRun(jobs, keys, names, rows, slices, spent_s, slice_s_max, await self._store.file_state())
        self.last = run
        self.ran.set()
        self._tell(run)
        return run

    async def _slice(self) -> tuple[Retired, float]:
        now_us, began_s = self._now_us(), time.monotonic()
        retired = await self._store.retire(now_us - self._policy.history_us, now_us, self._policy.slice_rows)
        self.jobs_total += retired.jobs
        self.keys_total += retired.keys
        return retired, time.monotonic() - began_s

    def _tell(self, run: RetentionRun) -> None:
        (log.info if run.rows or run.names else log.debug)(
            "history.retired",
            jobs=run.jobs,
            keys=run.keys,
            names=run.names,
            slices=run.slices,
            seconds=round(run.seconds, 3),
            slice_ms_max=round(run.slice_s_max * 1_000, 1),
            file_bytes=run.file.bytes,
            free_bytes=run.file.free_bytes,
        )


def write_slice(driver: sqlite3.Connection, finished_before_us: int, keys_before_us: int, rows_max: int) -> Retired:
    """Remove up to about so many rows and commit; when anything is raised, all of it is rolled back."""
    driver.execute("BEGIN IMMEDIATE")
    try:
        retired = _remove_jobs(driver, finished_before_us, rows_max)
        if retired.rows < rows_max:
            keys = driver.execute(statements.PAST_KEYS, (keys_before_us, rows_max - retired.rows)).rowcount
            retired = Retired(retired.jobs, keys, retired.rows + keys)
        driver.execute("COMMIT")
    except BaseException:
        if driver.in_transaction:
            driver.execute("ROLLBACK")
        raise
    return retired


def _remove_jobs(driver: sqlite3.Connection, finished_before_us: int, rows_max: int) -> Retired:
    jobs = rows = 0
    for (group_no,) in driver.execute(statements.GROUPS_WITH_JOBS).fetchall():
        past = driver.execute(statements.PAST_JOBS, (group_no, finished_before_us, rows_max - rows)).fetchall()
        for key in past:
            rows += sum(driver.execute(statement, key).rowcount for statement in statements.DELETE_BESIDE)
            rows += driver.execute(statements.DELETE_JOB, key).rowcount
            jobs += 1
            if rows >= rows_max:
                return Retired(jobs, 0, rows)
    return Retired(jobs, 0, rows)


def pages_of(retired: Retired) -> int:
    """About how many pages of the write-ahead log a slice took."""
    return 4 + retired.rows // _ROWS_PAGE


def file_state(connection: StoreConnection) -> FileState:
    """What SQLite says of its file. Free pages are used again before the file grows."""
    pages, free, size = (int(str(connection.pragma(name))) for name in ("page_count", "freelist_count", "page_size"))
    return FileState(pages * size, free * size)
