"""Controls of agents and zones that fail by themselves, where nothing else happens: how often too few are up.

The neighbour fails at the same times, but every repair takes a hundredth longer and puts off nothing that comes later:
it is down whenever the case is, and a little more. Units are independent, so that its answer is exact.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, takewhile
from typing import Final

import numpy as np

from simulator.drawn import Control, Drawn, Floats
from simulator.incidents import Random
from simulator.scenario import Scenario, places_of
from simulator.streams import SECOND_US, Stream

LONGER: Final = 1.01
"""How much longer a repair takes in the neighbour."""


@dataclass(slots=True, frozen=True)
class _Fault:
    """What agents, or whole zones, do by chance: its place among the faults and its mean times in seconds."""

    incident: Random
    number: int
    mttf_s: float
    mttr_s: float

    @property
    def down(self) -> float:
        """The share of time in which a unit is down in the neighbour, where no repair can outlast the next failure."""
        more_s = 1 / (1 / ((LONGER - 1) * self.mttr_s) + 1 / self.mttf_s)
        return (self.mttr_s + more_s) / (self.mttf_s + self.mttr_s)

    def spells(self, drawn: Drawn, index: int) -> Floats:
        """(begin, end) of the failures of a unit in seconds, as `simulator.faults` draws them; ends are put off."""
        entity = self.number << 24 | index
        works = drawn.streams.times_us(self.incident.mttf, Stream.FAULTS, entity << 1)
        repairs = drawn.streams.times_us(self.incident.mttr, Stream.FAULTS, entity << 1 | 1)
        until_us = round(drawn.end_s * SECOND_US)
        turns = accumulate(chain.from_iterable(zip(works, repairs, strict=False)))
        times = [*takewhile(lambda at_us: at_us < until_us, turns), until_us]
        at_s = np.asarray(times[: len(times) // 2 * 2], np.float64).reshape(-1, 2) / SECOND_US
        begin, end = at_s[:, 0], begin_of_next(at_s, drawn.end_s)
        return np.column_stack([begin, np.minimum(end, begin + LONGER * (at_s[:, 1] - begin))])


def begin_of_next(at_s: Floats, end_s: float) -> Floats:
    """When each spell's next one begins: a repair that is put off is not put off beyond that."""
    return np.append(at_s[1:, 0], end_s)


def failures_alone(scenario: Scenario) -> Iterator[Control]:
    """How often fewer agents are up than the only group needs."""
    faults = _faults_of(scenario)
    if not faults or len(scenario.groups) != 1 or scenario.work:
        return
    (group,) = scenario.groups.values()
    zones = [zone for _, zone in places_of(group)]
    agents, places = faults.get("crash"), faults.get("zone-down")
    if group.need is None or agents is None or (places and set(scenario.zones) != set(_zones_of(places, scenario))):
        return
    need = group.need

    def measure(drawn: Drawn) -> dict[str, float]:
        of_zone: dict[str, Floats] = {}
        if places is not None:
            of_zone = {zone: places.spells(drawn, index) for index, zone in enumerate(_zones_of(places, scenario))}
        nothing = np.zeros((0, 2))
        down = [_merged([agents.spells(drawn, index), of_zone.get(zone, nothing)]) for index, zone in enumerate(zones)]
        return {"neighbour.short": _share_with(len(zones) - need + 1, down, drawn.settle_s, drawn.end_s)}

    share = _share_short(Counter(zones), need, agents.down, places.down if places else 0.0)
    yield Control({"neighbour.short": share}, measure)


def _faults_of(scenario: Scenario) -> dict[str, _Fault]:
    """Crashes of all agents, failures of all zones; nothing where there are others."""
    found: dict[str, _Fault] = {}
    for number, fault in enumerate(scenario.faults, 1):
        if not isinstance(fault, Random) or fault.random == "hang" or fault.crews or fault.random in found:
            return {}
        mttf_s, mttr_s = fault.mttf.exponential, fault.mttr.exponential
        if not mttf_s or not mttr_s or (fault.random == "crash" and fault.agents != ("all",)):
            return {}
        found[fault.random] = _Fault(fault, number, mttf_s, mttr_s)
    return found


def _zones_of(fault: _Fault, scenario: Scenario) -> Sequence[str]:
    return list(scenario.zones) if "all" in fault.incident.agents else list(fault.incident.agents)


def _merged(parts: Sequence[Floats]) -> Floats:
    """Spells of one agent, those that overlap as one."""
    spells = np.concatenate(parts)
    spells = spells[np.argsort(spells[:, 0], kind="stable")]
    if not len(spells):
        return spells
    ends = np.maximum.accumulate(spells[:, 1])
    firsts = np.concatenate(([0], 1 + np.flatnonzero(spells[1:, 0] > ends[:-1])))
    lasts = np.append(firsts[1:] - 1, len(ends) - 1)
    return np.column_stack([spells[firsts, 0], ends[lasts]])


def _share_with(least: int, down: Sequence[Floats], from_s: float, to_s: float) -> float:
    """The share of a stretch in which at least so many of the agents are down."""
    spells = np.clip(np.concatenate(down), from_s, to_s)
    at_s = np.concatenate([spells[:, 0], spells[:, 1]])
    steps = np.repeat([1, -1], len(spells))
    order = np.argsort(at_s, kind="stable")
    counts = np.cumsum(steps[order])[:-1]
    return float(np.diff(at_s[order])[counts >= least].sum()) / (to_s - from_s)


def _share_short(zones: Counter[str], need: int, down: float, zone_down: float) -> float:
    """The chance that fewer than `need` are up, where zones fail as one and each agent by itself as well."""
    shares = np.ones(1)
    for count in zones.values():
        of_zone = np.ones(1)
        for _ in range(count):
            of_zone = np.convolve(of_zone, [down, 1 - down])
        of_zone *= 1 - zone_down
        of_zone[0] += zone_down
        shares = np.convolve(shares, of_zone)
    return float(shares[:need].sum())
