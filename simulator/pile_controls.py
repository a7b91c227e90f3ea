"""Controls of work that piles up while agents are gone, and is worked off when they are back.

The neighbour is one server as fast as all agents together, that begins with nothing when the fault does and is slower,
or stands still, until it ends. How much has piled up by then and how long it takes to be rid of it have known means and
variances: those of a sum of jobs, and of the first passage of a process that jumps upwards alone (Prabhu 1980).
"""

from collections.abc import Iterator, Sequence
from math import ceil
from typing import NamedTuple

import numpy as np

from simulator.drawn import Control, Drawn, Moments, moments_of, servers_of
from simulator.incidents import Crash, RollingUpgrade
from simulator.scenario import Scenario, agents_named


class Gap(NamedTuple):
    """From when on for how long there are fewer servers, how many then, and how many after it."""

    at_s: float
    for_s: float
    servers: float
    servers_after: float


def piles(scenario: Scenario) -> Iterator[Control]:
    """That of the only fault of the only group, where less work is done than arrives until it is over."""
    gap = _gap_of(scenario)
    moments = [one for work in scenario.work.values() if (one := moments_of(work)) is not None]
    load = sum(one.rate * one.first for one in moments)
    if gap is not None and len(moments) == len(scenario.work) and gap.servers < load < gap.servers_after:
        yield _pile(gap, moments, load)


def _gap_of(scenario: Scenario) -> Gap | None:
    if len(scenario.groups) != 1 or len(scenario.faults) != 1:
        return None
    (group,), (fault,), servers = scenario.groups.values(), scenario.faults, float(servers_of(scenario))
    if isinstance(fault, Crash):
        gone = {one for word in fault.crash for one in agents_named(scenario, word)}
        return Gap(fault.at, fault.for_, 0.0, servers) if len(gone) == group.count else None
    if isinstance(fault, RollingUpgrade) and group.count % fault.batch == 0:
        left = servers * (1 - fault.batch / group.count)
        return Gap(fault.at, ceil(group.count / fault.batch) * fault.each, left, servers)
    return None


def _pile(gap: Gap, moments: Sequence[Moments], load: float) -> Control:
    rate = sum(one.rate for one in moments)
    # A second's share of the variance of a compound Poisson sum; of batches, that of their sums.
    noise = sum(one.rate * (one.second + (one.batch - 1) * one.first**2) for one in moments)
    piled, drift = (load - gap.servers) * gap.for_s, gap.servers_after - load

    def measure(drawn: Drawn) -> dict[str, float]:
        at_s, work_s = drawn.all
        during = (at_s >= gap.at_s) & (at_s < gap.at_s + gap.for_s)
        seen = float(work_s[during].sum()) - gap.servers * gap.for_s
        after = at_s >= gap.at_s + gap.for_s
        came_s, before = at_s[after] - gap.at_s - gap.for_s, np.concatenate(([seen], seen + np.cumsum(work_s[after])))
        is_done = np.flatnonzero(before[:-1] <= gap.servers_after * came_s)
        done_s = float(before[is_done[0] if len(is_done) else -1]) / gap.servers_after
        return {"pile.drain": done_s, "pile.arrivals": int(during.sum()) / gap.for_s, "pile.work": seen}

    variance = noise * gap.for_s / drift**2 + piled * noise / drift**3
    return Control(
        {"pile.drain": piled / drift, "pile.arrivals": rate, "pile.work": piled}, measure, {"pile.drain": variance}
    )
