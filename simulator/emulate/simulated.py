"""The same scenario in the simulated world, seen as a real run is."""

from typing import Final

from simulator import courses
from simulator.emulate.play import Played
from simulator.emulate.stage import Loss
from simulator.incidents import Crash, Hang
from simulator.scenario import Scenario, agents_named
from simulator.world import World

BACK_S: Final = 1.0
"""An agent that is started, or goes on, has its session within this time."""


def play(scenario: Scenario, seed: int) -> Played:
    """One replication, job by job. Raises SelfTestError."""
    world = World(scenario, seed, 0)
    played = Played(jobs=courses.of_world(world), losses=losses_of(scenario))
    world.run()
    return played


def losses_of(scenario: Scenario) -> list[Loss]:
    """Which agents are down or stand still, by what is scripted."""
    found = []
    for fault in scenario.faults:
        if isinstance(fault, Crash | Hang):
            words = fault.crash if isinstance(fault, Crash) else fault.hang
            places = {place: None for word in words for place in agents_named(scenario, word)}
            back_s = fault.at + fault.for_ + BACK_S
            found += [Loss(f"{group}-{number}", fault.at, back_s) for group, number in places]
    return found
