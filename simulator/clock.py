"""Virtual time: SimPy's, in whole microseconds as the dispatcher's (ADR 0005).

Long-lived actors are SimPy processes. What happens for each message stands in SimPy's calendar without an event of its
own: what to call, and with what. `advance` plays both, in one order.
"""

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

import simpy
from simpy.events import NORMAL

Call = Callable[[Any], None]
"""What is called at its time, with its subject."""


class Clock(simpy.Environment):
    """The clock of one run. `now_us` is engine time."""

    _now: int
    _queue: list[Any]
    """(time, priority, number, event) of SimPy's events; (time, priority, number, call, subject) of ours."""

    def __init__(self) -> None:
        super().__init__(0)
        self.now_us = 0

    def after(self, delay_us: int, call: Call, subject: Any = None) -> None:
        """Call in so many microseconds. There is no cancel: what is called looks whether it still counts."""
        heappush(self._queue, (self.now_us + delay_us, NORMAL, next(self._eid), call, subject))

    def at(self, at_us: int, call: Call, subject: Any = None) -> None:
        """Call then, which must not be over."""
        heappush(self._queue, (at_us, NORMAL, next(self._eid), call, subject))

    def advance(self, until_us: int) -> None:
        """Everything that happens before then; then it is that time."""
        queue, step = self._queue, self.step
        while queue:
            first = queue[0]
            if first[0] >= until_us:
                break
            if len(first) == 5:
                heappop(queue)
                self._now = self.now_us = first[0]
                first[3](first[4])
            else:
                step()
        self._now = self.now_us = until_us

    def step(self) -> None:
        """The next thing that happens, whose ever it is."""
        if self._queue and len(self._queue[0]) == 5:
            self._now, _, _, call, subject = heappop(self._queue)
            self.now_us = self._now
            call(subject)
        else:
            if self._queue:
                self.now_us = self._queue[0][0]  # what SimPy calls next reads it
            super().step()
