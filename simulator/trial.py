"""One case of the truth table as something to run: a scenario, and how each figure is read off its replications."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, Final, Protocol

from broker.errors import ConfigError
from simulator.experiments import Outcome
from simulator.statistics import Interval, controlled, deviation

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

    def values(self, figure: str) -> list[float]:
        """One for each replication."""
        return [outcome.figures[figure] for outcome in self.outcomes]

    def mean(self, values: Sequence[float]) -> Interval:
        """The interval of the mean of one value for each replication, by the controls where there are any."""
        columns = [self.values(name) for name in self.controls]
        return controlled(values, columns, list(self.controls.values()), self.level)


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
        return evidence.mean([(value + self.shift) * self.factor for value in evidence.values(self.figure)])


@dataclass(slots=True, frozen=True)
class RootMeanSquare:
    """The root of the mean square of one figure: how deviations of single replications are averaged."""

    figure: str

    def __call__(self, evidence: Evidence) -> Interval:
        seen = evidence.mean([value * value for value in evidence.values(self.figure)])
        root = sqrt(max(0.0, seen.mean))
        return Interval(root, seen.half_width / (2 * root) if root else seen.half_width, seen.n, evidence.level)


@dataclass(slots=True, frozen=True)
class Deviation:
    """The standard deviation of one figure over the replications."""

    figure: str

    def __call__(self, evidence: Evidence) -> Interval:
        return deviation(evidence.values(self.figure), evidence.level)


@dataclass(slots=True, frozen=True)
class Trial:
    """What to run for a case. `figures` are named as in the table; `uses_controls` for queues of independent work."""

    scenario: Tree
    figures: Mapping[str, Estimate]
    uses_controls: bool = False
    at_least: int = 10
    at_most: int = 400


@dataclass(slots=True, frozen=True)
class Sizing:
    """A case that asks for the smallest fleet: a scenario with objectives, solved for equal zones and for any."""

    scenario: Tree
    zones: int
    guesses: Mapping[bool, int]
    """Where the search begins, for equal zones and for any."""
    figures: Mapping[str, tuple[bool, str]]
    """Name in the table: (equal zones, `agents` or `agents_left`)."""


def scenario_of(
    name: str,
    *,
    agents: Tree,
    work: Tree | None,
    run_s: float,
    settle_s: float = 0.0,
    group: Tree | None = None,
    **rest: object,
) -> Tree:
    """A scenario of one group at exact fidelity, unless `rest` says otherwise."""
    tree: Tree = {
        "version": 1,
        "name": name,
        "horizon": {"settle": f"{settle_s!r} s" if settle_s else 0, "run": f"{run_s!r} s"},
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
