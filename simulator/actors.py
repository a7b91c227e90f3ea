"""SimPy's side of virtual time: processes, events and resources of long-lived actors."""

from typing import TYPE_CHECKING, Any

import simpy

if TYPE_CHECKING:
    from itertools import count

    from simulator.clock import Clock


class Actors(simpy.Environment):
    """What SimPy's processes live in. Its time is the clock's, and what happens next may be the clock's, too."""

    _queue: list[Any]
    _eid: "count[int]"

    def __init__(self, clock: "Clock") -> None:
        self._clock = clock
        super().__init__(0)

    @property
    def calendar(self) -> list[Any]:
        """(time, priority, number, event) of what SimPy has to do; the clock's calls stand there as well."""
        return self._queue

    @property
    def numbers(self) -> "count[int]":
        """What numbers the entries of the calendar: who came first goes first."""
        return self._eid

    @property
    def _now(self) -> int:
        return self._clock.now_us

    @_now.setter
    def _now(self, now_us: int) -> None:
        self._clock.now_us = now_us
