"""The event loop of coroutine handlers: in a thread of its own, so that one that blocks leaves the agent its voice."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

Begin = Callable[[], object]
MakeLoop = Callable[[], asyncio.AbstractEventLoop]
Task = asyncio.Task[Any]

CLOSE_WAIT_S = 1.0

log = logging.getLogger("mesh.agent.runner")


class Coroutines:
    """Runs coroutines for the agent's thread. The loop's thread starts with the first of them.

    Args:
        make_loop: makes the event loop.
    """

    def __init__(self, make_loop: MakeLoop) -> None:
        self._make_loop = make_loop
        self._waiting: deque[Begin] = deque()
        self._is_woken = False
        self._is_closed = False
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The event loop; None before the first coroutine."""
        return self._loop

    @property
    def thread_id(self) -> int | None:
        """The thread that the loop runs in."""
        return self._thread.ident if self._thread is not None else None

    def start(self, coroutine: Coroutine[Any, Any, Any], started: Callable[[Task], None]) -> None:
        """Begin a coroutine; `started` is given its task, in the loop's thread."""
        if self._loop is None:
            self._open()
        self._post(lambda: started(self._task_of(coroutine)))

    def cancel(self, task: Task) -> None:
        """Cancel a task of this loop."""
        self._post(task.cancel)

    def close(self) -> None:
        """Cancel all that runs and end the loop; one that is blocked is left behind."""
        if self._loop is not None and self._thread is not None:
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._stop)
            self._thread.join(CLOSE_WAIT_S)

    def _open(self) -> None:
        loop = self._loop = self._make_loop()
        self._thread = threading.Thread(target=self._serve, args=(loop,), name="mesh-coroutines", daemon=True)
        self._thread.start()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            while not self._is_closed:
                _turn(loop)
            self._begin_waiting()
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            if tasks:
                loop.run_until_complete(asyncio.wait(tasks, timeout=CLOSE_WAIT_S))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            loop.close()

    def _stop(self) -> None:
        self._is_closed = True
        asyncio.get_running_loop().stop()

    def _post(self, begin: Begin) -> None:
        # One wake-up for all that gathers meanwhile.
        self._waiting.append(begin)
        if not self._is_woken and self._loop is not None:
            self._is_woken = True
            with suppress(RuntimeError):  # it is closed
                self._loop.call_soon_threadsafe(self._begin_waiting)

    def _begin_waiting(self) -> None:
        self._is_woken = False
        while self._waiting:
            self._waiting.popleft()()

    def _task_of(self, coroutine: Coroutine[Any, Any, Any]) -> Task:
        assert self._loop is not None
        if sys.version_info >= (3, 12):
            # A handler that never waits ends here, without a turn of the loop.
            return asyncio.Task(coroutine, loop=self._loop, eager_start=True)
        return self._loop.create_task(coroutine)


def _turn(loop: asyncio.AbstractEventLoop) -> None:
    """Run the loop until it is stopped, or something in it ends it: a handler may do both, and others run there too."""
    try:
        loop.run_forever()
    except (SystemExit, KeyboardInterrupt):
        log.exception("loop.interrupted")
