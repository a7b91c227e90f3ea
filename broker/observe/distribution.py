"""Observations in the buckets of a histogram, counted a batch at a time.

Values are numbers of a small unit (microseconds), because whole numbers sort and add fastest; the page has the unit of
the series. A batch is sorted once and cut at each bound, which costs a twentieth of a microsecond a value.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import Final

from broker.series import Series

MICRO: Final = 1_000_000


class Distribution:
    """One histogram. Values are given in `per_unit`-ths of the unit of the series."""

    __slots__ = ("_bounds", "_counts", "_labels", "_per_unit", "_sum")

    def __init__(self, one: Series, per_unit: int = 1) -> None:
        self._per_unit = per_unit
        self._bounds = [bound * per_unit for bound in one.buckets]
        self._counts = [0] * (len(one.buckets) + 1)
        self._sum: float = 0
        self._labels = [*(str(bound) for bound in one.buckets), "+Inf"]

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    @property
    def total(self) -> float:
        """The sum of all values, in the unit of the series."""
        return self._sum / self._per_unit

    def add(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_all(self, values: list[int]) -> None:
        """Count many values; the list is sorted by it."""
        if len(values) < len(self._counts):
            self._add_each(values)
            return
        values.sort()
        self._sum += sum(values)
        self._counts = [known + new for known, new in zip(self._counts, _between(values, self._bounds), strict=True)]

    def _add_each(self, values: Iterable[int]) -> None:
        for value in values:
            self._counts[bisect_left(self._bounds, value)] += 1
            self._sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Upper bound and how many values do not exceed it, as Prometheus reads them."""
        return list(zip(self._labels, map(float, accumulate(self._counts)), strict=True))


def _between(ordered: Sequence[int], bounds: Sequence[float]) -> list[int]:
    """How many of the ordered values lie in each bucket."""
    cuts = [0, *(bisect_right(ordered, bound) for bound in bounds), len(ordered)]
    return [after - before for before, after in pairwise(cuts)]
