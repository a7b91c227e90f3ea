"""What counting and scraping cost: `python -m tests.broker.observe.bench [--agents N] [--queued N] [--json]`.

A dispatcher with so many agents and queued jobs, and the real `Metrics` over its books. Figures: microseconds a job to
count its transitions in batches as the engine takes them and one by one; milliseconds that the event loop spends on a
snapshot, and that another thread spends on the page made from it; bytes and samples of the page.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from bench.dispatch import Bench
from broker.clock import EngineClock
from broker.control.status import AgentStatus, agent_status
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import Notice, Transition
from broker.dispatch.model import AgentNo, GroupNo, JobKey, JobState
from broker.observe.metrics import Metrics
from broker.observe.page import MetricsPage

ROUNDS = 15
BATCH_JOBS = 256
JOBS = 16 * BATCH_JOBS
GROUP = GroupNo(1)
AGENTS_SHOWN = 200


class BenchBooks:
    """The one dispatcher of a bench, as metrics see it."""

    is_stalled = False

    def __init__(self, dispatcher: Dispatcher, now_us: int) -> None:
        self._dispatcher = dispatcher
        self.clock = EngineClock(lambda: now_us * 1_000, lambda: 0)

    def dispatchers(self) -> Iterator[Dispatcher]:
        return iter((self._dispatcher,))

    def dispatcher_of(self, group: GroupNo) -> Dispatcher:
        return self._dispatcher

    def waiting(self) -> Mapping[str, int]:
        return {"control": 0, "reports": 0, "submissions": 0}

    def group_label(self, group_no: GroupNo) -> str:
        return "default/default"


def measure(agents: int, queued: int, agents_shown: int = AGENTS_SHOWN) -> dict[str, float]:
    """All figures; each is the fastest of some rounds."""
    bench = Bench(agents, queued)
    books = BenchBooks(bench.dispatcher, bench.now_us)
    metrics = Metrics(books, books, agent_status, AgentStatus, agents_shown)
    metrics.begin()
    batches = _batches(JOBS, bench.now_us)
    single = [[notice] for batch in batches for notice in batch]
    page, text = _page(metrics)
    return {
        "count_us_per_job": round(_best_s(lambda: _count(metrics, batches)) / JOBS * 1e6, 3),
        "count_alone_us_per_job": round(_best_s(lambda: _count(metrics, single)) / JOBS * 1e6, 3),
        "snapshot_ms": round(_best_s(metrics.snapshot) * 1e3, 3),
        "page_ms": round(page * 1e3, 3),
        "bytes": len(text),
        "series": sum(not line.startswith(b"#") for line in text.splitlines()),
        "agents": agents,
        "queued": queued,
    }


def _batches(jobs: int, now_us: int) -> list[list[Notice]]:
    """The transitions of so many jobs that succeed, mixed in batches as under load."""
    return [_batch(range(first, first + BATCH_JOBS), now_us) for first in range(0, jobs, BATCH_JOBS)]


def _batch(numbers: Iterable[int], now_us: int) -> list[Notice]:
    notices: list[Notice] = []
    for number in numbers:
        key, agent = JobKey(number), AgentNo(1 + number % 8)
        ready_us, started_us = now_us - 1_000 * (1 + number % 97), now_us - 100 * (1 + number % 7)
        for before, after, started in (
            (None, JobState.QUEUED, 0),
            (JobState.QUEUED, JobState.ASSIGNED, 0),
            (JobState.ASSIGNED, JobState.RUNNING, started_us),
            (JobState.RUNNING, JobState.SUCCEEDED, started_us),
        ):
            at_us, attempt = now_us, int(before is not None)
            notices.append(
                Transition(GROUP, key, attempt, at_us, before, after, "", agent, "", ready_us, ready_us, started)
            )
    return notices


def _count(metrics: Metrics, batches: Sequence[Sequence[Notice]]) -> None:
    for batch in batches:
        metrics.on_batch(batch, 1)


def _page(metrics: Metrics) -> tuple[float, bytes]:
    """Seconds that a thread needs for the page, and the page."""

    async def read() -> tuple[float, bytes]:
        page = MetricsPage(metrics.snapshot, Path("no-such-file"))
        page.open(asyncio.get_running_loop())
        text = await asyncio.to_thread(page.text)
        began_s = time.perf_counter()
        await asyncio.to_thread(page.text)
        return time.perf_counter() - began_s, text

    return asyncio.run(read())


def _best_s(work: Callable[[], object]) -> float:
    """The fastest round: other programs of the machine make the others slower, never faster."""
    taken: list[float] = []
    for _ in range(ROUNDS):
        began_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began_s)
    return min(taken)


def main() -> int:
    parser = argparse.ArgumentParser(description="What counting and scraping cost.")
    parser.add_argument("--agents", type=int, default=1_000)
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--shown", type=int, default=AGENTS_SHOWN, help="groups up to so many agents show each")
    options = parser.parse_args()
    print(json.dumps(measure(options.agents, options.queued, options.shown)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
