"""Figures: a value with its unit, how often it was measured, and how far the rounds lie apart."""

from collections.abc import Sequence
from statistics import median
from typing import TypedDict


class Figure(TypedDict):
    """As in `docs/schemas/bench.json`; `spread` is the largest less the smallest, None for one round."""

    value: float | None
    unit: str
    n: int
    spread: float | None


def figure(values: Sequence[float], unit: str, digits: int = 3) -> Figure:
    """The median of the rounds. Without a round: a figure that says that nothing was measured."""
    if not values:
        return Figure(value=None, unit=unit, n=0, spread=None)
    spread = round(max(values) - min(values), digits) if len(values) > 1 else None
    return Figure(value=round(median(values), digits), unit=unit, n=len(values), spread=spread)


def jain(counts: Sequence[float]) -> float:
    """Jain's index: 1 if all have the same, 1 / n if one has all."""
    squares = len(counts) * sum(count * count for count in counts)
    return sum(counts) ** 2 / squares if squares else 0.0


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that `share` of the ordered values do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
