"""How sure a figure is: intervals over replications, and when there are enough of them.

Replications of one scenario are independent, so the mean of any figure over them (a p99 as well) has a Student-t
interval. Two scenarios that saw the same days are compared by the differences day by day, which are much narrower.

What has no mean is not averaged: a backlog that grows makes every figure a matter of how long one looked
(`growth_of`, `Growth.is_unstable`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, isinf, sqrt
from typing import Final

LEVEL: Final = 0.95
STAYS: Final = 3
"""Replications for which precision must hold after it was first reached: a narrow interval may be luck."""
UNSTABLE_SHARE: Final = 0.005
"""Growth below this share of the throughput is not called unstable: a long queue breathes."""
SIGMAS: Final = 3.0
ALIKE: Final = 2.0
"""Replications that spread by more than so many times what counts do are not all of one kind."""
NEARLY_ALL: Final = 0.9


@dataclass(slots=True, frozen=True)
class Interval:
    """The mean of `n` replications and half the width of its interval at `level`; infinite for one replication."""

    mean: float
    half_width: float
    n: int
    level: float = LEVEL

    @property
    def low(self) -> float:
        """Lower end."""
        return self.mean - self.half_width

    @property
    def high(self) -> float:
        """Upper end."""
        return self.mean + self.half_width

    def holds(self, value: float) -> bool:
        """Whether `value` lies in the interval, ends included."""
        return self.low <= value <= self.high

    def is_precise(self, precision: float, scale: float = 0.0) -> bool:
        """Whether the half width is at most the share `precision` of the mean, or of `scale` where that is larger.

        The scale is the bound of an objective: 10 % of a latency of 0.1 s says enough about a bound of 2 s. A mean that
        is infinite stays so, whatever else is seen.
        """
        return isinf(self.mean) or self.half_width <= precision * max(abs(self.mean), abs(scale))


def interval(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The Student-t interval of the mean of independent `values`.

    One value has an infinite half width. Equal values have none, as a figure that cannot vary should.

    Raises:
        ValueError: there are no values.
    """
    n = len(values)
    if n == 0:
        raise ValueError("an interval needs at least one replication")
    mean = sum(values) / n
    if n == 1:
        return Interval(mean, inf, n, level)
    if min(values) == max(values):
        return Interval(values[0], 0.0, n, level)
    variance = sum((value - mean) ** 2 for value in values) / (n - 1)
    return Interval(mean, quantile_t(level, n - 1) * sqrt(variance / n), n, level)


def paired(first: Sequence[float], second: Sequence[float], level: float = LEVEL) -> Interval:
    """The interval of `second - first`, where the values at one place saw the same arrivals and the same work.

    Raises:
        ValueError: the lengths differ, or there are no values.
    """
    return interval([difference(before, after) for before, after in zip(first, second, strict=True)], level)


def difference(before: float, after: float) -> float:
    """`after - before`; what is the same on both sides does not differ, even where it is infinite."""
    return 0.0 if before == after else after - before


def controlled(
    values: Sequence[float], controls: Sequence[Sequence[float]], expected: Sequence[float], level: float = LEVEL
) -> Interval:
    """The interval of the mean of `values`, freed of the chance that they share with controls of known expectation.

    A day with more work than expected has longer queues, and how much more work it had is known exactly. Regression on
    the controls takes that part out (Lavenberg and Welch 1981): the mean stays the mean, the interval narrows.
    `controls` has a sequence for each control, with a value for each of `values`. Controls that hardly vary are left
    out; with too few values for a regression, or where one is infinite, the plain interval is given.
    """
    import numpy as np

    if not all(map(isfinite, values)):
        return interval(values, level)
    spread = [(np.asarray(one) - centre) for one, centre in zip(controls, expected, strict=True)]
    used = [column for column in spread if float(np.std(column)) > 1e-9 * (1e-9 + float(np.max(np.abs(column))))]
    n, degrees = len(values), len(values) - 1 - len(used)
    if not used or degrees < 2 or min(values) == max(values):
        return interval(values, level)
    design = np.column_stack([np.ones(n), *used])
    target = np.asarray(values, dtype=float)
    inverse = np.linalg.pinv(design.T @ design)
    coefficients = inverse @ design.T @ target
    residual = target - design @ coefficients
    error = sqrt(max(0.0, float(residual @ residual) / degrees * float(inverse[0, 0])))
    return Interval(float(coefficients[0]), quantile_t(level, degrees) * error, n, level)


def deviation(values: Sequence[float], level: float = LEVEL) -> Interval:
    """The interval of the standard deviation of `values`, by the jackknife.

    Raises:
        ValueError: there are fewer than three values.
    """
    n = len(values)
    if n < 3:
        raise ValueError("a deviation needs at least three replications")
    whole = _deviation(values)
    parts = [n * whole - (n - 1) * _deviation([*values[:at], *values[at + 1 :]]) for at in range(n)]
    return Interval(whole, interval(parts, level).half_width, n, level)


def _deviation(values: Sequence[float]) -> float:
    mean = sum(values) / len(values)
    return sqrt(sum((value - mean) ** 2 for value in values) / (len(values) - 1))


def quantile_t(level: float, degrees: int) -> float:
    """How many standard errors a two-sided interval at `level` reaches, with `degrees` of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, 0.5 + level / 2))


def warm_up(observations: Sequence[float], batch: int = 5) -> int:
    """How many observations to leave out at the start of a steady run: MSER-5.

    The cut that minimises the squared standard error of what is left, over means of `batch` observations, looked for
    in the first half (White 1997). A minimum at the end of that half says that the run never settled; then the whole
    length is returned, and nothing of the run should be averaged.
    """
    means = [sum(observations[at : at + batch]) / batch for at in range(0, len(observations) - batch + 1, batch)]
    if len(means) < 4:
        return len(observations)
    best, best_error = 0, inf
    left_sum = left_squares = 0.0
    centre = sum(means) / len(means)  # squares of small numbers: a mean of 10^6 must not eat the digits
    for cut in range(len(means) - 1, -1, -1):
        value = means[cut] - centre
        left_sum += value
        left_squares += value * value
        n = len(means) - cut
        error = max(0.0, left_squares - left_sum * left_sum / n) / (n * n)
        if cut <= len(means) // 2 and error <= best_error:
            best, best_error = cut, error
    return len(observations) if best == len(means) // 2 else best * batch


@dataclass(slots=True, frozen=True)
class StoppingRule:
    """When a series of replications is long enough: `precision` reached and held for `stays` more.

    `at_least` replications always run, `at_most` never more. Looked at after each replication in their order, so that
    the answer does not depend on how many ran at the same time.
    """

    precision: float
    at_least: int = 5
    at_most: int = 100
    stays: int = STAYS
    level: float = LEVEL

    def is_enough(self, series: Sequence[tuple[Sequence[float], float]]) -> bool:
        """Whether replications may stop. Each of `series` is a figure's values so far, and the scale of its bound.

        Without a figure to be precise about, the least number is enough.
        """
        if not series:
            return True
        n = min(len(values) for values, _ in series)
        if n >= self.at_most:
            return True
        if n < self.at_least + self.stays:
            return False
        return all(self._is_precise(series, n - back) for back in range(self.stays + 1))

    def _is_precise(self, series: Sequence[tuple[Sequence[float], float]], n: int) -> bool:
        return all(interval(values[:n], self.level).is_precise(self.precision, scale) for values, scale in series)


@dataclass(slots=True, frozen=True)
class Growth:
    """How fast the backlog grew, in jobs a second, beside the jobs a second that were finished.

    `noise_per_s` is the standard error that a balanced queue would show: its backlog is a random walk. `spread_per_s`
    is the one that the replications do show (0 for a single one), `low_per_s` the lower end of their interval, and
    `often` the share of them in which it grew by more than is too little to matter.
    """

    per_s: float
    throughput_per_s: float
    noise_per_s: float
    spread_per_s: float = 0.0
    low_per_s: float = inf
    often: float = 1.0

    @property
    def is_unstable(self) -> bool:
        """Whether the growth is neither chance nor too small to matter.

        Replications that differ by more than counts do (bursts: one ends in one, another does not) are taken at their
        word: then the lower end of their own interval has to be above the floor, too, and nearly all have to grow. The
        mean alone will not do: bursts that end in some of them always leave one that is above 0.
        """
        floor = max(SIGMAS * self.noise_per_s, UNSTABLE_SHARE * self.throughput_per_s)
        is_alike = self.spread_per_s <= ALIKE * self.noise_per_s
        return self.per_s > floor and (is_alike or (self.low_per_s > floor and self.often >= NEARLY_ALL))

    def __str__(self) -> str:
        return f"UNSTABLE: backlog grows {self.per_s:.2g} jobs/s"


def growth_of(runs: Sequence[tuple[float, int, float]]) -> Growth:
    """The growth over replications, each as (growth in jobs a second, jobs finished, seconds simulated).

    A queue with as much work as capacity drifts by the difference of two Poisson counts, so its growth over `T`
    seconds at throughput `x` has the standard error sqrt(2 x / T), less the more replications there are.
    """
    seconds = sum(seconds for _, _, seconds in runs)
    if seconds <= 0:
        return Growth(0.0, 0.0, 0.0)
    throughput = sum(jobs for _, jobs, _ in runs) / seconds
    noise = sqrt(2 * throughput / seconds)
    growths = [growth for growth, _, _ in runs]
    if len(growths) == 1:
        return Growth(growths[0], throughput, noise)
    n, seen = len(growths), interval(growths)
    often = sum(growth > UNSTABLE_SHARE * throughput for growth in growths) / n
    return Growth(seen.mean, throughput, noise, _deviation(growths) / sqrt(n), seen.low, often)
