"""How long an agent waits before it dials again: full jitter, so that a fleet never comes back in step.

The first delay is uniform in [0, 0.1 s]; the range doubles with each failure up to 30 s and starts again after a
session that lasted a second. A broker says how long it waits for its agents after a start: from then on the range
ends earlier, so that an agent with work in hand is back in time. A broker that answers and names a time knows who else
comes: the range that grew while nobody answered is not added to that, but begins anew. Pure: the generator is passed
in.
"""

from typing import Protocol

FIRST_S = 0.1
CAP_S = 30.0
STEADY_S = 1.0
"""A broker whose sessions end sooner is no better than one that does not answer. Any longer, and the agents of one that
dies every few seconds stay away for most of the time that it lives."""


class Random(Protocol):
    """A source of numbers in [0, 1), such as `random.Random`."""

    def random(self) -> float: ...


class Backoff:
    """The delays of one agent. `first_s` and `cap_s` bound the range that a delay is drawn from."""

    def __init__(self, random: Random, first_s: float = FIRST_S, cap_s: float = CAP_S) -> None:
        if not 0 < first_s <= cap_s:
            raise ValueError(f"back-off needs 0 < first ({first_s}) <= cap ({cap_s})")
        self._random = random
        self._first_s = first_s
        self._cap_s = self._widest_s = cap_s
        self._range_s = first_s
        self._was_asked = False

    def next_delay_s(self, retry_after_s: float = 0.0) -> float:
        """The next delay in seconds: never before `retry_after_s`, which the peer asked for, and jittered beyond it."""
        is_asked = retry_after_s > 0
        if is_asked and not self._was_asked:
            self.reset()
        self._was_asked = is_asked
        delay_s = max(retry_after_s, 0.0) + self._random.random() * self._range_s
        self._range_s = min(self._range_s * 2, self._cap_s)
        return delay_s

    def bound(self, cap_s: float) -> None:
        """Draw from no wider range than this; never wider than at first, and 0 says nothing."""
        if cap_s > 0:
            self._cap_s = max(self._first_s, min(cap_s, self._widest_s))
            self._range_s = min(self._range_s, self._cap_s)

    def session_over(self, lasted_s: float) -> None:
        """A session of so many seconds has ended: after one that lasted, begin again with the first range."""
        if lasted_s >= STEADY_S:
            self.reset()

    def reset(self) -> None:
        """Begin again with the first range."""
        self._range_s = self._first_s
