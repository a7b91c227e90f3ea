"""What a replication's work was, beside what it should be: the part of chance that is known exactly.

The arrivals and durations of a replication are drawn before anybody serves them, so their deviation from their laws can
be taken out of a figure (`simulator.statistics.controlled`): the rate, the mean duration, and the wait that the same
jobs would have had in one queue before one server as fast as all together, whose mean is Pollaczek's and Khinchine's.
The last follows the queue of many servers closely, so that intervals need a tenth of the jobs and less.

The controls look at the work alone, never at what became of it, and are themselves held against their expectation:
work that is not as the scenario says is found by them, not hidden.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log
from typing import Final

import numpy as np
import numpy.typing as npt

from simulator.laws import Arrivals, Law
from simulator.scenario import Scenario, Work
from simulator.streams import SECOND_US, Z99, Stream, Streams, mean_s
from simulator.workload import arrivals_us

Floats = npt.NDArray[np.float64]
PREFIX: Final = "control."


@dataclass(slots=True, frozen=True)
class _Moments:
    """Jobs a second, jobs of a batch, mean and mean square of durations."""

    rate: float
    batch: int
    first: float
    second: float


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


def expected(scenario: Scenario) -> dict[str, float]:
    """The controls of a scenario and what they should be; none where arrivals depend on service."""
    found: dict[str, float] = {}
    for name, work in scenario.work.items():
        rate = rate_of(work.arrivals)
        if rate is None or work.arrivals.diurnal is not None:
            continue
        found[f"{PREFIX}{name}.rate"] = rate
        found[f"{PREFIX}{name}.duration"] = mean_s(work.duration)
    moments, servers = _poisson_moments(scenario), _servers(scenario)
    rate = sum(one.rate for one in moments)
    load = sum(one.rate * one.first for one in moments) / max(1, servers)
    if moments and 0 < load < 1:
        # Batches of one size: who comes first in a batch waits for the queue, the others for their own batch as well.
        queue = sum(one.rate * (one.second / servers + (one.batch - 1) * one.first**2 / servers) for one in moments)
        own = sum(one.rate * (one.batch - 1) * one.first / 2 for one in moments)
        found[f"{PREFIX}one-server"] = queue / servers / (2 * (1 - load)) + own / servers / rate
    return found


def _poisson_moments(scenario: Scenario) -> list[_Moments]:
    """Of all work, if it arrives at one group as Poisson processes and its durations have known moments; else none."""
    if len(scenario.groups) != 1:
        return []
    found = []
    for work in scenario.work.values():
        rate, second = rate_of(work.arrivals), mean_square(work.duration)
        if rate is None or second is None or work.arrivals.kind not in ("poisson", "batch"):
            return []
        found.append(_Moments(rate, _batch_of(work), mean_s(work.duration), second))
    return found


def _batch_of(work: Work) -> int:
    return work.arrivals.batch.size if work.arrivals.batch is not None else 1


def _servers(scenario: Scenario) -> int:
    return sum(pool.count * pool.slots for group in scenario.groups.values() for pool in group.agents)


def seen(scenario: Scenario, seed: int, replication: int) -> dict[str, float]:
    """The controls of one replication, over the jobs that arrive after the settling."""
    wanted = expected(scenario)
    if not wanted:
        return {}
    streams = Streams(seed, replication)
    end_us, settle_s = round(scenario.end_s * SECOND_US), scenario.horizon.settle
    drawn = [_drawn(number, work, streams, end_us) for number, work in enumerate(scenario.work.values(), 1)]
    found: dict[str, float] = {}
    for name, (at_s, durations_s) in zip(scenario.work, drawn, strict=True):
        kept = durations_s[at_s >= settle_s]
        found[f"{PREFIX}{name}.rate"] = len(kept) / scenario.horizon.run
        found[f"{PREFIX}{name}.duration"] = float(kept.mean()) if len(kept) else 0.0
    if f"{PREFIX}one-server" in wanted:
        at_s = np.concatenate([times for times, _ in drawn])
        order = np.argsort(at_s, kind="stable")
        work_s = np.concatenate([durations for _, durations in drawn])[order] / _servers(scenario)
        waits = waits_of(at_s[order], work_s)[at_s[order] >= settle_s]
        found[f"{PREFIX}one-server"] = float(waits.mean()) if len(waits) else 0.0
    return {name: found[name] for name in wanted}


def _drawn(number: int, work: Work, streams: Streams, end_us: int) -> tuple[Floats, Floats]:
    """(times of arrival, durations) in seconds, as `simulator.workload` draws them."""
    times = np.fromiter(arrivals_us(work.arrivals, streams, number, end_us), np.int64)
    durations = streams.times_us(work.duration, Stream.DURATIONS, number)
    work_us = np.fromiter((max(1, next(durations)) for _ in range(len(times))), np.int64, len(times))
    return times / SECOND_US, work_us / SECOND_US


def waits_of(at_s: Floats, work_s: Floats) -> Floats:
    """The wait of each job in a first-come queue before one server: Lindley's recursion, without a loop."""
    steps = np.concatenate(([0.0], work_s[:-1] - np.diff(at_s)))
    walk = np.cumsum(steps)
    return walk - np.minimum.accumulate(walk)


def stray(expected_values: Mapping[str, float], values: Mapping[str, list[float]], sigmas: float = 4.5) -> list[str]:
    """The controls whose mean over the replications is further from its expectation than chance explains."""
    found = []
    for name, centre in expected_values.items():
        column = np.asarray(values[name])
        error = float(np.std(column, ddof=1)) / len(column) ** 0.5
        if abs(float(column.mean()) - centre) > max(sigmas * error, 1e-3 * centre):
            found.append(f"{name} is {column.mean():.6g}, expected {centre:.6g}")
    return found
