"""Virtual time: SimPy's, in whole microseconds as the dispatcher's (ADR 0005)."""

from collections.abc import Callable
from heapq import heappush
from typing import Any

import simpy
from simpy.events import NORMAL

Call = Callable[[Any], None]
"""What is called at its time, with the `After`."""


class After(simpy.Event):
    """A timeout with its one callback: per-message work has no process of its own. `subject` is what it is about."""

    def __init__(self, clock: "Clock", call: Call, subject: Any) -> None:
        self.env = clock
        self.callbacks = [call]
        self.subject = subject
        self._value = None
        self._ok = True


class Clock(simpy.Environment):
    """The clock of one run."""

    _now: int

    def __init__(self) -> None:
        super().__init__(0)

    @property
    def now_us(self) -> int:
        """Engine time."""
        return self._now

    def after(self, delay_us: int, call: Call, subject: Any = None) -> None:
        """Call in so many microseconds. There is no cancel: what is called looks whether it still counts."""
        heappush(self._queue, (self._now + delay_us, NORMAL, next(self._eid), After(self, call, subject)))
