"""Which agent gets the next job: the least loaded one that may take it (promise P8).

Load is live / slots, so a big agent gets more. Ties go to the agent that was assigned longest ago: with equal agents
this is round robin. Where the group spreads by rank, the rank comes before the load: with `SPILL` the next rank takes
what the earlier ones have no room for, with `ORDERED` only what no earlier rank works for.

Agents with the same operations and labels form a class with one heap; only agents with room that may work are in it. A
heap entry is one integer, (rank, load, last assignment, agent), and counts only while it equals the agent's own
`heap_key`: what changed meanwhile is skipped.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from typing import Final

from broker.dispatch.model import NO_AGENT, Agent, AgentNo, DispatchPolicy, Job, Spread
from broker.dispatch.queue import LabelSet

_AGENT_BITS: Final = 24
_ASSIGNED_BITS: Final = 60
_AGENT_MASK: Final = (1 << _AGENT_BITS) - 1
_LOAD_SHIFT: Final = _AGENT_BITS + _ASSIGNED_BITS
_RANK_SHIFT: Final = _LOAD_SHIFT + 64
_COMPACT_MIN: Final = 64
RANK_MAX: Final = 1_000
"""The last rank that an agent can have."""


class AgentClass:
    """Agents with the same operations and labels."""

    __slots__ = ("_first_rank", "agents", "heap", "labels", "operations", "ranks")

    def __init__(self, operations: frozenset[str], labels: frozenset[str]) -> None:
        self.operations = operations
        self.labels = labels
        self.agents: dict[AgentNo, Agent] = {}
        self.heap: list[int] = []
        self.ranks: dict[AgentNo, int] = {}  # of those that may work; only where the spread is ordered
        self._first_rank: int | None = None

    def set_rank(self, agent: Agent) -> bool:
        """Note the agent's rank if it may work, else that it does not count. True if that is news."""
        rank = agent.rank if agent.agent_class is self and may_work(agent) else None
        if self.ranks.get(agent.no) == rank:
            return False
        self._first_rank = None
        self.ranks.pop(agent.no, None)
        if rank is not None:
            self.ranks[agent.no] = rank
        return True

    @property
    def first_rank(self) -> int:
        """The earliest rank of which an agent works."""
        if self._first_rank is None:
            self._first_rank = min(self.ranks.values(), default=RANK_MAX)
        return self._first_rank

    def forget_ranks(self) -> None:
        """The spread is another one: who counts is noted anew."""
        self.ranks.clear()
        self._first_rank = None

    def serves(self, label_set: LabelSet) -> bool:
        """Whether its agents have what these jobs ask for."""
        return label_set.operation in self.operations and label_set.labels <= self.labels


def may_work(agent: Agent) -> bool:
    """Whether the agent may be given anything at all, room aside."""
    return agent.is_active and not (agent.is_busy or agent.is_deaf or agent.is_leaving)


def may_take(job: Job, agent: Agent) -> bool:
    """Whether the agent may be given this job, room aside: the one predicate of placement, invariants and explain."""
    return may_work(agent) and agent.agent_class is not None and agent.agent_class.serves(job.lane.level.label_set)


def load_key(agent: Agent) -> int:
    """The agent's place in the order of placement, rank aside: lower is earlier."""
    load = (agent.held << 20) // agent.slots
    return load << _LOAD_SHIFT | agent.last_assigned_no << _AGENT_BITS | agent.no


def turn_key(agent: Agent, *, by_rank: bool) -> int:
    """The agent's place where load does not count: who was assigned longest ago is first."""
    rank = agent.rank if by_rank else 0
    return rank << _RANK_SHIFT | agent.last_assigned_no << _AGENT_BITS | agent.no


class Placement:
    """The heaps of a group's agents. It never changes an agent but for its heap key and class."""

    __slots__ = ("_is_ordered", "_is_ranked", "_policy", "agents", "classes", "free", "has_moved", "version")

    def __init__(self, policy: DispatchPolicy, agents: dict[AgentNo, Agent]) -> None:
        self.agents = agents
        self.classes: dict[tuple[frozenset[str], frozenset[str]], AgentClass] = {}
        self.version = 0
        self.free = 0  # agents that have room and may work
        self.has_moved = False  # another rank may be the first one that works
        self.configure(policy)

    def configure(self, policy: DispatchPolicy) -> None:
        """Place as this policy says from now on; every agent is put where that says."""
        self._policy = policy
        self._is_ranked = policy.spread is not Spread.BALANCED
        self._is_ordered = policy.spread is Spread.ORDERED
        for one in self.classes.values():
            one.forget_ranks()
        for agent in self.agents.values():
            self.withdraw(agent)
            self.refresh(agent)

    def take_over(self, other: "Placement") -> None:
        """Place the agents of another placement, in its classes, from now on."""
        self.agents, self.classes, self.version = other.agents, other.classes, other.version
        self.configure(self._policy)

    def classify(self, agent: Agent) -> bool:
        """Put the agent into its class by its operations (less what it proved unfit for) and labels.

        False when the group has as many classes as it may; the agent is then in none.
        """
        key = (agent.operations - agent.unfit, agent.labels)
        old = agent.agent_class
        if old is not None and (old.operations, old.labels) == key:
            return True
        self.forget(agent)
        found = self.classes.get(key)
        if found is None:
            if len(self.classes) >= self._policy.agent_classes_max:
                return False
            found = self.classes[key] = AgentClass(*key)
            self.version += 1
        found.agents[agent.no] = agent
        agent.agent_class = found
        return True

    def forget(self, agent: Agent) -> None:
        """Take the agent out of its class; an empty class goes."""
        old = agent.agent_class
        if old is None:
            return
        self.withdraw(agent)
        agent.agent_class = None
        del old.agents[agent.no]
        self.has_moved |= old.set_rank(agent)
        if not old.agents:
            del self.classes[old.operations, old.labels]
            self.version += 1

    def refresh(self, agent: Agent) -> None:
        """Put the agent where its load says, or out if it has no room or may not work. Call after every change."""
        agent_class = agent.agent_class
        if agent_class is None:
            return
        if self._is_ordered:
            self.has_moved |= agent_class.set_rank(agent)
        if agent.held >= agent.capacity or not may_work(agent):
            self.withdraw(agent)
            return
        key = self.key_of(agent)
        if key == agent.heap_key:
            return
        if agent.heap_key < 0:
            self.free += 1
        agent.heap_key = key
        heap = agent_class.heap
        heappush(heap, key)
        if len(heap) > 2 * len(agent_class.agents) + _COMPACT_MIN:
            heap[:] = [one.heap_key for one in agent_class.agents.values() if one.heap_key >= 0]
            heapify(heap)

    def withdraw(self, agent: Agent) -> None:
        """Offer the agent nothing before its next `refresh`."""
        if agent.heap_key >= 0:
            self.free -= 1
            agent.heap_key = -1

    def key_of(self, agent: Agent) -> int:
        """The agent's place in the order of placement: lower is earlier."""
        return agent.rank << _RANK_SHIFT | load_key(agent) if self._is_ranked else load_key(agent)

    def classes_for(self, label_set: LabelSet) -> list[AgentClass]:
        """The classes whose agents may serve the label set."""
        if label_set.classes_version != self.version:
            label_set.classes = [one for one in self.classes.values() if one.serves(label_set)]
            label_set.classes_version = self.version
        return label_set.classes

    def pick(self, label_set: LabelSet, avoid: AgentNo) -> Agent | None:
        """The least loaded agent with room that may serve the label set; `avoid` only if there is no other."""
        best: Agent | None = None
        classes = self.classes_for(label_set)
        for agent_class in classes:
            top = self._top(agent_class, avoid)
            if top is not None and (best is None or top.heap_key < best.heap_key):
                best = top
        if best is None and avoid:
            return self.pick(label_set, NO_AGENT)
        if self._is_ordered and best is not None and best.rank > min(one.first_rank for one in classes):
            return self.pick(label_set, NO_AGENT) if avoid else None
        return best

    def pick_without_suspect(self, label_set: LabelSet, avoid: AgentNo) -> Agent | None:
        """The same for a job that may crash its agent: none that holds another such job. Looks at every agent."""
        able = [agent for agent in self.room_for(label_set) if not agent.suspects]
        if self._is_ordered:
            first_rank = min((one.first_rank for one in self.classes_for(label_set)), default=0)
            able = [agent for agent in able if agent.rank == first_rank]
        others = [agent for agent in able if agent.no != avoid]
        return min(others or able, key=lambda agent: agent.heap_key, default=None)

    def _top(self, agent_class: AgentClass, avoid: AgentNo) -> Agent | None:
        heap, agents = agent_class.heap, agent_class.agents
        aside = -1
        found: Agent | None = None
        while heap:
            key = heap[0]
            agent = agents.get(AgentNo(key & _AGENT_MASK))
            if agent is None or agent.heap_key != key:
                heappop(heap)
            elif agent.no == avoid:
                aside = heappop(heap)
            else:
                found = agent
                break
        if aside >= 0:
            heappush(heap, aside)
        return found

    def room_for(self, label_set: LabelSet) -> Iterator[Agent]:
        """Agents with room that could be given a job of the label set now."""
        for agent_class in self.classes_for(label_set):
            for agent in agent_class.agents.values():
                if agent.heap_key >= 0:
                    yield agent
