"""Changes of administration one after the other, each to its end.

A change that has begun is carried out, also when who asked for it goes away: a group that is in the store and that
nobody drives would take its name and no jobs. What a change looks at therefore stays as it is until it is made. One
that still waits for its turn when its caller leaves is not made, and no more than `waiting_max` wait.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from broker.errors import FullError

T = TypeVar("T")


class Turn:
    """Whose turn it is. One for all that changes organisations, groups, environments and agents."""

    def __init__(self, waiting_max: int) -> None:
        self._waiting_max = waiting_max
        self._waiting = 0
        self._lock = asyncio.Lock()
        self._running: asyncio.Task[Any] | None = None

    async def carry_out(self, change: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Begin it when its turn has come, and then do it to its end, whatever becomes of the caller.

        Raises FullError if too many wait.
        """
        if self._waiting >= self._waiting_max:
            text = f"{self._waiting_max} changes wait for their turn, as many as may; try again in a moment"
            raise FullError(text, reason="CHANGES_FULL")
        self._waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self._waiting -= 1
        task = self._running = asyncio.create_task(change(), name="change")
        task.add_done_callback(self._end)
        return await asyncio.shield(task)

    def _end(self, _: "asyncio.Task[Any]") -> None:
        self._running = None
        self._lock.release()
