"""The accepting loop of a `grpc.aio` server: noticing its end, and keeping what it leaves behind.

When that loop fails it drops the requests for calls that it has handed to gRPC's core, and the core does not know: at
the server's shutdown, which the failure begins, it writes to them, into memory that Python has given to something else
by then. The process goes on with that, or crashes. One path that is not UTF-8 makes the loop fail, so whoever reaches
the port could do it. Here the loop cannot drop its requests: each lives until the core has answered it.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc.aio

ACCEPTING_LOOP: Final = "_server_main_loop"
REQUESTS: Final = frozenset({"_request_call", "_request_registered_call"})

_loops: dict["asyncio.Task[Any]", Callable[[], None]] = {}
"""Accepting loops that run, and whom to tell of their end."""


class _Request(asyncio.Task[Any]):
    """A request for a call. The accepting loop gives it up at its end only, and in vain."""

    def cancel(self, msg: Any | None = None) -> bool:
        giving_up = asyncio.current_task()
        tell = None if giving_up is None else _loops.get(giving_up)
        if tell is None:
            return super().cancel(msg)
        tell()
        return False


def guard(loop: asyncio.AbstractEventLoop) -> None:
    """From now on, requests of servers that start in this event loop live until they are answered."""
    before = loop.get_task_factory()
    if getattr(before, "is_guard", False):
        return

    def factory(running: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        if getattr(coroutine, "__name__", "") in REQUESTS:
            return _Request(coroutine, loop=running, **options)
        if before is None:
            return asyncio.Task(coroutine, loop=running, **options)
        return before(running, coroutine, **options)

    factory.is_guard = True  # type: ignore[attr-defined]  # how it is known again
    loop.set_task_factory(factory)


async def start(server: grpc.aio.Server, on_end: Callable[[], None]) -> None:
    """Start the server. `on_end` is called when its accepting loop ends, once or more often, also if it was stopped."""
    before = asyncio.all_tasks()
    await server.start()
    for task in asyncio.all_tasks() - before:
        if getattr(task.get_coro(), "__name__", "") == ACCEPTING_LOOP:
            _loops[task] = on_end
            task.add_done_callback(_forget)


def _forget(task: "asyncio.Task[Any]") -> None:
    _loops.pop(task)()
