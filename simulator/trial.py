"""One case of the truth table as something to run: a scenario, and how each figure is read off its replications."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, log, sqrt
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from broker.errors import ConfigError
from simulator.experiments import Outcome
from simulator.statistics import Interval, controlled, deviation, interval

Tree = dict[str, Any]
"""A scenario as a file would say it."""
GROUP: Final = "group"
WORK: Final = "work"


class NotExpressedError(ConfigError):
    """A case whose set-up has no scenario; the text says what is missing."""

    reason = "NOT_EXPRESSED"


@dataclass(slots=True, frozen=True)
class Evidence:
    """The replications of a trial, the controls that go with them, and the level that intervals are wanted at."""

    outcomes: Sequence[Outcome]
    controls: Mapping[str, float]
    level: float
    variances: Mapping[str, float] = field(default_factory=dict)
    """Of those controls that have a known one."""

    def values(self, figure: str) -> list[float]:
        """One for each replication."""
        return [outcome.figures[figure] for outcome in self.outcomes]

    def mean(self, values: Sequence[float], figure: str = "") -> Interval:
        """The interval of the mean of one value for each replication, by the controls where there are any.

        No more controls than a third of the replications: each costs a degree of freedom. That which is like the
        figure goes first, then those that say most; one that is the figure itself would say what it is asked.
        """
        alike = twin_of(figure, self.controls)
        others = [name for name in self.controls if not is_the_same(values, self.values(name))]
        used = sorted(others, key=lambda name: name != alike)[: len(values) // 3]
        return controlled(
            values, [self.values(name) for name in used], [self.controls[name] for name in used], self.level
        )


TWINS: Final = {
    "wait.mean": "neighbour.wait",
    "wait.share": "neighbour.waits",
    "latency.mean": "neighbour.sojourn",
    "latency.p95": "neighbour.tail.p95",
    "latency.p99": "neighbour.tail.p99",
    "backlog.mean": "neighbour.wait",
    "day.mean": "day.mean",
    "day.peak": "day.peak",
    "day.lag": "day.lag",
    "backlog.peak": "pile.work",
    "backlog.drain": "pile.drain",
    "attempts.over3": "restarts.tried",
}


def twin_of(figure: str, controls: Mapping[str, float]) -> str:
    """The control that is to a neighbour what the figure is to the case, if there is one: of its work, or of all."""
    work, _, rest = figure.partition(".")
    named = TWINS.get(rest) or TWINS.get(figure)
    return next((name for name in (f"control.{work}.{named}", f"control.{named}") if name in controls), "")


def is_the_same(values: Sequence[float], control: Sequence[float]) -> bool:
    """Whether a control is a figure in another scale."""
    if min(values) == max(values) or min(control) == max(control):
        return False
    return abs(float(np.corrcoef(values, control)[0, 1])) > 1 - 1e-6


class Estimate(Protocol):
    """How a figure of the table is read off replications."""

    def __call__(self, evidence: Evidence, /) -> Interval:
        """Its interval. Raises KeyError for a figure that the runs do not have."""
        ...


@dataclass(slots=True, frozen=True)
class Mean:
    """The mean of one figure, moved and scaled: (figure + `shift`) x `factor`."""

    figure: str
    shift: float = 0.0
    factor: float = 1.0

    def __call__(self, evidence: Evidence) -> Interval:
        values = [(value + self.shift) * self.factor for value in evidence.values(self.figure)]
        return evidence.mean(values, self.figure)


STEPS: Final = tuple(1.02**step for step in range(-10, 11))
"""Where a quantile is looked for, times that of a neighbour."""


def above(quantile: str, limit_s: float) -> str:
    """What the share is called that took longer than this, for a quantile near there."""
    return f"{quantile}.above.{limit_s!r}"


@dataclass(slots=True, frozen=True)
class Quantile:
    """The quantile of all replications in one: the time that `share` of the jobs exceed, freed of chance.

    The share above a limit is a mean, so that controls work on it as on any other (Hsu and Nelson 1990), and a few long
    queues do not bend it. Where no such shares were seen, it is the mean of the quantiles of the replications.
    """

    figure: str
    share: float

    def __call__(self, evidence: Evidence) -> Interval:
        before: tuple[float, Interval] | None = None
        for limit_s in self._limits_s(evidence):
            here = limit_s, evidence.mean(evidence.values(above(self.figure, limit_s)), self.figure)
            if here[1].mean <= self.share:
                return self._between(before, here) if before else Mean(self.figure)(evidence)
            before = here
        return Mean(self.figure)(evidence)

    def _limits_s(self, evidence: Evidence) -> list[float]:
        prefix = f"{self.figure}.above."
        names = evidence.outcomes[0].figures
        return sorted(float(name.removeprefix(prefix)) for name in names if name.startswith(prefix))

    def _between(self, before: tuple[float, Interval], after: tuple[float, Interval]) -> Interval:
        """Tails fall by a share for each second: the logarithm is interpolated."""
        (early_s, more), (late_s, fewer) = before, after
        if fewer.mean <= 0:
            return Interval(late_s, inf, fewer.n, fewer.level)
        decay = log(more.mean / fewer.mean) / (late_s - early_s)
        widest = max(more.half_width / more.mean, fewer.half_width / fewer.mean)
        return Interval(early_s + log(more.mean / self.share) / decay, widest / decay, fewer.n, fewer.level)


@dataclass(slots=True, frozen=True)
class InverseMean:
    """One over the mean of one over a figure: the mean time between events that were counted over a fixed time.

    The mean of such times themselves would be too long, the more so the fewer events a replication has.
    """

    figure: str

    def __call__(self, evidence: Evidence) -> Interval:
        seen = evidence.mean([1 / value for value in evidence.values(self.figure)])
        return Interval(1 / seen.mean, seen.half_width / seen.mean**2, seen.n, evidence.level)


@dataclass(slots=True, frozen=True)
class RootMeanSquare:
    """The root of the mean square of one figure: how deviations of single replications are averaged."""

    figure: str

    def __call__(self, evidence: Evidence) -> Interval:
        seen = evidence.mean([value * value for value in evidence.values(self.figure)])
        root = sqrt(max(0.0, seen.mean))
        return Interval(root, seen.half_width / (2 * root) if root else seen.half_width, seen.n, evidence.level)


@dataclass(slots=True, frozen=True)
class ExplainedDeviation:
    """The standard deviation of one figure over the replications, where controls of known variance explain most of it.

    How the figure answers to each control is estimated, and so is the rest; how much the controls vary is known.
    """

    figure: str

    def __call__(self, evidence: Evidence) -> Interval:
        columns = [evidence.values(name) for name in evidence.variances]
        return explained_deviation(
            evidence.values(self.figure), columns, [*evidence.variances.values()], evidence.level
        )


def explained_deviation(
    values: Sequence[float], controls: Sequence[Sequence[float]], variances: Sequence[float], level: float
) -> Interval:
    """The deviation of `values`: what independent controls of known variance explain, and the rest; by the jackknife.

    With too few values for a regression, or no controls, it is the plain deviation.
    """
    n, degrees = len(values), len(values) - 2 - len(controls)
    if not controls or degrees < 1:
        return deviation(values, level)
    design = np.column_stack([np.ones(n), *(np.asarray(column) for column in controls)])
    target = np.asarray(values, dtype=float)

    def whole(kept: npt.NDArray[np.bool_]) -> float:
        rows, wanted = design[kept], target[kept]
        slopes = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        left = wanted - rows @ slopes
        rest = float(left @ left) / (len(wanted) - 1 - len(controls))
        return sqrt(rest + float((slopes[1:] ** 2 * np.asarray(variances)).sum()))

    every = whole(np.ones(n, bool))
    parts = [n * every - (n - 1) * whole(np.arange(n) != left_out) for left_out in range(n)]
    return Interval(every, interval(parts, level).half_width, n, level)


@dataclass(slots=True, frozen=True)
class Trial:
    """What to run for a case. `figures` are named as in the table; `uses_controls` where chance can be told apart.

    `at_least` replications always run (in the quick run no more than `at_first`), `at_most` never more.
    """

    scenario: Tree
    figures: Mapping[str, Estimate]
    uses_controls: bool = False
    at_least: int = 10
    at_most: int = 400
    at_first: int = 6


@dataclass(slots=True, frozen=True)
class Sizing:
    """A case that asks for the smallest fleet: a scenario with objectives, solved for equal zones and for any."""

    scenario: Tree
    zones: int
    figures: Mapping[str, tuple[bool, str]]
    """Name in the table: (equal zones, `agents` or `agents_left`)."""


def scenario_of(
    name: str,
    *,
    agents: Tree,
    work: Tree | None,
    run_s: float,
    settle_s: float = 0.0,
    finish_s: float | None = None,
    group: Tree | None = None,
    **rest: object,
) -> Tree:
    """A scenario of one group at exact fidelity, unless `rest` says otherwise."""
    finish = {} if finish_s is None else {"finish": f"{finish_s!r} s"}
    tree: Tree = {
        "version": 1,
        "name": name,
        "horizon": {"settle": f"{settle_s!r} s" if settle_s else 0, "run": f"{run_s!r} s", **finish},
        "groups": {GROUP: {"agents": agents, "queue": {"limit": 1_000_000, "ageing": 0}, **(group or {})}},
        "work": {WORK: {"group": GROUP, **work}} if work else {},
        "broker": {"fidelity": "exact"},
    }
    return {**tree, **rest}


def arrivals(rate: float) -> Tree:
    """Poisson, so many a second."""
    return {"poisson": f"{rate!r}/s"}


def exponential(mean_s: float) -> Tree:
    """Exponential durations."""
    return {"exponential": f"{mean_s!r} s"}
