"""Those that want more than their share: what the others' jobs wait is measured with and without them, in turns.

A job waits from its acceptance until its agent begins it. The same load runs all the time; in every second interval
the greedy one is there. The 99th percentile over the intervals with it may be twice that over the others (promise
P10), and some milliseconds more (`NOISE_MS`), because a machine that does other things moves a percentile of short
waits by itself; the short form has too few jobs for a percentile and looks for stalls only (`STALL_MS`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Final

from tests.chaos import floods
from tests.chaos.row import BROKER, MissedError, Ran, Row, Trial
from tests.chaos.siege import RATE, Siege
from tests.chaos.stage import unguarded
from tests.e2e.deaf import NAME as DEAF
from tests.e2e.deaf import DeafAgent
from tests.e2e.stored import SECOND_US, StoredJob, percentile

RATIO_MAX: Final = 2.0
NOISE_MS: Final = 25.0
STALL_MS: Final = 2_000.0
DEAF_CAPACITY: Final = 64
QUEUE_MAX: Final = 5_000

Greedy = Callable[[Siege, int], Awaitable[tuple[int, float, float]]]
"""Is greedy for so many seconds: how much was done, from when until when (wall clock, in seconds)."""


async def _compared(trial: Trial, greedy: Greedy, siege: Siege) -> Ran:
    """Intervals without and with, in turns; how the waits compare."""
    spans: list[tuple[float, float, bool]] = []
    fired, seconds = 0, trial.of(1, 15)
    async with siege:
        for at in range(trial.of(4, 8)):
            if at % 2:
                done, began_s, ended_s = await greedy(siege, seconds)
                fired += done
            else:
                began_s = time.time()
                await siege.load.until_acknowledged(int(RATE * seconds))
                ended_s = time.time()
            spans.append((began_s, ended_s, at % 2 == 1))
            if at == 1:
                siege.mark()  # the first of its kind warms up
    without, with_it = (_waits_ms(siege, [span for span in spans if span[2] is kind]) for kind in (False, True))
    siege.figures |= compared(without, with_it)
    is_kept = is_at_most_doubled(siege.figures, NOISE_MS if trial.is_full else STALL_MS)
    siege.expect(is_kept, f"others' jobs wait more than twice as long: {siege.figures}")
    return siege.ran(fired)


def compared(without_ms: Sequence[float], with_ms: Sequence[float]) -> dict[str, float]:
    """Medians and 99th percentiles of the waits without and with somebody greedy."""
    p99_without_ms, p99_with_ms = percentile(without_ms, 0.99), percentile(with_ms, 0.99)
    return {
        "wait_p50_without_ms": percentile(without_ms, 0.5),
        "wait_p50_with_ms": percentile(with_ms, 0.5),
        "wait_p99_without_ms": p99_without_ms,
        "wait_p99_with_ms": p99_with_ms,
        "wait_p99_ratio": p99_with_ms / p99_without_ms,
        "jobs_measured": len(with_ms),
    }


def is_at_most_doubled(figures: Mapping[str, float], noise_ms: float) -> bool:
    """Whether the 99th percentile with him is at most twice that without, and so much noise."""
    return figures["wait_p99_with_ms"] <= RATIO_MAX * figures["wait_p99_without_ms"] + noise_ms


def _waits_ms(siege: Siege, spans: list[tuple[float, float, bool]]) -> list[float]:
    """How long jobs waited that were accepted in one of the spans, and began with their first attempt."""
    begun = {entry.key: entry.t for entry in siege.course.entries() if (entry.op, entry.phase) == ("run", "invoke")}
    return [
        (begun[key] - _accepted_s(job)) * 1_000
        for job in siege.course.jobs
        if (key := f"{job.job_key}/1") in begun and any(since <= _accepted_s(job) < until for since, until, _ in spans)
    ]


def _accepted_s(job: StoredJob) -> float:
    return job.accepted_us / SECOND_US


# --- rows -------------------------------------------------------------------------------------------------------------


async def never_reads(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """An agent with room for many jobs that is sent them, says that it lives, and reads nothing."""

    async def greedy(siege: Siege, seconds: int) -> tuple[int, float, float]:
        async with DeafAgent(siege.mesh, capacity=DEAF_CAPACITY):
            await siege.course.agent_is(DEAF, "active")
            began_s = time.time()
            await siege.load.until_acknowledged(int(RATE * seconds))
            return 1, began_s, time.time()

    siege = Siege(trial, program=program)
    ran = await _compared(trial, greedy, siege)
    hit = sum(attempt.agent == DEAF for job in siege.course.jobs for attempt in job.attempts)
    if not hit:
        raise MissedError("the agent that never reads was sent nothing")
    ran.fired = hit
    return ran


async def flooding_submitter(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """A program that submits as fast as it is answered to a group beside the others', until that is full and after."""
    sent: list[tuple[int, int]] = []

    async def greedy(siege: Siege, seconds: int) -> tuple[int, float, float]:
        counts = await siege.attack("submissions", siege.api, seconds)
        sent.append((siege.seed, counts["sent"]))
        for name in ("accepted", "refused"):
            siege.figures[f"flood_{name}"] = siege.figures.get(f"flood_{name}", 0) + counts[name]
        return counts["sent"], counts["began_ms"] / 1_000, counts["ended_ms"] / 1_000

    async def tidy(siege: Siege) -> None:
        for seed, number in sent:
            for job_id in islice(floods.job_ids(seed), number):
                siege.course.history.add("submit", job_id.hex(), "invoke")
        await siege.course.client.remove_group("greedy", force=True)

    siege = Siege(trial, program=program, before=_make_group, after=tidy)
    return await _compared(trial, greedy, siege)


async def _make_group(siege: Siege) -> None:
    await siege.course.client.create_group("greedy", queue_jobs_max=QUEUE_MAX)
    await siege.course.client.create_environment("greedy", groups=["greedy"])


async def flooding_agent(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """An agent that reports heartbeats, progress, starts and outcomes of nothing as fast as it can."""

    async def greedy(siege: Siege, seconds: int) -> tuple[int, float, float]:
        counts = await siege.attack("reports", siege.mesh, seconds)
        siege.figures["flood_reports"] = siege.figures.get("flood_reports", 0) + counts["reports"]
        return counts["frames"], counts["began_ms"] / 1_000, counts["ended_ms"] / 1_000

    return await _compared(trial, greedy, Siege(trial, program=program))


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "agent-never-reads",
        "An agent is sent jobs, says that it lives and reads nothing: what others' jobs wait at most doubles",
        never_reads,
        control=unguarded("waits-for-readers", never_reads, "others' jobs wait", is_short=False),
        is_in_suite=False,
    ),
    Row(
        "submitter-floods",
        "A program submits as fast as it is answered: what others' jobs wait at most doubles",
        flooding_submitter,
        control=unguarded("floods-first", flooding_submitter, "others' jobs wait", is_short=False),
        is_in_suite=False,
    ),
    Row(
        "agent-floods",
        "An agent floods heartbeats, progress and outcomes: what others' jobs wait at most doubles",
        flooding_agent,
        control=unguarded("floods-first", flooding_agent, "others' jobs wait", is_short=False),
        is_in_suite=False,
    ),
)
