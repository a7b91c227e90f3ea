"""Other ways to place than the least load, to compare with it: in turn, at random, the best of a few at random.

All are a `Placement`, so ranks, labels, limits and suspects count as they always do; what differs is which of the
agents with room gets the job. Chance comes from the generator of the dispatcher, so a seed gives the same placements.

Source of the best of d: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001; here
the d agents differ from each other, and all have room.
"""

from collections.abc import Iterable, Sequence
from typing import Protocol, assert_never

from broker.dispatch.model import Agent, AgentNo, DispatchPolicy, Placing, Spread
from broker.dispatch.placement import AgentClass, Placement, load_key, may_work, turn_key
from broker.dispatch.queue import LabelSet


class Chance(Protocol):
    """Where choices at random come from: a seeded generator that the driver passes in."""

    def random(self) -> float:
        """A number in [0, 1)."""


def placement_of(policy: DispatchPolicy, agents: dict[AgentNo, Agent], chance: Chance) -> Placement:
    """The placement that the policy names, over these agents."""
    match policy.placing:
        case Placing.LEAST_LOADED:
            return Placement(policy, agents)
        case Placing.ROUND_ROBIN:
            return RoundRobin(policy, agents)
        case Placing.RANDOM:
            return Sampled(policy, agents, chance, 1)
        case Placing.POWER_OF_D:
            return Sampled(policy, agents, chance, policy.placing_choices)
        case _:
            assert_never(policy.placing)


def placed_anew(old: Placement, policy: DispatchPolicy, chance: Chance) -> Placement:
    """The placement that the policy names, over the agents and classes of another one, which is of no use then."""
    for agent in old.agents.values():
        old.withdraw(agent)
    for agent_class in old.classes.values():
        agent_class.heap.clear()
    new = placement_of(policy, {}, chance)
    new.take_over(old)
    return new


class RoundRobin(Placement):
    """The agent that was assigned longest ago, whatever it holds; one without room loses its turn."""

    __slots__ = ()

    def key_of(self, agent: Agent) -> int:
        """The agent's place in the order of placement: lower is earlier."""
        return turn_key(agent, by_rank=self._is_ranked)


class Sampled(Placement):
    """The least loaded of `choices` different agents that are drawn at random; with 1 that is any of them.

    The list of a class, a heap elsewhere, has the numbers of its agents with room in no order: any can be drawn, and
    the last one takes the seat of one that leaves.
    """

    __slots__ = ("_chance", "_choices", "_seats")

    def __init__(self, policy: DispatchPolicy, agents: dict[AgentNo, Agent], chance: Chance, choices: int) -> None:
        assert choices >= 1, "somebody must be drawn"
        self._chance = chance
        self._choices = choices
        self._seats: dict[AgentNo, int] = {}
        super().__init__(policy, agents)

    def key_of(self, agent: Agent) -> int:
        """What stands for the agent in the list of its class."""
        return agent.no

    def refresh(self, agent: Agent) -> None:
        """Put the agent among those with room, or out. Call after every change."""
        agent_class = agent.agent_class
        if agent_class is None:
            return
        if self._is_ordered:
            self.has_moved |= agent_class.set_rank(agent)
        if agent.held >= agent.capacity or not may_work(agent):
            self.withdraw(agent)
        elif agent.heap_key < 0:
            self.free += 1
            agent.heap_key = agent.no
            self._seats[agent.no] = len(agent_class.heap)
            agent_class.heap.append(agent.no)

    def withdraw(self, agent: Agent) -> None:
        """Offer the agent nothing before its next `refresh`."""
        agent_class = agent.agent_class
        if agent.heap_key < 0 or agent_class is None:
            return
        self.free -= 1
        agent.heap_key = -1
        seat, last = self._seats.pop(agent.no), agent_class.heap.pop()
        if last != agent.no:
            agent_class.heap[seat] = last
            self._seats[AgentNo(last)] = seat

    def pick(self, label_set: LabelSet, avoid: AgentNo) -> Agent | None:
        """One of the agents with room that may serve the label set; `avoid` only if there is no other."""
        classes = self.classes_for(label_set)
        if self._is_ranked:
            return self._pick_of(label_set, self.room_for(label_set), avoid)
        room = sum(len(one.heap) for one in classes)
        is_avoidable = avoid in self._seats and self.agents[avoid].agent_class in classes and room > 1
        if room - is_avoidable <= self._choices:
            return self._pick_of(label_set, self.room_for(label_set), avoid)
        drawn: dict[AgentNo, Agent] = {}
        while len(drawn) < self._choices:
            agent = self.agents[_seated(classes, int(self._chance.random() * room))]
            if not (is_avoidable and agent.no == avoid):
                drawn[agent.no] = agent
        return min(drawn.values(), key=load_key)

    def pick_without_suspect(self, label_set: LabelSet, avoid: AgentNo) -> Agent | None:
        """The same for a job that may crash its agent: none that holds another such job. Looks at every agent."""
        return self._pick_of(label_set, [one for one in self.room_for(label_set) if not one.suspects], avoid)

    def _pick_of(self, label_set: LabelSet, agents: Iterable[Agent], avoid: AgentNo) -> Agent | None:
        """One of these, as far as ranks let them."""
        able = list(agents)
        if self._is_ordered:
            first_rank = min((one.first_rank for one in self.classes_for(label_set)), default=0)
            able = [agent for agent in able if agent.rank == first_rank]
        able = [agent for agent in able if agent.no != avoid] or able
        if self._policy.spread is Spread.SPILL and able:
            rank = min(agent.rank for agent in able)
            able = [agent for agent in able if agent.rank == rank]
        return min(self._drawn(able), key=load_key, default=None)

    def _drawn(self, agents: Sequence[Agent]) -> Sequence[Agent]:
        if len(agents) <= self._choices:
            return agents
        drawn: dict[AgentNo, Agent] = {}
        while len(drawn) < self._choices:
            agent = agents[int(self._chance.random() * len(agents))]
            drawn[agent.no] = agent
        return list(drawn.values())


def _seated(classes: Sequence[AgentClass], seat: int) -> AgentNo:
    """Who has this seat when the lists of the classes stand one behind the other."""
    for one in classes:
        if seat < len(one.heap):
            return AgentNo(one.heap[seat])
        seat -= len(one.heap)
    raise AssertionError("a seat that is not there was drawn")
