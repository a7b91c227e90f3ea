"""How a group stands now: its agents and its queue, read off the dispatcher's books in one pass.

Costs time in proportion to agents and lanes, never to jobs, and is called on the event loop between two batches, so
nothing moves while it looks.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import NamedTuple

from broker.dispatch.lane import Lane
from broker.dispatch.ledger import Ledger
from broker.dispatch.model import SECOND_US, Admin, Agent
from broker.dispatch.placement import may_work

StatusOf = Callable[[Agent], StrEnum]


class Fleet(NamedTuple):
    """One group: `held` are attempts that occupy capacity; `agents` are those that were not removed; the sums of slots,
    capacity and free capacity are those of the `active` ones.
    """

    agents: list[Agent]
    active: list[Agent]
    statuses: Counter[StrEnum]
    held: int
    slots: int
    capacity: int
    free: int
    queued: int
    oldest_age_s: float


def fleet_of(ledger: Ledger, status_of: StatusOf, now_us: int) -> Fleet:
    """The group as its books have it at `now_us`."""
    everybody = ledger.agents.values()
    agents = [agent for agent in everybody if agent.admin is not Admin.REMOVED]
    active = [agent for agent in agents if agent.is_active]
    return Fleet(
        agents=agents,
        active=active,
        statuses=Counter(map(status_of, agents)),
        held=sum([agent.held for agent in everybody]),
        slots=sum([agent.slots for agent in active]),
        capacity=sum([agent.capacity for agent in active]),
        free=sum([max(0, agent.capacity - agent.held) for agent in active if may_work(agent)]),
        queued=ledger.queue.jobs,
        oldest_age_s=_oldest_age_us(ledger.queue.all_lanes(), now_us) / SECOND_US if ledger.queue.jobs else 0.0,
    )


def _oldest_age_us(lanes: Iterable[Lane], now_us: int) -> int:
    """How long the first of all lanes' heads waits; a lane is in order, so its head is its oldest."""
    return max(0, now_us - min([lane.head().order_us for lane in lanes if lane.size], default=now_us))
