"""Agents that follow the load, with what makes that hard: they start after a while, and a pause follows each change."""

from collections import deque
from collections.abc import Callable, Generator
from math import ceil
from typing import Any

import simpy

from simulator.agents import SimAgent, Site
from simulator.fleet import Fleet
from simulator.recorder import FleetLog
from simulator.scenario import Autoscale
from simulator.streams import SECOND_US


class Autoscaler:
    """The autoscaler of one group. `hire` makes a further agent of its first pool."""

    def __init__(self, site: Site, fleet: Fleet, rules: Autoscale, hire: Callable[[Fleet], SimAgent]) -> None:
        self._site = site
        self._fleet = fleet
        self._rules = rules
        self._hire = hire
        self._log: FleetLog = site.recorder.fleets[fleet.no]
        self._starting = 0
        self._looks: deque[tuple[int, int]] = deque()
        site.clock.actors.process(self._watch())

    def _watch(self) -> Generator[simpy.Event, Any, None]:
        clock, rules = self._site.clock, self._rules
        while True:
            yield clock.actors.timeout(round(rules.every * SECOND_US))
            change = self._change()
            if change > 0:
                clock.actors.process(self._grow(change))
            elif change < 0:
                for agent in self._staying()[change:]:
                    agent.leave()
            if change:
                yield clock.actors.timeout(round(rules.cooldown * SECOND_US))

    def _change(self) -> int:
        """How many more agents there should be; below 0: fewer."""
        now_us, wanted, looks = self._site.clock.now_us, self.wanted(), self._looks
        looks.append((now_us, wanted))
        while looks[0][0] < now_us - round(self._rules.patience * SECOND_US):
            looks.popleft()
        have = len(self._staying()) + self._starting
        return max(0, wanted - have) or min(0, max(most for _, most in looks) - have)

    def wanted(self) -> int:
        """How many agents there should be."""
        slots = self._fleet.group.agents[0].slots
        load = self._log.waiting.value + self._log.running.value
        return min(self._rules.most, max(self._rules.least, ceil(load / (slots * self._rules.target))))

    def _staying(self) -> list[SimAgent]:
        return [agent for agent in self._fleet.agents if (agent.is_on or agent.outages) and not agent.is_leaving]

    def _grow(self, change: int) -> Generator[simpy.Event, Any, None]:
        self._starting += change
        yield self._site.clock.actors.timeout(round(self._rules.delay * SECOND_US))
        self._starting -= change
        idle = [agent for agent in self._fleet.agents if not agent.is_on and not agent.outages]
        while len(idle) < change:
            idle.append(self._hire(self._fleet))
        for agent in idle[:change]:
            agent.bring_back()
