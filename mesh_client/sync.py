"""The same client for programs without an event loop.

Nothing is written twice: each method hands its arguments to `MeshClient` in the event loop of one background thread
and waits. The descriptors below keep the signatures, so the type checker knows them.

A client may be used by many threads. It does not cross a fork: its thread and its connection stay in the parent, and
in the child every method says so. A client that is not closed is closed when nobody holds it any more, at the latest
when the interpreter ends.
"""

import asyncio
import concurrent.futures
import os
import queue
import threading
import weakref
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from types import TracebackType
from typing import Concatenate, Final, Generic, Literal, ParamSpec, Self, TypeVar, Unpack, overload

from mesh_client.client import DEFAULT_TARGET, RETRY_FOR_S, MeshClient
from mesh_client.futures import JobFuture
from mesh_client.jobs import JobResult, JobSpec, JobView, SpecOptions, SubmittedJob
from mesh_client.mapping import CONCURRENCY, Mapped, Tell
from mesh_client.source import Source, held_source

P = ParamSpec("P")
T = TypeVar("T")
ItemT = TypeVar("ItemT")

AHEAD_MAX: Final = 1_024
LOOK_UP_S: Final = 0.5
"""How long a thread waits at once. An interrupt that comes just before a wait begins is noticed only after it."""
CLOSE_S: Final = 10.0
"""How long the end of a client may take. A loop that somebody's code blocks is left to end with the process."""


class Answer(Generic[P, T]):
    """A method that waits for one answer of the async method."""

    def __init__(self, method: Callable[Concatenate[MeshClient, P], Awaitable[T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "SyncMeshClient", owner: type) -> Callable[P, T]: ...
    def __get__(self, client: "SyncMeshClient | None", owner: type) -> Self | Callable[P, T]:
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            async def answer() -> T:
                return await self._method(client.asynchronous, *args, **kwargs)

            return client.run(answer())

        return call


class Stream(Generic[P, T]):
    """A method that gives an iterator over what the async method yields."""

    def __init__(self, method: Callable[Concatenate[MeshClient, P], AsyncIterator[T]]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    @overload
    def __get__(self, client: None, owner: type) -> Self: ...
    @overload
    def __get__(self, client: "SyncMeshClient", owner: type) -> Callable[P, Iterator[T]]: ...
    def __get__(self, client: "SyncMeshClient | None", owner: type) -> Self | Callable[P, Iterator[T]]:
        if client is None:
            return self

        def call(*args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
            return _Pump(client, lambda: self._method(client.asynchronous, *args, **kwargs)).items()

        return call


class SyncJobFuture:
    """A submitted job for programs without an event loop: `JobFuture`, which see, with methods that block."""

    __slots__ = ("_client", "asynchronous")

    def __init__(self, client: "SyncMeshClient", asynchronous: JobFuture) -> None:
        self._client = client
        self.asynchronous = asynchronous

    def __repr__(self) -> str:
        return repr(self.asynchronous)

    @property
    def job_id(self) -> str:
        """Which job."""
        return self.asynchronous.job_id

    @property
    def job_key(self) -> int:
        """The broker's own number of it."""
        return self.asynchronous.job_key

    @property
    def duplicate(self) -> bool:
        """Whether it had been submitted before."""
        return self.asynchronous.duplicate

    @property
    def done(self) -> bool:
        """Whether it is known here that the job is final; only waiting finds that out."""
        return self.asynchronous.done

    def result(self, timeout_s: float | None = None) -> JobResult:
        """What the job produced. Raises JobFailedError, MeshTimeoutError, MeshClientError."""
        return self._client.run(self.asynchronous.result(timeout_s))

    def outcome(self, timeout_s: float | None = None) -> JobView:
        """The job when it is final, however it ended. Raises MeshTimeoutError, MeshClientError."""
        return self._client.run(self.asynchronous.outcome(timeout_s))

    def status(self) -> JobView:
        """The job as it is now."""
        return self._client.run(self.asynchronous.status())

    def cancel(self) -> JobView:
        """Cancel the job. Raises WrongStateError if it has ended otherwise."""
        return self._client.run(self.asynchronous.cancel())

    def future(self) -> concurrent.futures.Future[JobResult]:
        """A future of the standard library, for `concurrent.futures.wait`, callbacks, executors.

        Cancelling it ends the waiting and leaves the job alone.
        """
        return self._client.begin(self.asynchronous.result())


class SyncMeshClient:
    """`MeshClient` for programs without an event loop: the same methods, which block. May be used by many threads.

    A source given to `submit_stream` or `map` is read in a thread of its own.
    """

    submit_many = Answer(MeshClient.submit_many)
    get = Answer(MeshClient.get)
    wait = Answer(MeshClient.wait)
    follow = Stream(MeshClient.follow)
    watch = Stream(MeshClient.watch)
    cancel = Answer(MeshClient.cancel)
    requeue = Answer(MeshClient.requeue)
    resolve_held = Answer(MeshClient.resolve_held)
    explain = Answer(MeshClient.explain)
    list = Stream(MeshClient.list)
    cancel_jobs = Stream(MeshClient.cancel_jobs)
    requeue_jobs = Stream(MeshClient.requeue_jobs)
    create_organization = Answer(MeshClient.create_organization)
    get_organization = Answer(MeshClient.get_organization)
    list_organizations = Stream(MeshClient.list_organizations)
    update_organization = Answer(MeshClient.update_organization)
    remove_organization = Answer(MeshClient.remove_organization)
    create_environment = Answer(MeshClient.create_environment)
    get_environment = Answer(MeshClient.get_environment)
    list_environments = Stream(MeshClient.list_environments)
    update_environment = Answer(MeshClient.update_environment)
    remove_environment = Answer(MeshClient.remove_environment)
    create_group = Answer(MeshClient.create_group)
    get_group = Answer(MeshClient.get_group)
    list_groups = Stream(MeshClient.list_groups)
    update_group = Answer(MeshClient.update_group)
    remove_group = Answer(MeshClient.remove_group)
    get_agent = Answer(MeshClient.get_agent)
    list_agents = Stream(MeshClient.list_agents)
    create_agent = Answer(MeshClient.create_agent)
    update_agent = Answer(MeshClient.update_agent)
    follow_agent = Stream(MeshClient.follow_agent)
    explain_agent = Answer(MeshClient.explain_agent)
    drain_agent = Answer(MeshClient.drain_agent)
    cancel_drain = Answer(MeshClient.cancel_drain)
    resume_agent = Answer(MeshClient.resume_agent)
    disable_agent = Answer(MeshClient.disable_agent)
    enable_agent = Answer(MeshClient.enable_agent)
    remove_agent = Answer(MeshClient.remove_agent)

    def __init__(
        self,
        target: str = DEFAULT_TARGET,
        *,
        organization: str = "default",
        group: str | None = None,
        environment: str | None = None,
        retry_for_s: float = RETRY_FOR_S,
    ) -> None:
        self.asynchronous = MeshClient(
            target, organization=organization, group=group, environment=environment, retry_for_s=retry_for_s
        )
        self.loop = asyncio.new_event_loop()
        self._pid = os.getpid()
        self._thread = threading.Thread(target=_run, args=(self.loop,), name="mesh-client", daemon=True)
        self._thread.start()
        self._finalizer = weakref.finalize(self, _end, self.asynchronous, self.loop, self._thread, self._pid)

    @property
    def organization(self) -> str:
        """Whose jobs and groups this is about."""
        return self.asynchronous.organization

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connection and the thread. Whoever waits for a job is told. May be called twice."""
        self._finalizer()

    def submit(self, operation: str, payload: bytes = b"", **options: Unpack[SpecOptions]) -> SyncJobFuture:
        """Submit one job; it is durable when this returns. Raises the error if it is refused."""
        return SyncJobFuture(self, self.run(self.asynchronous.submit(operation, payload, **options)))

    def future(self, job_id: str | bytes) -> SyncJobFuture:
        """A job that was submitted before, by whomever. Waiting raises NotFoundError if there is none."""
        return SyncJobFuture(self, self.asynchronous.future(job_id))

    def submit_stream(
        self, specs: Iterable[JobSpec], *, window: int = 16, batch_jobs: int = 256
    ) -> Iterator[SubmittedJob]:
        """Submit many jobs, pipelined; answers in order, as they come. See `MeshClient.submit_stream`."""

        def answers(given: Iterable[JobSpec] | AsyncIterable[JobSpec]) -> AsyncIterator[SubmittedJob]:
            return self.asynchronous.submit_stream(given, window=window, batch_jobs=batch_jobs)

        if isinstance(specs, Sequence):
            yield from _Pump(self, lambda: answers(specs)).items()
            return
        self._check()
        read = Source(specs, self.loop)
        try:
            yield from _Pump(self, lambda: answers(read)).items()
        finally:
            read.close()

    def map(
        self,
        operation: str,
        items: Iterable[ItemT],
        *,
        concurrency: int = CONCURRENCY,
        ordered: bool = True,
        failures: Literal["raise", "yield"] = "raise",
        progress: bool | Tell = False,
        **options: Unpack[SpecOptions],
    ) -> Iterator[Mapped[ItemT]]:
        """Run an operation over many inputs, of which `items` may have endlessly many. See `MeshClient.map`."""
        self._check()
        # The loop takes outcomes ahead of the thread, so it is the source that counts what the thread has taken.
        read = held_source(items, self.loop, concurrency)

        def outcomes() -> AsyncIterator[Mapped[ItemT]]:
            return self.asynchronous.map(
                operation,
                read,
                concurrency=concurrency,
                ordered=ordered,
                failures=failures,
                progress=progress,
                **options,
            )

        try:
            for mapped in _Pump(self, outcomes).items():
                read.give_back()
                yield mapped
        finally:
            read.close()

    def as_completed(self, jobs: Iterable[SyncJobFuture], timeout_s: float | None = None) -> Iterator[SyncJobFuture]:
        """The jobs in the order in which they end, each done. Raises MeshTimeoutError if that takes too long."""
        known = {job.asynchronous: job for job in jobs}
        ended = _Pump(self, lambda: self.asynchronous.as_completed(known, timeout_s))
        return (known[job] for job in ended.items())

    def run(self, work: Coroutine[object, object, T]) -> T:
        """The result of a coroutine in the client's event loop. An interrupt (Ctrl-C) cancels it."""
        return self.finish(self.begin(work))

    def finish(self, future: concurrent.futures.Future[T]) -> T:
        """The result of what was begun. Raises RuntimeError if the client was closed meanwhile."""
        try:
            while not future.done():
                concurrent.futures.wait((future,), LOOK_UP_S)
            return future.result()
        except concurrent.futures.CancelledError:
            self._check()
            raise
        except BaseException:
            future.cancel()
            raise

    def begin(self, work: Coroutine[object, object, T]) -> concurrent.futures.Future[T]:
        """A coroutine that runs in the client's event loop from now on."""
        try:
            self._check()
        except RuntimeError:
            work.close()
            raise
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        # Whoever holds what was begun holds the client, which must not close itself before.
        future.add_done_callback(self._held)
        return future

    def _held(self, begun: concurrent.futures.Future[T]) -> None:
        """Nothing: the reference is what counts."""

    def _check(self) -> None:
        if self._pid != os.getpid():
            raise RuntimeError("this client was made before a fork, which it does not cross; make a new one here")
        if not self._finalizer.alive:
            raise RuntimeError("this client is closed; make a new one")
        if threading.current_thread() is self._thread:
            raise RuntimeError("this would wait for itself: what the client's own loop calls may not wait for it")


def _run(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


def _end(client: MeshClient, loop: asyncio.AbstractEventLoop, thread: threading.Thread, pid: int) -> None:
    """End connection, loop and thread. Must not hold the sync client, whose end it is."""
    if os.getpid() != pid:
        return

    async def end() -> None:
        await client.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await loop.shutdown_asyncgens()

    ending = asyncio.run_coroutine_threadsafe(end(), loop)
    if threading.current_thread() is thread:
        # Nobody held the client any more, and the loop's own thread noticed.
        ending.add_done_callback(lambda _: loop.stop())
        return
    concurrent.futures.wait((ending,), CLOSE_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(CLOSE_S)


class _End:
    """After the last item."""


class _Pump(Generic[T]):
    """Items of an async iterator for a thread: gathered ahead, so that a flood costs no switch of threads an item."""

    def __init__(self, client: SyncMeshClient, source: Callable[[], AsyncIterator[T]]) -> None:
        self._client = client
        self._source = source
        self._items: queue.SimpleQueue[T | _End] = queue.SimpleQueue()
        self._is_full = False
        self._room = asyncio.Event()

    def items(self) -> Iterator[T]:
        """All items; then what the source raised, if it did."""
        pumping = self._client.begin(self._fill())
        try:
            while not isinstance(item := self._take(pumping), _End):
                yield item
            self._client.finish(pumping)
        finally:
            pumping.cancel()

    def _take(self, pumping: "concurrent.futures.Future[None]") -> T | _End:
        while True:
            is_last = pumping.done()
            try:
                item = self._items.get(timeout=LOOK_UP_S)
            except queue.Empty:
                if is_last:
                    return _End()
                continue
            if self._is_full and self._items.qsize() <= AHEAD_MAX // 2 and not self._client.loop.is_closed():
                self._is_full = False
                self._client.loop.call_soon_threadsafe(self._room.set)
            return item

    async def _fill(self) -> None:
        try:
            async for item in self._source():
                self._items.put(item)
                if self._items.qsize() >= AHEAD_MAX:
                    self._room.clear()
                    self._is_full = True
                    # Whoever takes may have been faster than this was said: then nobody would say that there is room.
                    if self._items.qsize() > AHEAD_MAX // 2:
                        await self._room.wait()
        finally:
            self._items.put(_End())
