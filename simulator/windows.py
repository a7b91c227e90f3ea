"""What is seen over time for pictures: who was given how much, and how long jobs took, in equal windows of the run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeVar

import numpy as np
import numpy.typing as npt

from simulator.gauges import gauges_of, waiting_beside
from simulator.histogram import BUCKETS, Histogram, buckets_of

if TYPE_CHECKING:
    from simulator.driver import Driver
    from simulator.recorder import FleetLog, Recorder

T = TypeVar("T")

WINDOWS: Final = 48
"""How many windows a run has; each is some seconds to some minutes."""
AGENTS_MAX: Final = 1_000
"""Groups of more agents are not seen one by one."""
ENOUGH: Final = 5
"""Assignments for each agent that a window needs: fewer are uneven by chance."""


class LatencyWindows:
    """Latencies of one class of work by window of arrival."""

    def __init__(self, end_us: int) -> None:
        self._width_us = max(1, -(-end_us // WINDOWS))
        self._counts: npt.NDArray[np.int64] = np.zeros((WINDOWS, BUCKETS), np.int64)

    def add(self, arrived_us: npt.NDArray[np.float64], latency_s: npt.NDArray[np.float64]) -> None:
        """Take in latencies with the arrivals of their jobs, all before the end."""
        if len(arrived_us):
            windows = np.minimum(arrived_us // self._width_us, WINDOWS - 1).astype(np.int64)
            np.add.at(self._counts, (windows, buckets_of(latency_s)), 1)

    def quantile(self, share: float) -> list[float | None]:
        """The quantile of each window in seconds; None where no job arrived that succeeded."""
        seen = [Histogram(counts, int(counts.sum()), least=0.0, most=np.inf) for counts in self._counts]
        return [one.quantile(share) if one.count else None for one in seen]


@dataclass(slots=True, frozen=True)
class Shares:
    """Assignments of a group: `counts[agent][window]`, windows begin at `from_s` and last `width_s`; `up` likewise."""

    agents: list[str]
    from_s: float
    width_s: float
    counts: list[list[int]]
    up: list[list[bool]]


@dataclass(slots=True)
class Look:
    """One look at a group."""

    at_us: int
    assigned: list[int]
    up: list[bool]


@dataclass(slots=True)
class ShareWindows:
    """Looks at the assignments of one group at equal distances."""

    log: "FleetLog"
    looks: list[Look] = field(default_factory=list)

    def look(self, now_us: int) -> None:
        """Once at each end of a window."""
        agents = self.log.fleet.agents
        if len(agents) <= AGENTS_MAX:
            assigned, live = self.log.assigned, self.log.live
            self.looks.append(
                Look(now_us, [assigned.get(one.no, 0) for one in agents], [one.no in live for one in agents])
            )

    def shares(self, begin_us: int) -> Shares | None:
        """What each agent was given in each window after `begin_us`; None if nobody looked twice."""
        looks = [look for look in self.looks if look.at_us >= begin_us]
        agents = self.log.fleet.agents
        if len(looks) < 2 or any(len(look.assigned) > len(agents) for look in looks):
            return None
        count = len(agents)
        counts = np.asarray([_padded(look.assigned, count, 0) for look in looks], np.int64)
        up = np.asarray([_padded(look.up, count, fill=False) for look in looks], np.bool_)
        return Shares(
            [f"{agent.name} {agent.zone}" for agent in agents],
            looks[0].at_us / 1e6,
            (looks[1].at_us - looks[0].at_us) / 1e6,
            np.diff(counts, axis=0).T.tolist(),
            (up[:-1] & up[1:]).T.tolist(),
        )


FINAL: Final = ("succeeded", "failed", "cancelled", "dead")


def course_of(recorder: "Recorder", driver: "Driver") -> Iterator[tuple[str, float]]:
    """What each group has now, under names like `erp.running`: what the broker of a real group would show."""
    for number, log in recorder.fleets.items():
        name = log.fleet.name
        dispatcher = driver.dispatcher(number)
        beside = waiting_beside(dispatcher, log.waiting.value)
        yield from ((f"{name}.{column}", value) for column, value in chain(gauges_of(dispatcher), beside))
        yield f"{name}.assigned", log.given
        yield f"{name}.overlapped", log.overlapped
        yield f"{name}.waiting", log.waiting.value
        yield f"{name}.running", log.running.value
        yield f"{name}.up", len(log.live)
        yield f"{name}.slots", sum(agent.pool.slots for agent in log.fleet.agents if agent.no in log.live)
        works = [work for work in recorder.work.values() if work.group == number]
        refused = sum(part.get("refused", 0) for work in works for part in work.counts)
        yield f"{name}.refused", refused
        yield f"{name}.submitted", sum(sum(work.arrivals) for work in works) - refused
        for state in FINAL:
            yield f"{name}.{state}", sum(work.ended(state) for work in works)


def _padded(values: list[T], count: int, fill: T) -> list[T]:
    return values + [fill] * (count - len(values))


def evenness_of(shares: Shares | None, slots: Sequence[int]) -> Mapping[str, float]:
    """Jain's index over the windows, of what agents that were up throughout were given for each of their slots.

    `count` is in how many windows that was enough to say so.
    """
    indexes = []
    if shares is not None:
        counts, up = np.asarray(shares.counts, np.float64), np.asarray(shares.up, np.bool_)
        for window in range(counts.shape[1]):
            there = up[:, window]
            given = counts[there, window] / np.asarray(slots, np.float64)[there]
            if len(given) and counts[there, window].sum() >= ENOUGH * len(given):
                indexes.append(jain(given))
    mean = float(np.mean(indexes)) if indexes else 1.0
    return {"count": len(indexes), "least": min(indexes, default=1.0), "mean": mean}


def jain(values: npt.NDArray[np.float64]) -> float:
    """Jain's index (Jain, Chiu and Hawe 1984): 1 is even, 1 / n is everything on one of n."""
    squares = float((values**2).sum())
    return float(values.sum()) ** 2 / (len(values) * squares) if squares else 1.0
