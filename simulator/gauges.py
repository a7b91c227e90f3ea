"""What the page of a real broker would show of a group at this moment, read from the dispatcher's own books."""

from collections import Counter
from collections.abc import Iterator
from typing import Final

import numpy as np

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.model import Admin, Agent, JobState, Link
from broker.dispatch.placement import may_work
from broker.series import JOB_SECONDS
from simulator.streams import SECOND_US

STATUSES: Final = ("awaiting_setup", "active", "no_response", "draining", "paused", "stopped", "disabled")
"""One word for an agent, as the broker has it; certificates do not run out here."""
_OF_LINK: Final = {
    Link.NEVER: "awaiting_setup",
    Link.SUSPECT: "no_response",
    Link.GONE: "no_response",
    Link.LEFT: "stopped",
    Link.STOPPED: "stopped",
}
_OF_ADMIN: Final = {Admin.ENABLED: "active", Admin.DRAINING: "draining", Admin.PAUSED: "paused"}
_BOUNDS_US: Final = np.asarray(JOB_SECONDS) * SECOND_US


def word_of(agent: Agent) -> str:
    """Where an agent stands: disabled; what its connection says; what operators said."""
    if agent.admin in (Admin.DISABLED, Admin.REMOVED):
        return "disabled"
    return _OF_LINK.get(agent.link) or _OF_ADMIN[agent.admin]


def gauges_of(dispatcher: Dispatcher) -> Iterator[tuple[str, float]]:
    """The gauges of a group by their columns."""
    ledger = dispatcher.ledger
    agents = ledger.agents.values()
    active = [agent for agent in agents if agent.is_active]
    words = Counter(map(word_of, agents))
    for word in STATUSES:
        yield f"status.{word}", words[word]
    yield "occupied", sum([agent.held for agent in agents])
    yield "capacity", sum([agent.capacity for agent in active])
    yield "free", sum([max(0, agent.capacity - agent.held) for agent in active if may_work(agent)])
    queued = ledger.queue.jobs
    yield "queued", queued
    heads_us = [lane.head().order_us for lane in ledger.queue.all_lanes() if lane.size] if queued else []
    yield "oldest", max(0, ledger.now_us - min(heads_us)) / SECOND_US if heads_us else 0.0


def waiting_beside(dispatcher: Dispatcher, waiting: int) -> Iterator[tuple[str, float]]:
    """Of so many jobs that wait, those that are not in the queue; jobs are looked at where there are any."""
    states: Counter[JobState] = Counter()
    if waiting > dispatcher.ledger.queue.jobs:
        states.update(job.state for job in dispatcher.ledger.jobs.values())
    yield "scheduled", states[JobState.SCHEDULED]
    yield "held", states[JobState.HELD]


class Tally:
    """Times as a histogram of the broker's counts them, seen at the end of each window."""

    __slots__ = ("_counts", "_total_us", "counts", "sums_s", "values_us")

    def __init__(self) -> None:
        self.values_us: list[int] = []
        """What is not counted yet: whoever has a time appends it here."""
        self.counts: list[list[int]] = []
        """For each window, how many times so far did not exceed each bound of `JOB_SECONDS`, and how many there are."""
        self.sums_s: list[float] = []
        self._counts = np.zeros(len(JOB_SECONDS) + 1, np.int64)
        self._total_us = 0

    def look(self) -> None:
        """A window ends now."""
        places = np.searchsorted(_BOUNDS_US, self.values_us)
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._total_us += sum(self.values_us)
        self.values_us.clear()
        self.counts.append(np.cumsum(self._counts).tolist())
        self.sums_s.append(self._total_us / SECOND_US)
