"""What operators did in a journal, and how agents left in good order: done again, then and to the same agents.

What an act leads to is the dispatcher's to say, on the simulated side as well: an agent that is drained there stops
when its own last job is over, whenever that was in the journal.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from broker.dispatch.messages import (
    DisableRequested,
    DrainCancelled,
    DrainRequested,
    EnableRequested,
    RankSet,
    ResumeRequested,
)
from broker.dispatch.model import Admin, Agent, AgentNo, DrainEnd, GroupNo, Link
from simulator.world import World

Act = DrainRequested | DrainCancelled | ResumeRequested | DisableRequested | EnableRequested | RankSet
ACTS: Final = (DrainRequested, DrainCancelled, ResumeRequested, DisableRequested, EnableRequested, RankSet)
NO_TICKET: Final = 0
TRIES: Final = 200
AGAIN_US: Final = 50_000


@dataclass(slots=True, frozen=True)
class PastAct:
    """Something that was asked for, and when in engine time."""

    at_us: int
    group: GroupNo
    act: Act


def standing(agent: Agent) -> Iterator[Act]:
    """What must be asked for to bring a new agent to where this one is."""
    if agent.admin is Admin.DISABLED:
        yield DisableRequested(NO_TICKET, agent.no, now=True)
    elif agent.admin is Admin.PAUSED:
        yield DrainRequested(NO_TICKET, agent.no, DrainEnd.PAUSE)
    elif agent.admin is Admin.DRAINING:
        yield DrainRequested(NO_TICKET, agent.no, agent.drain_ends, agent.drain_then)


@dataclass(slots=True, frozen=True)
class Again:
    """One thing to do in a simulated world, `at_us` after its beginning, to an agent by its number there.

    `act` None: the process is told to leave (`leaves`), or one that left in good order is started again.
    """

    at_us: int
    group: GroupNo
    agent: AgentNo
    act: Act | None = None
    leaves: bool = False

    def plan(self, world: World) -> None:
        """Have it done at its time."""
        world.clock.after(max(0, self.at_us), self._do, world)

    def _do(self, world: World) -> None:
        if self.act is not None:
            self._ask(self.act, TRIES, world)
            return
        agent = world.fleets[self.group - 1].agents[self.agent - 1]
        if not self.leaves:
            agent.bring_back()
        elif agent.is_on and not agent.is_leaving:
            agent.leave()

    def _ask(self, act: Act, tries: int, world: World) -> None:
        """Ask for it. Only an agent that is there can be drained: one that comes a moment later is waited for."""
        known = world.driver.dispatcher(self.group).ledger.agents.get(self.agent)
        is_there = known is not None and known.link is Link.LIVE
        if isinstance(act, DrainRequested) and not is_there and tries:
            world.clock.after(AGAIN_US, partial(self._ask, act, tries - 1), world)
        else:
            world.driver.ask(self.group, lambda ticket: replace(act, ticket=ticket, agent=self.agent))
