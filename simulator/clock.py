"""Virtual time: in whole microseconds as the dispatcher's (ADR 0005), one calendar for SimPy and what is not SimPy's.

Long-lived actors are SimPy processes (`actors`). What happens for each message stands in SimPy's calendar without an
event of its own: what to call, and with what. `advance` plays both, in one order.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any, Final

from simulator.actors import Actors

NORMAL: Final = 1
"""The priority of SimPy's events (`simpy.events.NORMAL`)."""

Call = Callable[[Any], None]
"""What is called at its time, with its subject."""


class Clock:
    """The clock of one run. `now_us` is engine time."""

    __slots__ = ("_calendar", "_numbers", "actors", "now_us")

    def __init__(self) -> None:
        self.now_us = 0
        self.actors = Actors(self)
        self._calendar = self.actors.calendar
        """(time, priority, number, event) of SimPy's events; (time, priority, number, call, subject) of ours."""
        self._numbers = self.actors.numbers

    def after(self, delay_us: int, call: Call, subject: Any = None) -> None:
        """Call in so many microseconds. There is no cancel: what is called looks whether it still counts."""
        heappush(self._calendar, (self.now_us + delay_us, NORMAL, next(self._numbers), call, subject))

    def at(self, at_us: int, call: Call, subject: Any = None) -> None:
        """Call then, which must not be over."""
        heappush(self._calendar, (at_us, NORMAL, next(self._numbers), call, subject))

    def advance(self, until_us: int) -> None:
        """Everything that happens before then; then it is that time."""
        calendar = self._calendar
        while calendar:
            first: tuple[Any, ...] = calendar[0]
            if first[0] >= until_us:
                break
            if len(first) == 5:
                heappop(calendar)
                self.now_us = first[0]
                first[3](first[4])
            else:
                self.actors.step()
        self.now_us = until_us
