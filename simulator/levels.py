"""Numbers that go up and down over time: their integral, peak, and how long they stay high enough."""

from typing import Final

NEVER: Final = -1


class Level:
    """A number over time. After two `mark`s `mean` is that between them, and `peak` the highest since the first."""

    __slots__ = ("_marks", "_since_us", "area", "drained_us", "peak", "peak_us", "value")

    def __init__(self) -> None:
        self.value = 0
        self.area = 0
        self.peak = 0
        self.peak_us = 0
        self.drained_us = NEVER
        """When it first was 0 after its peak."""
        self._since_us = 0
        self._marks: list[tuple[int, int]] = []

    def add(self, now_us: int, change: int) -> None:
        """It changes now."""
        value = self.value
        self.area += value * (now_us - self._since_us)
        self._since_us = now_us
        value += change
        self.value = value
        if value > self.peak:
            self.peak, self.peak_us, self.drained_us = value, now_us, NEVER
        elif value == 0 and self.drained_us < 0:
            self.drained_us = now_us

    def mark(self, now_us: int) -> None:
        """The window begins, or ends, now."""
        self.add(now_us, 0)
        if not self._marks:
            self.peak, self.peak_us, self.drained_us = self.value, now_us, NEVER
        self._marks.append((now_us, self.area))

    @property
    def mean(self) -> float:
        """The mean over the window."""
        (from_us, before), (to_us, after) = self._marks[0], self._marks[-1]
        return (after - before) / (to_us - from_us)

    @property
    def drain_us(self) -> float:
        """From the peak until it was drained; infinite if it never was."""
        return float("inf") if self.drained_us < 0 < self.peak else float(max(0, self.drained_us - self.peak_us))


class Spells:
    """How long a number is at least `need`, and how long it is not, in turn."""

    __slots__ = ("_is_up", "_since_us", "down_us", "downs", "need", "up_us", "ups")

    def __init__(self, need: int) -> None:
        self.need = need
        self.up_us = self.down_us = 0
        self.ups = self.downs = 0
        """Spells that have ended."""
        self._is_up = False
        self._since_us = 0

    def begin(self, now_us: int) -> None:
        """Forget what was before."""
        self.up_us = self.down_us = self.ups = self.downs = 0
        self._since_us = now_us

    def hear(self, now_us: int, value: int) -> None:
        """The number now."""
        is_up = value >= self.need
        if is_up is not self._is_up:
            self._close(now_us)
            if self._is_up:
                self.ups += 1
            else:
                self.downs += 1
            self._is_up = is_up

    def _close(self, now_us: int) -> None:
        spent_us, self._since_us = now_us - self._since_us, now_us
        if self._is_up:
            self.up_us += spent_us
        else:
            self.down_us += spent_us

    def end(self, now_us: int) -> None:
        """Nothing is heard after now."""
        self._close(now_us)

    @property
    def share(self) -> float:
        """The share of time in which it was enough."""
        whole_us = self.up_us + self.down_us
        return self.up_us / whole_us if whole_us else 0.0
