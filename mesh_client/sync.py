"""The same client for programs without an event loop.

Nothing is written twice: each method hands its arguments to `MeshClient` in the event loop of one background thread
and waits. The descriptors below keep the signatures, so the type checker knows them.
"""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from types import TracebackType
from typing import Concatenate, Final, Generic, ParamSpec, Self, TypeVar, overload

from mesh_client.client import DEFAULT_TARGET, RETRY_FOR_S, MeshClient

P = ParamSpec("P")
T = TypeVar("T")

AHEAD_MAX: Final = 1_024


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


class SyncMeshClient:
    """`MeshClient` for programs without an event loop: the same methods, which block. May be used by many threads.

    A source given to `submit_stream` is read in the background thread.
    """

    submit = Answer(MeshClient.submit)
    submit_many = Answer(MeshClient.submit_many)
    submit_stream = Stream(MeshClient.submit_stream)
    get = Answer(MeshClient.get)
    wait = Answer(MeshClient.wait)
    follow = Stream(MeshClient.follow)
    watch = Stream(MeshClient.watch)
    cancel = Answer(MeshClient.cancel)
    requeue = Answer(MeshClient.requeue)
    resolve_held = Answer(MeshClient.resolve_held)
    explain = Answer(MeshClient.explain)
    list = Stream(MeshClient.list)
    create_organization = Answer(MeshClient.create_organization)
    get_organization = Answer(MeshClient.get_organization)
    list_organizations = Stream(MeshClient.list_organizations)
    create_environment = Answer(MeshClient.create_environment)
    get_environment = Answer(MeshClient.get_environment)
    list_environments = Stream(MeshClient.list_environments)
    create_group = Answer(MeshClient.create_group)
    get_group = Answer(MeshClient.get_group)
    list_groups = Stream(MeshClient.list_groups)
    get_agent = Answer(MeshClient.get_agent)
    list_agents = Stream(MeshClient.list_agents)
    create_agent = Answer(MeshClient.create_agent)
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
        self._thread = threading.Thread(target=self.loop.run_forever, name="mesh-client", daemon=True)
        self._thread.start()

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
        """End the connection and the thread. May be called twice."""
        if self.loop.is_closed():
            return
        self.run(self._end())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()

    def run(self, work: Coroutine[object, object, T]) -> T:
        """The result of a coroutine in the client's event loop. An interrupt (Ctrl-C) cancels it."""
        if self.loop.is_closed():
            work.close()
            raise RuntimeError("this client is closed; make a new one")
        future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    async def _end(self) -> None:
        await self.asynchronous.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.loop.shutdown_asyncgens()


class _Pump(Generic[T]):
    """Items of an async iterator for a thread: gathered ahead, so that a flood costs no switch of threads an item."""

    def __init__(self, client: SyncMeshClient, source: Callable[[], AsyncIterator[T]]) -> None:
        self._client = client
        self._source = source
        self._ready = threading.Condition()
        self._items: deque[T] = deque()
        self._is_ended = False
        self._room = asyncio.Event()

    def items(self) -> Iterator[T]:
        """All items; then what the source raised, if it did."""
        pumping = asyncio.run_coroutine_threadsafe(self._fill(), self._client.loop)
        try:
            while items := self._take():
                yield from items
            pumping.result()
        finally:
            pumping.cancel()

    def _take(self) -> list[T]:
        with self._ready:
            self._ready.wait_for(lambda: self._items or self._is_ended)
            items = list(self._items)
            self._items.clear()
        if not self._is_ended:
            self._client.loop.call_soon_threadsafe(self._room.set)
        return items

    async def _fill(self) -> None:
        try:
            async for item in self._source():
                with self._ready:
                    self._items.append(item)
                    self._ready.notify()
                while len(self._items) >= AHEAD_MAX:
                    self._room.clear()
                    await self._room.wait()
        finally:
            with self._ready:
                self._is_ended = True
                self._ready.notify()
