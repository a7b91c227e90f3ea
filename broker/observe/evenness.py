"""How evenly a group's work was spread lately (promise P8, R72): Jain's index over what each agent was given a slot.

Lately is since the set of agents that share the work last changed, and at most two windows back: an agent that came a
moment ago has not had its share, and that is not unevenness.

Source of the index: Jain, Chiu, Hawe, "A Quantitative Measure of Fairness", DEC-TR-301, 1984.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Final

from broker.dispatch.model import Agent, AgentNo

WINDOW_S: Final = 60.0
AGENTS_MIN: Final = 2
"""One agent has all there is: nothing is to be shared."""
ASSIGNED_MIN: Final = 8
"""Assignments for each agent, on average, below which the index would say more about chance than about spread."""


class Evenness:
    """Assignments of the present window and of the one before it."""

    __slots__ = ("_earlier", "_now")

    def __init__(self) -> None:
        self._now: Counter[AgentNo] = Counter()
        self._earlier: Counter[AgentNo] = Counter()

    def add(self, assigned: Mapping[AgentNo, int]) -> None:
        """So many attempts were given to these agents."""
        self._now.update(assigned)

    def turn(self) -> None:
        """Begin the next window."""
        self._earlier, self._now = self._now, Counter()

    def restart(self) -> None:
        """Other agents share the work: what was before says nothing about them."""
        self._earlier.clear()
        self._now.clear()

    def index(self, agents: Iterable[Agent]) -> float | None:
        """Jain's index over these agents; None when they are too few, or were given too little to tell."""
        given = [(self._now[agent.no] + self._earlier[agent.no], agent.slots) for agent in agents]
        if len(given) < AGENTS_MIN or sum(count for count, _ in given) < ASSIGNED_MIN * len(given):
            return None
        shares = [count / slots for count, slots in given]
        return sum(shares) ** 2 / (len(shares) * sum(share * share for share in shares))
