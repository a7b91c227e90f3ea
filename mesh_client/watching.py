"""Following jobs without missing anything, over broken streams and restarts of the broker."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from typing import Final

import grpc.aio

from mesh_client.connection import Connection
from mesh_client.convert import job_change, job_view
from mesh_client.errors import UnavailableError, error_of_call
from mesh_client.jobs import JobChange, JobView
from mesh_client.names import id_bytes, id_text, job_name, organization_name
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb

WATCHED_MAX: Final = 10_000
READS_AT_ONCE: Final = 16
READ_AGAIN_FIRST_S: Final = 0.1
READ_AGAIN_MAX_S: Final = 30.0

WatchCall = grpc.aio.UnaryStreamCall[pb.WatchJobsRequest, pb.WatchJobsResponse]


async def read_job(connection: Connection, organization: str, job_id: str | bytes) -> JobView:
    """One job with its result. Raises MeshClientError."""
    job: job_pb2.Job = await connection.call(
        connection.jobs.GetJob, pb.GetJobRequest(name=job_name(organization, job_id))
    )
    return job_view(job)


class Watch:
    """One subscription that outlives its streams: it continues after the last message that was read.

    `opened` is set each time a broker has taken the subscription: what changes from then on will be said.
    """

    def __init__(self, connection: Connection, parent: str, job_ids: Sequence[bytes], resume_token: str) -> None:
        self._connection = connection
        self._request = pb.WatchJobsRequest(parent=parent, job_ids=job_ids, resume_token=resume_token)
        self.opened = asyncio.Event()

    async def changes(self) -> AsyncIterator[JobChange]:
        """Changes for ever. Raises MeshClientError when the broker stays away or refuses."""
        retry = self._connection.retry()
        while True:
            call = self._connection.jobs.WatchJobs(self._request)
            opening = asyncio.create_task(self._note_opening(call), name="watch-opening")
            try:
                async for response in call:
                    retry.restart()
                    change = job_change(response)
                    self._request.resume_token = change.resume_token or self._request.resume_token
                    yield change
                failure = UnavailableError("the broker ended the watch")
            except grpc.aio.AioRpcError as error:
                explained = error_of_call(error, self._connection.target)
                if not isinstance(explained, UnavailableError):
                    raise explained from error
                failure = explained
            finally:
                opening.cancel()
                call.cancel()
                [was_open] = await asyncio.gather(opening, return_exceptions=True)
            if was_open is True:
                # However long nothing changed: the broker is away only since now.
                retry.restart()
            await retry.wait(failure)

    async def _note_opening(self, call: WatchCall) -> bool:
        with suppress(grpc.aio.AioRpcError):
            # Sent when the subscription stands, or at the latest with the first change.
            await call.initial_metadata()
            if not call.done():
                self.opened.set()
                return True
        return False


class Following:
    """Some jobs until all of them are final: watched first, then read, so that nothing falls in between.

    Each time a broker takes the subscription, and after a gap, all that is not final is read. Until the subscription
    is known to stand it is read at growing intervals too: a broker may say so only with the first change.
    """

    def __init__(self, connection: Connection, organization: str, job_ids: Sequence[str | bytes]) -> None:
        self._connection = connection
        self._organization = organization
        self._pending = dict.fromkeys(id_text(id_bytes(job_id)) for job_id in job_ids)
        self._latest: dict[str, JobView] = {}
        self._told: dict[str, JobView] = {}
        self._finished: dict[str, None] = {}
        self._is_stale = False
        self._watches = 0
        self._opened_count = 0
        self._to_read = asyncio.Event()
        self._to_yield = asyncio.Event()
        self._failure: Exception | None = None

    async def views(self) -> AsyncGenerator[JobView, None]:
        """Each job whenever it has changed, finished ones with their result, until all are final."""
        watches = [partial(self._listen, job_ids) for job_ids in _chunks(list(self._pending), WATCHED_MAX)]
        self._watches = len(watches)
        works: list[Callable[[], Awaitable[None]]] = [self._read_when_due, *watches]
        tasks = [asyncio.create_task(self._guard(work), name="following") for work in works]
        try:
            while self._pending:
                await self._to_yield.wait()
                self._to_yield.clear()
                for view in self._taken():
                    yield view
                if self._failure is not None:
                    raise self._failure
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def pending(self) -> list[str]:
        """Ids of jobs that are not final."""
        return list(self._pending)

    def _taken(self) -> list[JobView]:
        latest, self._latest = self._latest, {}
        views = [view for job_id, view in latest.items() if job_id in self._pending and self._is_news(view)]
        for view in views:
            if view.is_final:
                del self._pending[view.job_id]
        return views

    def _is_news(self, view: JobView) -> bool:
        """A watch tells what was read as well, but without checkpoint and history."""
        told = view.without_history()
        if self._told.get(view.job_id) == told:
            return False
        self._told[view.job_id] = told
        return True

    async def _guard(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - whoever follows gets it
            self._failure = error
            self._to_yield.set()

    async def _listen(self, job_ids: list[str]) -> None:
        watch = Watch(
            self._connection, organization_name(self._organization), [id_bytes(job_id) for job_id in job_ids], ""
        )
        opening = asyncio.create_task(self._read_when_opened(watch), name="following-opening")
        try:
            async for change in watch.changes():
                for view in change.jobs:
                    self._hear(view)
                if change.gap:
                    self._is_stale = True
                    self._to_read.set()
        finally:
            opening.cancel()

    async def _read_when_opened(self, watch: Watch) -> None:
        await watch.opened.wait()
        self._opened_count += 1
        while True:
            self._is_stale = True
            self._to_read.set()
            watch.opened.clear()
            await watch.opened.wait()

    def _hear(self, view: JobView) -> None:
        known = self._latest.get(view.job_id)
        if known is not None and known.is_final:
            return
        if view.is_final:
            # A watch leaves results out.
            self._finished[view.job_id] = None
            self._to_read.set()
        else:
            self._latest[view.job_id] = view
            self._to_yield.set()

    async def _read_when_due(self) -> None:
        again_s = READ_AGAIN_FIRST_S
        while True:
            is_known = self._opened_count == self._watches
            try:
                async with asyncio.timeout(None if is_known else again_s):
                    await self._to_read.wait()
            except TimeoutError:
                self._is_stale = True
                again_s = min(2 * again_s, READ_AGAIN_MAX_S)
            self._to_read.clear()
            job_ids = list(self._pending) if self._is_stale else list(self._finished)
            self._is_stale = False
            self._finished.clear()
            await self._read(job_ids)

    async def _read(self, job_ids: list[str]) -> None:
        for some in _chunks(job_ids, READS_AT_ONCE):
            reads = (read_job(self._connection, self._organization, job_id) for job_id in some)
            for view in await asyncio.gather(*reads, return_exceptions=True):
                if isinstance(view, BaseException):
                    raise view
                self._latest[view.job_id] = view
            self._to_yield.set()


def _chunks(items: list[str], size: int) -> list[list[str]]:
    rest = iter(items)
    return list(iter(lambda: list(islice(rest, size)), []))
