"""Whose requests are worked next in the event loop: sources in turns, a slice at a time.

The loop runs whatever is ready before it looks for anything new, so the work of somebody who has sent a great deal
would stand in front of everybody else's frame, call and commit (promise P10). Here no more than about one slice of such
work is done in each pass of the loop. Nothing waits for a timer: whoever is alone has every pass.
"""

import asyncio
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

SLICE: Final = 128
"""Jobs or reports: about a millisecond."""


def slices(items: Iterable[T]) -> Iterator[list[T]]:
    """So much of them as one turn is for."""
    rest = iter(items)
    while part := list(islice(rest, SLICE)):
        yield part


class Turns:
    """Use from one event loop only."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, deque[tuple[int, asyncio.Future[None]]]] = {}  # whose turn it is comes first
        self._left = SLICE
        self._is_armed = False

    async def take(self, source: Hashable, size: int) -> None:
        """Return when it is the turn of this source to work so many jobs or reports, `SLICE` at most."""
        if not self._waiting and self._left > 0:
            self._spend(size)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(source, deque()).append((size, turn))
        self._arm()
        await turn

    def _spend(self, size: int) -> None:
        self._left -= size
        self._arm()

    def _arm(self) -> None:
        if not self._is_armed:
            self._is_armed = True
            asyncio.get_running_loop().call_soon(self._pass)

    def _pass(self) -> None:
        """The loop has come round: the next ones may work."""
        self._is_armed = False
        self._left = SLICE
        while self._waiting and self._left > 0:
            source, waiting = next(iter(self._waiting.items()))
            size, turn = waiting.popleft()
            del self._waiting[source]
            if waiting:
                self._waiting[source] = waiting  # behind the others
            if not turn.done():  # nobody waits for it any more
                turn.set_result(None)
                self._spend(size)
