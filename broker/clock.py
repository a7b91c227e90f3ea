"""Engine time: whole microseconds since the epoch that never step (ADR 0005).

The wall clock is read once, at start; from then on the monotonic clock counts. A start before the last committed time
would make old deadlines young again, so it is refused beyond a small tolerance.
"""

import time
from collections.abc import Callable
from typing import Final

SECOND_US: Final = 1_000_000
BACKWARDS_TOLERANCE_US: Final = 5 * SECOND_US


class ClockBehindError(ValueError):
    """The wall clock is far behind what was committed; the text names both times."""


class EngineClock:
    """Engine time from a wall clock read once and a monotonic clock, both in nanoseconds."""

    def __init__(
        self,
        wall_ns: Callable[[], int] = time.time_ns,
        monotonic_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._monotonic_ns = monotonic_ns
        self._offset_ns = wall_ns() - monotonic_ns()
        self._floor_us = 0

    def now_us(self) -> int:
        """The time now; never less than what was returned or committed before."""
        now_us = (self._monotonic_ns() + self._offset_ns) // 1_000
        if now_us < self._floor_us:
            return self._floor_us
        self._floor_us = now_us
        return now_us

    def resume_from(self, last_committed_us: int) -> None:
        """Never go behind what an earlier process committed. Raises ClockBehindError beyond the tolerance."""
        now_us = self.now_us()
        if now_us + BACKWARDS_TOLERANCE_US < last_committed_us:
            raise ClockBehindError(
                f"the clock of this machine says {now_us / SECOND_US:.3f} s, but the store was written at "
                f"{last_committed_us / SECOND_US:.3f} s (Unix time): set the clock right, then start again"
            )
        self._floor_us = max(self._floor_us, last_committed_us)
