"""Numbers that go up and down over time: their integral, peak, and how long they stay high enough."""

from collections.abc import Sequence
from typing import Final, NamedTuple

NEVER: Final = -1


class Span(NamedTuple):
    """What a level was between two marks. `drain_us`: from the peak until 0; infinite if that never came."""

    mean: float
    peak: int
    drain_us: float


class _Mark(NamedTuple):
    """Where a level stood at a mark, and what was seen since the mark before."""

    at_us: int
    area: int
    peak: int
    peak_us: int
    drained_us: int
    zero_us: int


class Level:
    """A number over time. `mark` cuts it: what was before the first mark counts nowhere, `window` is all after it."""

    __slots__ = ("_drained_us", "_marks", "_peak", "_peak_us", "_since_us", "_zero_us", "area", "value")

    def __init__(self) -> None:
        self.value = 0
        self.area = 0
        self._since_us = 0
        self._peak = 0
        self._peak_us = 0
        self._drained_us = NEVER  # when it first was 0 after its peak, since the latest mark
        self._zero_us = NEVER  # when it first was 0 since the latest mark
        self._marks: list[_Mark] = []

    def add(self, now_us: int, change: int) -> None:
        """It changes now."""
        value = self.value
        self.area += value * (now_us - self._since_us)
        self._since_us = now_us
        value += change
        self.value = value
        if value > self._peak:
            self._peak, self._peak_us, self._drained_us = value, now_us, NEVER
        elif value == 0 and self._drained_us < 0:
            self._drained_us = now_us
            if self._zero_us < 0:
                self._zero_us = now_us

    def mark(self, now_us: int) -> None:
        """The window or a phase of it begins, or the window ends, now."""
        self.add(now_us, 0)
        self._marks.append(self._now())
        self._peak, self._peak_us, self._drained_us = self.value, now_us, NEVER
        self._zero_us = now_us if self.value == 0 else NEVER

    def _now(self) -> _Mark:
        return _Mark(self._since_us, self.area, self._peak, self._peak_us, self._drained_us, self._zero_us)

    def window(self) -> Span:
        """From the first mark to the last; a peak or a drain may come after that."""
        return self._span(0, len(self._marks) - 1, [*self._marks[1:], self._now()])

    def phase(self, number: int) -> Span:
        """From mark `number`, counted from 0, to the next one; it may drain after that."""
        return self._span(number, number + 1, [*self._marks[number + 1 :], self._now()], of=1)

    def _span(self, first: int, last: int, seen: Sequence[_Mark], of: int | None = None) -> Span:
        """The mean between two marks, the peak in the first `of` stretches seen, the drain in any of them."""
        from_us, until_us = self._marks[first].at_us, self._marks[last].at_us
        before, after = self._marks[first].area, self._marks[last].area
        highest = max(range(len(seen[:of])), key=lambda number: seen[number].peak)
        top = seen[highest]
        zeros = [top.drained_us, *(one.zero_us for one in seen[highest + 1 :])]
        drained_us = next((at_us for at_us in zeros if at_us >= 0), NEVER)
        drain_us = 0.0 if top.peak == 0 else float("inf") if drained_us < 0 else float(drained_us - top.peak_us)
        return Span((after - before) / max(1, until_us - from_us), top.peak, drain_us)


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

    def up_until(self, now_us: int) -> int:
        """How long it was enough until now, in microseconds."""
        return self.up_us + (now_us - self._since_us if self._is_up else 0)

    @property
    def share(self) -> float:
        """The share of time in which it was enough."""
        whole_us = self.up_us + self.down_us
        return self.up_us / whole_us if whole_us else 0.0
