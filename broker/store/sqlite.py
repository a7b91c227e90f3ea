"""The store of one broker in one SQLite file: write-ahead log, an fsync before every answer, a thread for every role.

    writer       commits, look-ups of submissions, administrative rows; nobody else writes
    reader       what dispatch and changes by operators need: payloads that are not in memory, recovery, known requests
    history      what people read; a slow search keeps nobody else waiting
    checkpoint   takes the write-ahead log into the file

A full disk or a foreign lock rolls a commit back for certain, and the same batch may be tried again. Any other error of
the file is the end: after a failed fsync a commit may be on disk or not, so every later call raises StoreFailedError,
and the truth is found by starting again from the file. A commit here is therefore never UNKNOWN.
"""

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy import Connection

from broker.dispatch.model import GroupNo, JobKey
from broker.dispatch.rows import JobRow, RequestRow
from broker.errors import ConfigError, StoreBusyError
from broker.store import administration, file, history, ownership, recovery, requests, retention, search, tombstones
from broker.store.base import (
    AgentWordsRow,
    Body,
    CommitOutcome,
    CommitRequest,
    CommitStatus,
    EnvironmentRow,
    FileState,
    GroupRow,
    GroupState,
    JobCount,
    JobPage,
    JobQuery,
    JobRecord,
    KnownSubmission,
    OrganisationRow,
    Ownership,
    Purged,
    Retired,
    Store,
    SubmissionLookup,
)
from broker.store.checkpoint import PAGES_MAX, Checkpointer
from broker.store.commit import StaleError, pages_of, write_batch
from broker.store.connection import StoreConnection, retry_after_s, store_error
from broker.store.lane import FailStop, Lane
from broker.store.lock import FileLock

T = TypeVar("T")

_SYNCHRONOUS: Final = ("OFF", "NORMAL", "FULL", "EXTRA")
_PAGE_BYTES: Final = 4_096
SQLITE_MIN: Final = (3, 33)
"""UPDATE ... FROM came with it."""


class SqliteStore(Store):
    """A store in the file at `path`, whose folder must exist.

    `synchronous` below FULL gives promise P1 up: only to measure what it costs. Payloads and results up to
    `payload_inline_max` bytes lie in the job's row, larger ones beside it. `file_bytes_max` refuses commits before the
    disk is full (0: the disk is the limit). `wal_pages_max` is when the write-ahead log is taken into the file.
    """

    kind = "sqlite"

    def __init__(
        self,
        path: Path,
        *,
        synchronous: str = "FULL",
        payload_inline_max: int = 4_096,
        file_bytes_max: int = 0,
        wal_pages_max: int = PAGES_MAX,
    ) -> None:
        if synchronous not in _SYNCHRONOUS:
            raise ConfigError(f"store.synchronous is {synchronous!r}: it must be one of {', '.join(_SYNCHRONOUS)}")
        if sqlite3.sqlite_version_info < SQLITE_MIN:
            wanted = ".".join(map(str, SQLITE_MIN))
            raise ConfigError(f"SQLite {sqlite3.sqlite_version} is too old: use a Python with {wanted} or newer")
        self.path = path
        self.synchronous = synchronous
        self.mesh_id = ""
        self._inline_bytes_max = payload_inline_max
        self._file_bytes_max = file_bytes_max
        self._lock = FileLock(path)
        fail_stop = FailStop()
        self._writer, self._reader, self._history, self._checkpoint = (
            Lane(f"store-{role}", path, fail_stop) for role in ("writer", "reader", "history", "checkpoint")
        )
        self._checkpointer = Checkpointer(self._checkpoint, self._writer, wal_pages_max)
        self._broker_id = ""
        self._last_us = 0

    async def open(self) -> None:
        """Take the lock, check the file and its schema, and settle what a crash left, in this order.

        Raises:
            StoreLockedError: another broker has the file.
            StoreFailedError: it is damaged.
            ConfigError: it belongs to another program or a newer release, or there is no such folder.
        """
        try:
            await self._writer.open(self._prepare)
            await self._reader.open(lambda: StoreConnection(self.path, is_writer=False))
            await self._history.open(lambda: StoreConnection(self.path, is_writer=False))
            await self._checkpoint.open(lambda: StoreConnection(self.path, is_writer=True))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """End all threads after what they run, the writer last; then release the lock."""
        try:
            for lane in (self._checkpoint, self._history, self._reader, self._writer):
                await lane.close()
        finally:
            self._lock.release()

    async def take_ownership(self, broker_id: str, at_us: int) -> Ownership:
        taken = await self._change(lambda connection: ownership.take(connection, broker_id, at_us))
        self._broker_id = broker_id
        self._last_us = max(self._last_us, at_us)
        return taken

    async def adopt_group(self, group_no: GroupNo) -> int:
        return await self._change(lambda connection: ownership.adopt(connection, group_no))

    async def commit(self, request: CommitRequest) -> CommitOutcome:
        return await self._writer.run(lambda connection: self._commit(connection, request))

    async def committed_seq(self, broker_id: str) -> int:
        return await self._change(lambda connection: ownership.committed_seq(connection, broker_id))

    async def find_submissions(self, lookups: Sequence[SubmissionLookup]) -> list[KnownSubmission | None]:
        return await self._writer.run(lambda connection: recovery.find_submissions(connection, lookups, self._last_us))

    async def group_state(self, group_no: GroupNo) -> GroupState:
        return await _read(self._reader, lambda connection: recovery.group_state(connection, group_no))

    async def live_jobs(self, group_no: GroupNo, after: JobKey, limit: int) -> list[JobRow]:
        return await self._reader.run(lambda connection: recovery.live_jobs(connection, group_no, after, limit))

    async def payloads(self, job_keys: Sequence[JobKey]) -> dict[JobKey, Body]:
        return await self._reader.run(lambda connection: recovery.payloads(connection, job_keys))

    async def checkpoints(self, job_keys: Sequence[JobKey]) -> dict[JobKey, bytes]:
        return await self._reader.run(lambda connection: recovery.checkpoints(connection, job_keys))

    async def job(self, group_nos: Sequence[GroupNo], job_id: bytes) -> JobRecord | None:
        return await self._history.run(lambda connection: history.find_job(connection, group_nos, job_id))

    async def jobs(self, query: JobQuery) -> JobPage:
        return await _read(self._history, lambda connection: search.list_jobs(connection, query))

    async def count_jobs(self, query: JobQuery) -> JobCount:
        return await _read(self._history, lambda connection: search.count_jobs(connection, query))

    async def repeated(self, job_keys: Sequence[JobKey]) -> set[JobKey]:
        return await _read(self._history, lambda connection: history.repeated(connection, job_keys))

    async def retire(self, finished_before_us: int, keys_before_us: int, rows_max: int) -> Retired:
        return await self._writer.run(lambda one: self._retire(one, finished_before_us, keys_before_us, rows_max))

    async def purge(self, idle: Sequence[GroupNo], before_us: int, agents_max: int) -> Purged:
        return await self._change(lambda connection: tombstones.purge(connection, idle, before_us, agents_max))

    async def file_state(self) -> FileState:
        return await self._history.run(retention.file_state)

    async def records(self, job_keys: Sequence[JobKey]) -> list[JobRecord]:
        return await self._history.run(lambda connection: history.records(connection, job_keys))

    async def organisations(self) -> list[OrganisationRow]:
        return await _read(self._history, administration.organisations)

    async def groups(self) -> list[GroupRow]:
        return await _read(self._history, administration.groups)

    async def environments(self) -> list[EnvironmentRow]:
        return await _read(self._history, administration.environments)

    async def agent_words(self) -> list[AgentWordsRow]:
        return await _read(self._history, administration.agent_words)

    async def find_request(self, org_no: int, request_id: str, now_us: int) -> RequestRow | None:
        return await _read(self._reader, lambda connection: requests.find(connection, org_no, request_id, now_us))

    async def insert_organisation(
        self, slug: str, display_name: str, at_us: int, *, description: str = "", request: RequestRow | None = None
    ) -> OrganisationRow:
        row = OrganisationRow(0, slug, display_name, at_us, description)
        return await self._change(lambda connection: administration.insert_organisation(connection, row, request))

    async def insert_group(self, row: GroupRow, request: RequestRow | None = None) -> GroupRow:
        return await self._change(lambda connection: administration.insert_group(connection, row, request))

    async def insert_environment(
        self,
        org_no: int,
        slug: str,
        display_name: str,
        description: str,
        target_group_no: GroupNo,
        group_nos: tuple[GroupNo, ...],
        at_us: int,
        request: RequestRow | None = None,
    ) -> EnvironmentRow:
        row = EnvironmentRow(0, org_no, slug, display_name, description, target_group_no, group_nos, at_us)
        return await self._change(lambda connection: administration.insert_environment(connection, row, request))

    async def update_organisation(self, row: OrganisationRow) -> None:
        await self._change(lambda connection: administration.update_organisation(connection, row))

    async def update_group(self, row: GroupRow) -> None:
        await self._change(lambda connection: administration.update_group(connection, row))

    async def update_environment(self, row: EnvironmentRow) -> None:
        await self._change(lambda connection: administration.update_environment(connection, row))

    async def put_agent_words(self, row: AgentWordsRow) -> None:
        await self._change(lambda connection: administration.put_agent_words(connection, row))

    async def remove_environment(self, environment_no: int) -> None:
        await self._change(lambda connection: administration.remove_environment(connection, environment_no))

    async def remove_group(self, group_no: GroupNo, at_us: int) -> None:
        await self._change(lambda connection: administration.remove_group(connection, group_no, at_us))

    async def remove_organisation(self, org_no: int, at_us: int) -> None:
        await self._change(lambda connection: administration.remove_organisation(connection, org_no, at_us))

    def _prepare(self) -> StoreConnection:
        self._lock.acquire()
        file.create(self.path)
        file.refuse_foreign(self.path)
        connection = StoreConnection(self.path, is_writer=True, synchronous=self.synchronous)
        try:
            self._inspect(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _inspect(self, connection: StoreConnection) -> None:
        file.check(connection, self.path)
        file.migrate(connection, self.path)
        file.settle(connection, self.path)
        if self._file_bytes_max:
            connection.driver.execute(f"PRAGMA max_page_count = {self._file_bytes_max // _PAGE_BYTES}")
        # What SQLite says, not what was asked for: this is what the figures and the promises rest on.
        self.synchronous = _SYNCHRONOUS[int(str(connection.pragma("synchronous")))]
        with connection.begin() as transaction:
            self._last_us = ownership.last_committed_us(transaction)
            self.mesh_id = ownership.mesh_id(transaction)

    def _commit(self, connection: StoreConnection, request: CommitRequest) -> CommitOutcome:
        try:
            write_batch(connection.driver, self._broker_id, request, self._inline_bytes_max)
        except StaleError as stale:
            return CommitOutcome(CommitStatus.STALE, stale_groups=stale.groups)
        except sqlite3.Error as error:
            failure = store_error(error, self.path)
            if not isinstance(failure, StoreBusyError):
                raise failure from error
            self._checkpointer.begin()
            return CommitOutcome(CommitStatus.ROLLED_BACK, why=failure.text, retry_after_s=retry_after_s(failure))
        self._last_us = max(self._last_us, request.at_us)
        self._checkpointer.wrote(pages_of(request), connection)
        return CommitOutcome(CommitStatus.COMMITTED)

    def _retire(
        self, connection: StoreConnection, finished_before_us: int, keys_before_us: int, rows_max: int
    ) -> Retired:
        retired = retention.write_slice(connection.driver, finished_before_us, keys_before_us, rows_max)
        self._checkpointer.wrote(retention.pages_of(retired), connection)
        return retired

    async def _change(self, work: Callable[[Connection], T]) -> T:
        return await _read(self._writer, work)


async def _read(lane: Lane, work: Callable[[Connection], T]) -> T:
    def transact(connection: StoreConnection) -> T:
        with connection.begin() as transaction:
            return work(transaction)

    return await lane.run(transact)
