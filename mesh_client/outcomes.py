"""How many jobs ended, by few streams: one subscription follows up to 10,000 jobs.

A broker tells first how the jobs of a subscription stand, then each change: what was final before is not missed. Jobs
that come while a subscription is being opened share the next one. A subscription that is small beside a new one is
taken into it, so that a trickle of jobs costs a few streams and no job is subscribed more than a few times.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing
from itertools import islice
from typing import Final, cast

from mesh_client.connection import Connection
from mesh_client.errors import FullError
from mesh_client.jobs import JobChange, JobState, JobView
from mesh_client.names import id_bytes
from mesh_client.watching import READS_AT_ONCE, WATCHED_MAX, Watch, read_job

ABSORBED_RATIO: Final = 4
"""A subscription is taken into a new one that has at least a quarter of its jobs."""


class _Entry:
    """A job that somebody waits for."""

    def __init__(self, future: "asyncio.Future[JobView]") -> None:
        self.future = future
        self.waiters = 0
        self.is_read = False


class _Subscription:
    """One stream. `pending`: its jobs that are not final."""

    def __init__(self, pending: Iterable[str]) -> None:
        self.pending = dict.fromkeys(pending)
        self.is_open = asyncio.Event()
        self.task: asyncio.Task[None] | None = None


class Outcomes:
    """The final views of jobs of one `parent`, an organization or a group, for whoever waits for them."""

    def __init__(self, connection: Connection, organization: str, parent: str) -> None:
        self.connection = connection
        self._organization = organization
        self._parent = parent
        self._entries: dict[str, _Entry] = {}
        self._new: dict[str, None] = {}
        self._subscriptions: list[_Subscription] = []
        self._opening: asyncio.Task[None] | None = None
        self._reads: set[asyncio.Task[None]] = set()
        self._may_read = asyncio.Semaphore(READS_AT_ONCE)

    async def final(self, job_id: str) -> JobView:
        """The job when it is final, with its result. It must have been accepted: unknown jobs never end.

        Raises MeshClientError when no broker answers for too long; whoever asks again follows it anew.
        """
        entry = self._entries.get(job_id) or self._follow(job_id)
        entry.waiters += 1
        try:
            return await asyncio.shield(entry.future)
        finally:
            entry.waiters -= 1
            if not entry.waiters and not entry.future.done():
                self._forget(job_id)

    @property
    def streams(self) -> list[int]:
        """How many jobs that are not final each open stream follows."""
        return [len(one.pending) for one in self._subscriptions]

    async def close(self) -> None:
        """Let go of all; those who wait are told that the client is closed."""
        tasks = [self._opening, *(one.task for one in self._subscriptions), *self._reads]
        ended = [task for task in tasks if task is not None]
        for task in ended:
            task.cancel()
        self._fail(list(self._entries), RuntimeError("this client is closed; make a new one"))
        await asyncio.gather(*ended, return_exceptions=True)

    # --- who is followed --------------------------------------------------------------------------------------------

    def _follow(self, job_id: str) -> _Entry:
        entry = self._entries[job_id] = _Entry(asyncio.get_running_loop().create_future())
        self._new[job_id] = None
        if self._opening is None:
            self._opening = asyncio.create_task(self._open_new(), name="outcomes-open")
        return entry

    def _forget(self, job_id: str) -> None:
        del self._entries[job_id]
        self._new.pop(job_id, None)
        self._settle([job_id])

    def _settle(self, job_ids: Iterable[str]) -> None:
        """Nobody needs to hear of these any more; a stream without jobs ends."""
        for subscription in list(self._subscriptions):
            for job_id in job_ids:
                subscription.pending.pop(job_id, None)
            if not subscription.pending and subscription.task not in (None, asyncio.current_task()):
                _cancel(subscription)

    def _fail(self, job_ids: Iterable[str], error: Exception) -> None:
        for job_id in job_ids:
            entry = self._entries.pop(job_id, None)
            if entry is not None and not entry.future.done():
                entry.future.set_exception(error)
                entry.future.exception()  # retrieved, also if its last waiter is just leaving

    # --- streams ----------------------------------------------------------------------------------------------------

    async def _open_new(self) -> None:
        """Subscribe what is new, one stream after the other: what comes meanwhile waits for the next."""
        try:
            while self._new:
                chosen = list(islice(self._new, WATCHED_MAX))
                for job_id in chosen:
                    del self._new[job_id]
                absorbed = self._absorbed(len(chosen))
                subscription = _Subscription([*chosen, *(job_id for one in absorbed for job_id in one.pending)])
                await self._open(subscription)
                for one in absorbed:
                    _cancel(one)
        finally:
            self._opening = None

    def _absorbed(self, count: int) -> list[_Subscription]:
        absorbed: list[_Subscription] = []
        for one in sorted(self._subscriptions, key=lambda one: len(one.pending)):
            if len(one.pending) > ABSORBED_RATIO * count or count + len(one.pending) > WATCHED_MAX:
                break
            absorbed.append(one)
            count += len(one.pending)
        return absorbed

    async def _open(self, subscription: _Subscription) -> None:
        """Return when the broker has taken the subscription, or it has failed."""
        self._subscriptions.append(subscription)
        subscription.task = asyncio.create_task(self._listen(subscription), name="outcomes-listen")
        opened = asyncio.create_task(subscription.is_open.wait(), name="outcomes-opened")
        try:
            await asyncio.wait((opened, subscription.task), return_when=asyncio.FIRST_COMPLETED)
        finally:
            opened.cancel()

    async def _listen(self, subscription: _Subscription) -> None:
        try:
            retry = self.connection.retry()
            while subscription.pending:
                try:
                    await self._hear_until_gap(subscription)
                    retry.restart()
                except FullError as error:
                    # So many watch that one more is refused; what ends meanwhile is told of when there is room.
                    await retry.wait(error)
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._fail(subscription.pending, error)
        finally:
            self._subscriptions.remove(subscription)

    async def _hear_until_gap(self, subscription: _Subscription) -> None:
        """Hear what changes; after a gap a new subscription tells how all that is left stands."""
        watch = Watch(self.connection, self._parent, [id_bytes(job_id) for job_id in subscription.pending], "")
        opening = asyncio.create_task(self._note_opening(watch, subscription), name="outcomes-opening")
        try:
            async with aclosing(cast("AsyncGenerator[JobChange, None]", watch.changes())) as changes:
                async for change in changes:
                    subscription.is_open.set()
                    self._hear(view for view in change.jobs if view.is_final)
                    if change.gap or not subscription.pending:
                        return
        finally:
            opening.cancel()

    @staticmethod
    async def _note_opening(watch: Watch, subscription: _Subscription) -> None:
        await watch.opened.wait()
        subscription.is_open.set()

    # --- what is heard ----------------------------------------------------------------------------------------------

    def _hear(self, views: Iterable[JobView]) -> None:
        ended: list[str] = []
        for view in views:
            entry = self._entries.get(view.job_id)
            ended.append(view.job_id)
            if entry is None or entry.is_read:
                continue
            if view.state is JobState.SUCCEEDED:
                # A watch leaves results out.
                entry.is_read = True
                self._read(view.job_id)
            else:
                self._end(view)
        self._settle(ended)

    def _end(self, view: JobView) -> None:
        entry = self._entries.pop(view.job_id, None)
        if entry is not None and not entry.future.done():
            entry.future.set_result(view)

    def _read(self, job_id: str) -> None:
        task = asyncio.create_task(self._read_result(job_id), name="outcomes-read")
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _read_result(self, job_id: str) -> None:
        try:
            async with self._may_read:
                self._end(await read_job(self.connection, self._organization, job_id))
        except Exception as error:  # noqa: BLE001 - whoever waits gets it
            self._fail([job_id], error)


def _cancel(subscription: _Subscription) -> None:
    if subscription.task is not None:
        subscription.task.cancel()
