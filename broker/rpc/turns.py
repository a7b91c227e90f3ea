"""Whose requests are worked next in the event loop: sources in turns, a slice at a time.

The loop runs whatever is ready before it looks for anything new, so the work of somebody who has sent a great deal
would stand in front of everybody else's frame, call and commit (promise P10). Here no more than about one slice of such
work is begun in a pass of the loop. And while others are about who say little, a source rests after a slice, in however
many pieces it came, for about as long as that took, so that the many small steps of a job of theirs do not meet one
slice each; what was refused counts several times, because it was of use to nobody. Whoever is alone has every pass, and
waits for no timer.
"""

import asyncio
from collections import deque
from collections.abc import Hashable, Iterable, Iterator
from itertools import islice
from typing import Final, TypeAlias, TypeVar

from broker.tally import Tally

T = TypeVar("T")
Waiting: TypeAlias = "deque[tuple[int, asyncio.Future[None]]]"

SLICE: Final = 128
"""Jobs or reports: about a millisecond."""
REST_S: Final = 0.001
"""After a slice, while somebody is about who says little."""
FUTILE: Final = 8
"""What was refused is as dear as so many more: whoever floods with that has long rests while others are about. The
healthy have little of it: an agent when it comes back after others were given its work, a submitter before it waits."""


def slices(items: Iterable[T]) -> Iterator[list[T]]:
    """So much of them as one turn is for."""
    rest = iter(items)
    while part := list(islice(rest, SLICE)):
        yield part


class Turns:
    """Use from one event loop only."""

    def __init__(self) -> None:
        self._waiting: dict[Hashable, Waiting] = {}  # whose turn it is comes first
        self._resting: dict[Hashable, Waiting] = {}
        self._left = SLICE
        self._is_armed = False
        self._tally = Tally()
        self._begun: dict[Hashable, int] = {}  # what sources have worked of a slice, in this second
        self._begun_s = 0.0

    async def take(self, source: Hashable, size: int) -> None:
        """Return when it is the turn of this source to work so many jobs or reports."""
        loop = asyncio.get_running_loop()
        if self._tally.note(source, size, loop.time()):
            return  # who says little does not wait
        if not self._waiting and self._left > 0 and source not in self._resting:
            self._spend(source, size, deque())
            return
        turn = loop.create_future()
        queues = self._resting if source in self._resting else self._waiting
        queues.setdefault(source, deque()).append((size, turn))
        self._arm()
        await turn

    def _spend(self, source: Hashable, size: int, waiting: Waiting) -> None:
        """The source works so much now; `waiting` is what it has besides."""
        self._left -= size
        if self._tally.is_anybody_modest() and (rest_s := self._rest_s(source, size)):
            self._resting[source] = waiting
            asyncio.get_running_loop().call_later(rest_s, self._rested, source)
        elif waiting:
            self._waiting[source] = waiting  # behind the others
        self._arm()

    def _rest_s(self, source: Hashable, size: int) -> float:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._begun_s >= 1.0:
            self._begun, self._begun_s = {}, now_s
        worked = self._begun.pop(source, 0) + size
        if worked >= SLICE:
            return REST_S * worked / SLICE
        self._begun[source] = worked
        return 0.0

    def _rested(self, source: Hashable) -> None:
        waiting = self._resting.pop(source)
        if waiting:
            self._waiting[source] = waiting
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
            del self._waiting[source]
            while waiting:
                size, turn = waiting.popleft()
                if not turn.done():  # else nobody waits for it any more
                    turn.set_result(None)
                    self._spend(source, size, waiting)
                    break
