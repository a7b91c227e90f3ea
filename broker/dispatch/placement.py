"""Which agent gets the next job: the least loaded one that may take it (promise P8).

Load is live / slots, so a big agent gets more. Ties go to the agent that was assigned longest ago: with equal agents
this is round robin. Agents with the same operations and labels form a class with one heap; only agents with room that
may work are in it. A heap entry is one integer, (load, last assignment, agent), and counts only while it equals the
agent's own `heap_key`: what changed meanwhile is skipped.
"""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush
from typing import Final

from broker.dispatch.model import Admin, Agent, AgentNo, DispatchPolicy, Job, Link
from broker.dispatch.queue import LabelSet

_AGENT_BITS: Final = 24
_ASSIGNED_BITS: Final = 60
_AGENT_MASK: Final = (1 << _AGENT_BITS) - 1
_LOAD_SHIFT: Final = _AGENT_BITS + _ASSIGNED_BITS
_COMPACT_MIN: Final = 64


class AgentClass:
    """Agents with the same operations and labels."""

    __slots__ = ("agents", "heap", "labels", "operations")

    def __init__(self, operations: frozenset[str], labels: frozenset[str]) -> None:
        self.operations = operations
        self.labels = labels
        self.agents: dict[AgentNo, Agent] = {}
        self.heap: list[int] = []

    def serves(self, label_set: LabelSet) -> bool:
        """Whether its agents have what these jobs ask for."""
        return label_set.operation in self.operations and label_set.labels <= self.labels


def may_work(agent: Agent) -> bool:
    """Whether the agent may be given anything at all, room aside."""
    return agent.link is Link.LIVE and agent.admin is Admin.ENABLED and not agent.is_busy and not agent.is_deaf


def may_take(job: Job, agent: Agent) -> bool:
    """Whether the agent may be given this job, room aside: the one predicate of placement, invariants and explain."""
    return may_work(agent) and agent.agent_class is not None and agent.agent_class.serves(job.lane.level.label_set)


def load_key(agent: Agent) -> int:
    """The agent's place in the order of placement: lower is earlier."""
    load = (agent.held << 20) // agent.slots
    return load << _LOAD_SHIFT | agent.last_assigned_no << _AGENT_BITS | agent.no


class Placement:
    """The heaps of a group's agents. It never changes an agent but for its heap key and class."""

    __slots__ = ("_agents", "_policy", "classes", "version")

    def __init__(self, policy: DispatchPolicy, agents: dict[AgentNo, Agent]) -> None:
        self._policy = policy
        self._agents = agents
        self.classes: dict[tuple[frozenset[str], frozenset[str]], AgentClass] = {}
        self.version = 0

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
        agent.heap_key = -1
        agent.agent_class = None
        del old.agents[agent.no]
        if not old.agents:
            del self.classes[old.operations, old.labels]
            self.version += 1

    def refresh(self, agent: Agent) -> None:
        """Put the agent where its load says, or out if it has no room or may not work. Call after every change."""
        agent_class = agent.agent_class
        if agent_class is None:
            return
        if agent.held >= agent.capacity or not may_work(agent):
            agent.heap_key = -1
            return
        key = load_key(agent)
        if key == agent.heap_key:
            return
        agent.heap_key = key
        heap = agent_class.heap
        heappush(heap, key)
        if len(heap) > 2 * len(agent_class.agents) + _COMPACT_MIN:
            heap[:] = [one.heap_key for one in agent_class.agents.values() if one.heap_key >= 0]
            heapify(heap)

    def classes_for(self, label_set: LabelSet) -> list[AgentClass]:
        """The classes whose agents may serve the label set."""
        if label_set.classes_version != self.version:
            label_set.classes = [one for one in self.classes.values() if one.serves(label_set)]
            label_set.classes_version = self.version
        return label_set.classes

    def pick(self, label_set: LabelSet, avoid: AgentNo) -> Agent | None:
        """The least loaded agent with room that may serve the label set; `avoid` only if there is no other."""
        best: Agent | None = None
        for agent_class in self.classes_for(label_set):
            top = self._top(agent_class, avoid)
            if top is not None and (best is None or top.heap_key < best.heap_key):
                best = top
        if best is None and avoid:
            return self.pick(label_set, AgentNo(0))
        return best

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

    def offers(self, label_set: LabelSet) -> bool:
        """Whether an agent that is there could serve the label set, room and passing troubles aside."""
        return any(
            agent.is_present for agent_class in self.classes_for(label_set) for agent in agent_class.agents.values()
        )

    def room_for(self, label_set: LabelSet) -> Iterable[Agent]:
        """Agents that could be given a job of the label set now: for invariants and explanations."""
        return (
            agent
            for agent_class in self.classes_for(label_set)
            for agent in agent_class.agents.values()
            if agent.heap_key >= 0
        )
