"""What a replication's chance was, beside what it should be: the part of chance that is known exactly.

The arrivals, durations, failures and losses of a replication are drawn before anybody answers them, so their deviation
from their laws can be taken out of a figure (`simulator.statistics.controlled`): the rate, the mean duration, the work
of each stretch of the run, and what the same work would have met with in a queue next to the one in question whose
mean is known (`simulator.neighbours`). Intervals then need a tenth of the jobs and less.

The controls look at what was drawn alone, never at what became of it, and are themselves held against their
expectation: work that is not as the scenario says is found by them, not hidden. A neighbour is never the case itself:
its servers are a hundredth faster, or the like, so that no figure is controlled by its own truth.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from simulator import failure_controls, pile_controls, queue_controls
from simulator.drawn import Control, Drawn, is_throughout, moments_of, rate_of
from simulator.incidents import HeartbeatLoss, Scripted, ZoneDown
from simulator.scenario import Scenario, Work
from simulator.statistics import interval
from simulator.streams import SECOND_US, Stream, mean_s

PREFIX: Final = "control."
ALMOST_SURE: Final = 1 - 1e-5
"""The level of the intervals that controls themselves are held against: there are many, and none may be off."""
STRETCHES: Final = 5
"""Parts of a run with scripted faults whose work is looked at one by one."""


def expected(scenario: Scenario) -> dict[str, float]:
    """The controls of a scenario and what they should be; none where chance cannot be told from service."""
    return {f"{PREFIX}{name}": value for one in _controls_of(scenario) for name, value in one.expected.items()}


def variances(scenario: Scenario) -> dict[str, float]:
    """The variances of those controls that have a known one."""
    return {f"{PREFIX}{name}": value for one in _controls_of(scenario) for name, value in one.variances.items()}


def limits_s(scenario: Scenario) -> Sequence[float]:
    """Latencies near which the work's quantiles are, for each of `neighbours.SHARES`; none where nobody knows."""
    found = [one.limits_s for one in _controls_of(scenario) if one.limits_s]
    return found[0] if found and len(scenario.work) == 1 else ()


def seen(scenario: Scenario, seed: int, replication: int) -> dict[str, float]:
    """The controls of one replication, over the jobs that arrive after the settling."""
    drawn = Drawn(scenario, seed, replication)
    return {f"{PREFIX}{name}": value for one in _controls_of(scenario) for name, value in one.measure(drawn).items()}


def stray(expected_values: Mapping[str, float], values: Mapping[str, Sequence[float]]) -> list[str]:
    """The controls whose mean over the replications is further from its expectation than chance explains."""
    found = []
    for name, centre in expected_values.items():
        mean = interval(values[name], ALMOST_SURE)
        # What was the same every time is something too rare to have been seen, or has no chance in it.
        allowed = mean.half_width or max(1e-3, 1e-3 * abs(centre))
        if abs(mean.mean - centre) > max(allowed, 1e-3 * abs(centre)):
            found.append(f"{name} is {mean.mean:.6g}, expected {centre:.6g}")
    return found


# --- which there are ------------------------------------------------------------------------------------------------


def _controls_of(scenario: Scenario) -> Iterator[Control]:
    """Those that say most first."""
    turns = _turns(scenario)
    if not turns:
        yield from queue_controls.queues(scenario)
        yield from queue_controls.chances(scenario)
        yield from failure_controls.failures_alone(scenario)
    open_ = [(name, work) for name, work in scenario.work.items() if rate_of(work.arrivals) is not None]
    if turns and scenario.work and len(open_) == len(scenario.work):
        yield from list(pile_controls.piles(scenario)) or _stretches(scenario)
    for name, work in scenario.work.items():
        if work.arrivals.closed is not None:
            yield from queue_controls.restarts(scenario, work)
            if work.duration.constant is None:
                yield _clients(name, work)
        elif work.arrivals.diurnal is not None:
            yield from queue_controls.day(work.arrivals.diurnal, work)
        elif not turns and work.arrivals.even is None and rate_of(work.arrivals) is not None:
            yield _rate_and_duration(name, work)
    yield from (queue_controls.losses(scenario, fault) for fault in scenario.faults if isinstance(fault, HeartbeatLoss))


def _turns(scenario: Scenario) -> bool:
    """Whether something happens on the way, so that it matters when there was much work."""
    return any(
        isinstance(fault, Scripted)
        and not isinstance(fault, HeartbeatLoss)
        and not (isinstance(fault, ZoneDown) and is_throughout(fault, scenario))
        for fault in scenario.faults
    )


# --- work -----------------------------------------------------------------------------------------------------------


def _rate_and_duration(name: str, work: Work) -> Control:
    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.work(name)
        count = int((at_s >= drawn.settle_s).sum())
        return {
            f"{name}.rate": count / (drawn.end_s - drawn.settle_s),
            f"{name}.duration": float(drawn.kept(work_s, at_s).mean()),
        }

    rate = rate_of(work.arrivals)
    assert rate is not None
    return Control({f"{name}.rate": rate, f"{name}.duration": mean_s(work.duration)}, measure)


def _clients(name: str, work: Work) -> Control:
    """How long the first clients thought, and how long their jobs take: of as many as surely come."""
    closed = work.arrivals.closed
    assert closed is not None
    cycle_s = mean_s(closed.think) + mean_s(work.duration)

    def measure(drawn: Drawn) -> dict[str, float]:
        number = list(drawn.scenario.work).index(name) + 1
        count = max(1, int(0.9 * closed.clients * drawn.end_s / cycle_s))
        thinking = drawn.streams.times_us(closed.think, Stream.THINKING, number)
        thought_s = sum(next(thinking) for _ in range(count)) / SECOND_US
        taken_s = float(drawn.durations_s(work, number, count).mean())
        return {f"{name}.think": thought_s / count, f"{name}.duration": taken_s}

    return Control({f"{name}.think": mean_s(closed.think), f"{name}.duration": mean_s(work.duration)}, measure)


def _stretches(scenario: Scenario) -> Iterator[Control]:
    """How much work a second arrives in each part of the run: what a backlog is made of."""
    moments = [moments_of(work) for work in scenario.work.values()]
    known = [one for one in moments if one is not None]
    if len(known) < len(moments):
        return
    long_s = scenario.end_s / STRETCHES

    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.all
        sums = np.bincount(np.minimum(at_s // long_s, STRETCHES - 1).astype(np.int64), work_s, STRETCHES) / long_s
        return {f"work.{part}": float(sums[part]) for part in range(STRETCHES)}

    # The variance of a compound Poisson sum; of batches, that of their sums.
    mean = sum(one.rate * one.first for one in known)
    variance = sum(one.rate * (one.second + (one.batch - 1) * one.first**2) for one in known) / long_s
    names = [f"work.{part}" for part in range(STRETCHES)]
    yield Control(dict.fromkeys(names, mean), measure, dict.fromkeys(names, variance))
