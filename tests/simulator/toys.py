"""Small worlds with known answers, for the tests of what is done with worlds.

They draw as the real one does: one stream for each purpose, named by seed, replication and purpose, so that changes of
the servers leave arrivals and work as they were.
"""

import hashlib
import heapq
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydantic import BaseModel


class ToyScenario(BaseModel):
    """A first-come queue with one server. `interrupt_at` sends Ctrl-C to this process in that
    replication, `interrupt_parent_at` to the one that started this one (or to `driver_pid`).
    """

    rate: float = 0.5
    mean_s: float = 1.0
    speed: float = 1.0
    jobs: int = 2000
    interrupt_at: int = -1
    interrupt_parent_at: int = -1
    driver_pid: int = 0
    journal: str = ""


@dataclass(slots=True, frozen=True)
class ToyRun:
    digest: str
    figures: dict[str, float]
    jobs: int
    simulated_s: float
    growth_per_s: float


def queue(scenario: BaseModel, /, *, seed: int, replication: int, changes: Mapping[str, object]) -> ToyRun:
    """An M/M/1 queue by Lindley's recursion: the sojourn time has the mean 1 / (speed / mean_s - rate)."""
    toy = ToyScenario.model_validate({**scenario.model_dump(), **changes})
    if toy.journal:
        with Path(toy.journal).open("a", encoding="utf-8") as journal:
            journal.write(f"{replication} {os.getpid()}\n")
    if replication == toy.interrupt_at:
        signal.raise_signal(signal.SIGINT)
    if replication == toy.interrupt_parent_at:
        os.kill(toy.driver_pid or os.getppid(), signal.SIGINT)
        signal.pause()  # busy until its parent ends it
    arrivals, work = (
        np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(replication, stream))))
        for stream in (0, 1)
    )
    gaps = arrivals.exponential(1 / toy.rate, toy.jobs)
    durations = work.exponential(toy.mean_s, toy.jobs) / toy.speed
    wait, sojourn = 0.0, []
    for gap, duration in zip(gaps, durations, strict=True):
        wait = max(0.0, wait - float(gap))
        wait += float(duration)
        sojourn.append(wait)
    seconds = float(gaps.sum())
    left = sum(1 for back, after in zip(np.cumsum(gaps), sojourn, strict=True) if float(back) + after > seconds)
    kept = sorted(sojourn[toy.jobs // 10 :])
    return ToyRun(
        hashlib.sha256(np.asarray(sojourn).tobytes()).hexdigest(),
        {
            "orders.latency.mean": sum(kept) / len(kept),
            "orders.latency.p99": kept[int(0.99 * len(kept))],
            "lost": 0.0,
            "arrivals.sum_s": seconds,
        },
        toy.jobs,
        seconds,
        left / seconds,
    )


class ToyFleet(BaseModel):
    """A first-come queue with `agents` servers, Poisson arrivals and exponential durations."""

    agents: int = 1
    rate: float = 8.0
    jobs: int = 20_000


def fleet(scenario: BaseModel, /, *, seed: int, replication: int, changes: Mapping[str, object]) -> ToyRun:
    """An M/M/c queue by Kiefer and Wolfowitz: each job goes to the server that is free first."""
    toy = ToyFleet.model_validate({**scenario.model_dump(), **changes})
    generator = np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(seed, spawn_key=(replication,))))
    gaps, durations = generator.exponential(1 / toy.rate, toy.jobs), generator.exponential(1.0, toy.jobs)
    now, free_at, ends, sojourn = 0.0, [0.0] * toy.agents, [], []
    for gap, duration in zip(gaps, durations, strict=True):
        now += float(gap)
        end = max(now, heapq.heappop(free_at)) + float(duration)
        heapq.heappush(free_at, end)
        ends.append(end)
        sojourn.append(end - now)
    kept = sorted(sojourn[toy.jobs // 10 :])
    figures = {"orders.latency.p99": kept[int(0.99 * len(kept))], "lost": 0.0}
    return ToyRun(f"{seed}/{replication}", figures, toy.jobs, now, sum(1 for end in ends if end > now) / now)
