"""How fast agents are let in: at most so many a second, in the order in which they came.

A Hello costs a step and its part of a commit, and after a start of the broker, or a cut of the network, thousands come
at once. Whoever comes too early waits for its turn on the stream that stands already. To send it away would cost both
sides a connection more, and what it came back to would be a race again. Only who would wait too long is sent away, each
with a time that is later than that of the one before: they come back in a line, and not all at once. An agent that is
live and is to say Hello again is asked for it when its turn comes.
"""

import time
from typing import Final, NamedTuple

IN_HAND_S: Final = 1.0
"""A broker that nobody asked for a while lets so much of its rate in at once."""
WAIT_S_MAX: Final = 5.0
"""An agent leaves the stream when Hello was not answered for 15 s."""
LATER_S_MAX: Final = 15.0
"""Beyond the longest wait nobody is sent away for longer: whoever makes the line long must not keep others out."""


class Turn(NamedTuple):
    """When one that asks is let in: in so many seconds, or, if it is not booked, when it is to ask again."""

    in_s: float
    is_booked: bool


class Admission:
    """Lets in `per_s` a second. Nobody waits longer than `wait_s`."""

    def __init__(self, per_s: int, wait_s: float = WAIT_S_MAX) -> None:
        self._gap_s = 1 / per_s
        self._wait_s = min(wait_s, WAIT_S_MAX)
        self._taken_s = 0.0  # all turns until then are taken
        self._later_s = 0.0  # when the last one that was sent away is to come again

    def turn(self) -> Turn:
        """The next one. It is taken then, also if whoever asked does not wait for it in the end."""
        due_s = self._due_s()
        if due_s > self._wait_s:
            return Turn(self._put_off_s(), is_booked=False)
        self._taken_s += self._gap_s
        return Turn(max(due_s, 0.0), is_booked=True)

    def _due_s(self) -> float:
        """In how many seconds the next one may come."""
        now_s = time.monotonic()
        self._taken_s = max(self._taken_s, now_s - IN_HAND_S)
        return self._taken_s + self._gap_s - now_s

    def _put_off_s(self) -> float:
        now_s = time.monotonic()
        full_s = now_s + self._wait_s
        self._later_s = min(max(self._later_s, full_s) + self._gap_s, full_s + LATER_S_MAX)
        return self._later_s - now_s
