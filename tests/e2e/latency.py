"""How long jobs waited for their acceptance and for their first run, during the faults of a run and after them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from tests.e2e.stored import percentile

Span = tuple[float, float]
"""From when until when, in seconds on the wall clock."""
SHARE: Final = 0.99
SECOND_MS: Final = 1_000.0


def latency_p99_ms(
    submitted_s: Mapping[str, float], reached_s: Mapping[str, Mapping[str, float]], faults: Sequence[Span]
) -> dict[str, float]:
    """Figures such as `accepted_p99_during_ms`: for each of `reached_s`, when every job (by its id) came to that.

    *During*: it waited for it while a fault lasted. *After*: it was submitted when one had ended and none lasted, and
    met none. What a job never reached has no figure, and so has what no job reached, or a run without faults.
    """
    figures, during = {}, _Spans(faults)
    for name, at_s in reached_s.items():
        waits = [(since_s, at_s[key]) for key, since_s in submitted_s.items() if key in at_s]
        for when, waits_ms in (("during", _during(waits, during)), ("after", _after(waits, during))):
            if found := list(waits_ms):
                figures[f"{name}_p99_{when}_ms"] = percentile(found, SHARE)
    return figures


class _Spans:
    """Spans as those that do not overlap, to ask of many waits."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._since_s: list[float] = []
        self._until_s: list[float] = []
        self.first_s = min((until_s for _, until_s in spans), default=float("inf"))
        """When the first of them ends."""
        for since_s, until_s in sorted(spans):
            if self._until_s and since_s <= self._until_s[-1]:
                self._until_s[-1] = max(self._until_s[-1], until_s)
            else:
                self._since_s.append(since_s)
                self._until_s.append(until_s)

    def meet(self, wait: Span) -> bool:
        """Whether the wait and one of them have a moment in common."""
        last = bisect_left(self._since_s, wait[1]) - 1
        return last >= 0 and wait[0] < self._until_s[last]


def _during(waits: Sequence[Span], faults: _Spans) -> Iterator[float]:
    return (_ms(wait) for wait in waits if faults.meet(wait))


def _after(waits: Sequence[Span], faults: _Spans) -> Iterator[float]:
    return (_ms(wait) for wait in waits if wait[0] >= faults.first_s and not faults.meet(wait))


def _ms(wait: Span) -> float:
    return (wait[1] - wait[0]) * SECOND_MS
