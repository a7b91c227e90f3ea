"""Latencies by the hundred million in kilobytes: buckets that are 1 % wide, mergeable, with exact count, sum and ends.

A quantile is interpolated inside its bucket, so it is wrong by far less than a bucket wherever values lie densely.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import ceil, inf, log
from typing import Final

import numpy as np
import numpy.typing as npt

WIDTH: Final = 0.01
"""Each bucket's upper bound is this share above its lower one."""
LEAST_S: Final = 1e-6
"""Everything below is one bucket: engine time has whole microseconds."""
_STEP: Final = log(1 + WIDTH)
BUCKETS: Final = 2 + ceil(log(1e10 / LEAST_S) / _STEP)


def buckets_of(values: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The numbers of the buckets of values in seconds."""
    with np.errstate(divide="ignore"):
        steps = np.floor(np.log(values / LEAST_S) / _STEP)
    numbers: npt.NDArray[np.int64] = np.clip(steps + 1, 0, BUCKETS - 1).astype(np.int64)
    return numbers


def _no_counts() -> npt.NDArray[np.int64]:
    return np.zeros(BUCKETS, np.int64)


@dataclass(slots=True, eq=False)
class Histogram:
    """Counts of values in seconds, at least 0."""

    counts: npt.NDArray[np.int64] = field(default_factory=_no_counts)
    count: int = 0
    total: float = 0.0
    least: float = inf
    most: float = 0.0

    def add(self, values: npt.NDArray[np.float64]) -> None:
        """Take in values, in seconds."""
        if not len(values):
            return
        self.counts += np.bincount(buckets_of(values), minlength=BUCKETS)
        self.count += len(values)
        self.total += float(values.sum())
        self.least = min(self.least, float(values.min()))
        self.most = max(self.most, float(values.max()))

    def merge(self, others: Iterable["Histogram"]) -> "Histogram":
        """This one and others in one, as if all values had gone into it."""
        whole = Histogram()
        for one in (self, *others):
            whole.counts += one.counts
            whole.count += one.count
            whole.total += one.total
            whole.least = min(whole.least, one.least)
            whole.most = max(whole.most, one.most)
        return whole

    @property
    def mean(self) -> float:
        """The mean in seconds; 0 when there is none."""
        return self.total / self.count if self.count else 0.0

    def quantile(self, share: float, never: int = 0) -> float:
        """The value in seconds that `share` of all do not pass; 0 when there is none.

        With `never` so many further values count that are above all others, and infinite if it is one of them.
        """
        if not self.count + never:
            return 0.0
        rank = share * (self.count + never)
        if rank > self.count:
            return inf
        sums = np.cumsum(self.counts)
        number = min(int(np.searchsorted(sums, rank)), BUCKETS - 1)
        inside = int(self.counts[number])
        part = (rank - (int(sums[number]) - inside)) / inside if inside else 0.0
        if number == 0:
            return self.least
        low = LEAST_S * (1 + WIDTH) ** (number - 1)
        return min(self.most, max(self.least, low * (1 + WIDTH * part)))

    def share_above(self, value: float) -> float:
        """The share of values above this one, interpolated inside its bucket; 0 when there is none."""
        if not self.count:
            return 0.0
        (number,) = buckets_of(np.asarray([max(value, LEAST_S / 2)])).tolist()
        low = LEAST_S * (1 + WIDTH) ** (number - 1)
        part = min(1.0, max(0.0, (value / low - 1) / WIDTH)) if number else 1.0
        return (int(self.counts[number + 1 :].sum()) + (1 - part) * int(self.counts[number])) / self.count

    def as_sparse(self) -> "Sparse":
        """What a document keeps of it: the buckets that are not empty."""
        full = np.flatnonzero(self.counts)
        return Sparse(full.tolist(), self.counts[full].tolist(), self.total, self.least, self.most)


@dataclass(slots=True, frozen=True)
class Sparse:
    """A histogram to be written down: numbers of buckets that are not empty, and how many values each has."""

    buckets: list[int]
    counts: list[int]
    total: float
    least: float
    most: float

    def whole(self) -> Histogram:
        """The histogram that it was."""
        counts = _no_counts()
        counts[self.buckets] = self.counts
        return Histogram(counts, sum(self.counts), self.total, self.least, self.most)
