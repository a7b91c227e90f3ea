"""What operators did in a journal, and how agents left in good order: done again, then and to the same agents.

What an act leads to is the dispatcher's to say, on the simulated side as well: an agent that is drained there stops
when its own last job is over, whenever that was in the journal.
"""

from collections import deque
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


class Acts:
    """Has things done in a simulated world at their times, and to each agent in the order in which they were asked."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._asked: dict[tuple[GroupNo, AgentNo], deque[Act]] = {}

    def plan(self, again: Again) -> None:
        """Have it done at its time."""
        self._world.clock.after(max(0, again.at_us), self._do, again)

    def _do(self, again: Again) -> None:
        if again.act is not None:
            asked = self._asked.setdefault((again.group, again.agent), deque())
            asked.append(again.act)
            if len(asked) == 1:
                self._ask(again.group, again.agent, TRIES)
            return
        agent = self._world.fleets[again.group - 1].agents[again.agent - 1]
        if not again.leaves:
            agent.bring_back()
        elif agent.is_on and not agent.is_leaving:
            agent.leave()

    def _ask(self, group: GroupNo, agent: AgentNo, tries: int, _: object = None) -> None:
        """Ask for what was asked first. Only an agent that is there can be drained: one that comes a moment later is
        waited for, and what was asked after it waits too.
        """
        asked = self._asked[group, agent]
        known = self._world.driver.dispatcher(group).ledger.agents.get(agent)
        is_there = known is not None and known.link is Link.LIVE
        if isinstance(asked[0], DrainRequested) and not is_there and tries:
            self._world.clock.after(AGAIN_US, partial(self._ask, group, agent, tries - 1))
            return
        act = _meant(asked.popleft(), known)
        self._world.driver.ask(group, lambda ticket: replace(act, ticket=ticket, agent=agent))
        if asked:
            self._world.clock.after(AGAIN_US, partial(self._ask, group, agent, TRIES))


def _meant(act: Act, agent: Agent | None) -> Act:
    """What takes a drain back here: there it may have been over already when it was taken back, and here not."""
    if agent is None or not isinstance(act, ResumeRequested | DrainCancelled):
        return act
    if agent.admin is Admin.DRAINING:
        return DrainCancelled(act.ticket, agent.no, act.actor)
    return ResumeRequested(act.ticket, agent.no, act.actor) if agent.admin is Admin.PAUSED else act
