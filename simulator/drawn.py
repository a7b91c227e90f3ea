"""What was drawn for one replication, before anybody answered it, and what its laws say of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import exp, log

import numpy as np
import numpy.typing as npt

from simulator.incidents import ZoneDown
from simulator.laws import Arrivals, Law
from simulator.scenario import Scenario, Work, places_of
from simulator.streams import SECOND_US, Z99, Stream, Streams, mean_s
from simulator.workload import arrivals_us

Floats = npt.NDArray[np.float64]


class Drawn:
    """What was drawn for one replication."""

    def __init__(self, scenario: Scenario, seed: int, replication: int) -> None:
        self.scenario = scenario
        self.streams = Streams(seed, replication)
        self.settle_s = scenario.horizon.settle
        self.end_s = scenario.end_s
        self._work: dict[str, tuple[Floats, Floats]] = {}

    def work(self, name: str) -> tuple[Floats, Floats]:
        """(times of arrival, durations) in seconds, as `simulator.workload` draws them."""
        if name not in self._work:
            number = list(self.scenario.work).index(name) + 1
            work = self.scenario.work[name]
            at_us = np.fromiter(
                arrivals_us(work.arrivals, self.streams, number, round(self.end_s * SECOND_US)), np.int64
            )
            self._work[name] = at_us / SECOND_US, self.durations_s(work, number, len(at_us))
        return self._work[name]

    def durations_s(self, work: Work, number: int, count: int) -> Floats:
        """The first durations of a class of work."""
        drawn = self.streams.times_us(work.duration, Stream.DURATIONS, number)
        return np.fromiter((max(1, next(drawn)) for _ in range(count)), np.int64, count) / SECOND_US

    @cached_property
    def all(self) -> tuple[Floats, Floats]:
        """The work of all classes in the order of arrival."""
        parts = [self.work(name) for name in self.scenario.work]
        at_s, work_s = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
        order = np.argsort(at_s, kind="stable")
        return at_s[order], work_s[order]

    def kept(self, values: Floats, at_s: Floats) -> Floats:
        """The values of what arrived after the settling; one 0 where nothing did."""
        inside = values[at_s >= self.settle_s]
        return inside if len(inside) else np.zeros(1)


@dataclass(slots=True, frozen=True)
class Control:
    """Some numbers that can be computed from what was drawn, and what they should be on average."""

    expected: Mapping[str, float]
    measure: Callable[[Drawn], Mapping[str, float]]
    variances: Mapping[str, float] = field(default_factory=dict)
    """Their variances over replications, where these are known."""
    limits_s: Sequence[float] = ()
    """Latencies that `neighbours.SHARES` of the jobs of a neighbour exceed: where a quantile is looked for."""


# --- what the laws say ----------------------------------------------------------------------------------------------


def rate_of(arrivals: Arrivals) -> float | None:
    """Jobs a second in the long run; None where the work itself decides (closed clients), or a file does."""
    if arrivals.batch is not None:
        return arrivals.batch.rate * arrivals.batch.size
    if arrivals.diurnal is not None:
        return arrivals.diurnal.mean
    if arrivals.bursty is not None:
        dwell = arrivals.bursty.dwell
        return sum(rate * time for rate, time in zip(arrivals.bursty.rates, dwell, strict=True)) / sum(dwell)
    return arrivals.poisson if arrivals.poisson is not None else arrivals.even


def mean_square(law: Law) -> float | None:
    """The second moment of a law in seconds squared; None for laws that are cut or measured."""
    mean = mean_s(law)
    if law.constant is not None:
        return mean * mean
    if law.exponential is not None:
        return 2 * mean * mean
    if law.hyperexponential is not None:
        return mean * mean * (1 + law.hyperexponential.scv)
    if law.lognormal is not None:
        if law.lognormal.scv is not None:
            return mean * mean * (1 + law.lognormal.scv)
        sigma = log((law.lognormal.p99 or 1.0) / (law.lognormal.p50 or 1.0)) / Z99
        return mean * mean * exp(sigma * sigma)
    if law.uniform is not None:
        return mean * mean + (law.uniform.most - law.uniform.least) ** 2 / 12
    return None


@dataclass(slots=True, frozen=True)
class Moments:
    """Jobs a second, jobs of a batch, mean and mean square of durations."""

    rate: float
    batch: int
    first: float
    second: float


def moments_of(work: Work) -> Moments | None:
    """Of work that arrives as a Poisson process and whose durations have known moments."""
    rate, second = rate_of(work.arrivals), mean_square(work.duration)
    if rate is None or second is None or work.arrivals.kind not in ("poisson", "batch"):
        return None
    return Moments(rate, work.arrivals.batch.size if work.arrivals.batch else 1, mean_s(work.duration), second)


# --- what serves it -------------------------------------------------------------------------------------------------


def servers_of(scenario: Scenario) -> int:
    """Slots that are there from the settling to the end: without the zones that are down all the time."""
    gone = zones_gone(scenario)
    return sum(pool.slots for group in scenario.groups.values() for pool, zone in places_of(group) if zone not in gone)


def zones_gone(scenario: Scenario) -> set[str]:
    """Zones that are down from the settling to the end of the arrivals."""
    return {
        fault.zone_down for fault in scenario.faults if isinstance(fault, ZoneDown) and is_throughout(fault, scenario)
    }


def is_throughout(fault: ZoneDown, scenario: Scenario) -> bool:
    """Whether a zone is down from the settling to the end of the arrivals."""
    return fault.at <= scenario.horizon.settle and fault.at + fault.for_ >= scenario.end_s
