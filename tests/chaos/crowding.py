"""Those that want more than their share: what the others' jobs wait is measured with and without them, in turns.

A job waits from its submission until its agent begins it. The same load runs all the time, in intervals of three kinds:
quiet; with the greedy one; and with a neighbour, a process that takes as much processor time as the greedy one's own
process took and does nothing with it. What the greedy one costs is the difference to the neighbour: on a machine of two
cores any process that is busy makes others wait, and a flood comes from elsewhere. The 99th percentile with the greedy
one may be twice that (promise P10) and a little more (`NOISE_MS`); the short form has too few jobs for a percentile and
looks for stalls only (`STALL_MS`).
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import islice
from typing import Final, NamedTuple

from tests.chaos import floods
from tests.chaos.row import BROKER, MissedError, Ran, Row, Trial
from tests.chaos.siege import RATE, Siege
from tests.chaos.stage import unguarded
from tests.e2e.deaf import NAME as DEAF
from tests.e2e.deaf import DeafAgent
from tests.e2e.stored import percentile

RATIO_MAX: Final = 2.0
NOISE_MS: Final = 5.0
"""Two slices of the scheduler: whoever wakes while more processes are ready than there are cores waits for one."""
STALL_MS: Final = 2_000.0
DEAF_CAPACITY: Final = 64
QUEUE_MAX: Final = 5_000


class Greed(NamedTuple):
    """What somebody greedy did: how much of it arrived, when it was felt (wall clock), and what it cost himself."""

    arrived: int
    began_s: float
    ended_s: float
    busy_s: float = 0.0
    """Processor time of his own process."""


Greedy = Callable[[Siege, int], Awaitable[Greed]]
"""Is greedy for so many seconds."""
Span = tuple[float, float]


async def _compared(trial: Trial, greedy: Greedy, siege: Siege) -> Ran:
    """Intervals of the three kinds, in turns; how the waits compare."""
    quiet: list[Span] = []
    beside: list[Span] = []
    crowded: list[Span] = []
    fired, seconds = 0, trial.of(1, 12)
    async with siege:
        for _ in range(trial.of(1, 3)):
            quiet.append(await _calm(siege, seconds))
            greed = await greedy(siege, seconds)
            fired += greed.arrived
            crowded.append((greed.began_s, greed.ended_s))
            if len(crowded) == 1:
                siege.mark()  # the first of its kind warms up
            if greed.busy_s:
                share = min(1.0, greed.busy_s / (greed.ended_s - greed.began_s))
                beside.append(await _neighbour(siege, seconds, share))
    waits_ms = _waits_ms(siege)
    without_ms, with_ms, quiet_ms = (_within(waits_ms, spans) for spans in (beside or quiet, crowded, quiet))
    siege.figures |= {"wait_p99_quiet_ms": percentile(quiet_ms, 0.99)} | compared(without_ms, with_ms)
    is_kept = is_at_most_doubled(siege.figures, NOISE_MS if trial.is_full else STALL_MS)
    siege.expect(is_kept, f"others' jobs wait more than twice as long: {siege.figures}")
    return siege.ran(fired)


async def _calm(siege: Siege, seconds: int) -> Span:
    began_s = time.time()
    await siege.load.until_acknowledged(int(RATE * seconds))
    return began_s, time.time()


async def _neighbour(siege: Siege, seconds: int, share: float) -> Span:
    """Somebody who takes this share of a core, and nothing of the broker."""
    siege.figures["neighbour_percent"] = 100 * share
    counts = await siege.attack("neighbour", str(share), seconds)
    return counts["began_ms"] / 1_000, counts["ended_ms"] / 1_000


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


def _waits_ms(siege: Siege) -> list[tuple[float, float]]:
    """When each job was submitted that began at its first attempt (wall clock, in seconds), and how long it waited."""
    entries = [entry for entry in siege.course.entries() if entry.phase == "invoke"]
    begun_s = {entry.key: entry.t for entry in entries if entry.op == "run"}
    submitted_s = {entry.key: entry.t for entry in entries if entry.op == "submit"}
    return [
        (since_s, (begun_s[key] - since_s) * 1_000)
        for job in siege.course.jobs
        if (key := f"{job.job_key}/1") in begun_s and (since_s := submitted_s.get(job.job_id.hex())) is not None
    ]


def _within(waits_ms: Sequence[tuple[float, float]], spans: Sequence[Span]) -> list[float]:
    return [wait_ms for at_s, wait_ms in waits_ms if any(since_s <= at_s < until_s for since_s, until_s in spans)]


# --- rows -------------------------------------------------------------------------------------------------------------


async def never_reads(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """An agent with room for many jobs that is sent them, says that it lives, and reads nothing."""

    async def greedy(siege: Siege, seconds: int) -> Greed:
        async with DeafAgent(siege.mesh, capacity=DEAF_CAPACITY):
            await siege.course.agent_is(DEAF, "active")
            return Greed(1, *await _calm(siege, seconds))

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

    async def greedy(siege: Siege, seconds: int) -> Greed:
        counts = await siege.attack("submissions", siege.api, seconds)
        sent.append((siege.seed, counts["sent"]))
        for name in ("accepted", "refused"):
            siege.figures[f"flood_{name}"] = siege.figures.get(f"flood_{name}", 0) + counts[name]
        return _greed(counts, counts["accepted"] + counts["refused"])

    async def tidy(siege: Siege) -> None:
        for seed, number in sent:
            for job_id in islice(floods.job_ids(seed), number):
                siege.course.history.add("submit", job_id.hex(), "invoke")
        await siege.course.client.remove_group("greedy", force=True)

    siege = Siege(trial, program=program, before=_make_group, after=tidy)
    return await _compared(trial, greedy, siege)


def _greed(counts: Mapping[str, int], arrived: int) -> Greed:
    """`arrived` is what was answered: what was sent may lie anywhere."""
    return Greed(arrived, counts["began_ms"] / 1_000, counts["ended_ms"] / 1_000, counts["busy_ms"] / 1_000)


async def _make_group(siege: Siege) -> None:
    await siege.course.client.create_group("greedy", queue_jobs_max=QUEUE_MAX)
    await siege.course.client.create_environment("greedy", groups=["greedy"])


async def flooding_agent(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """An agent that reports heartbeats, progress, starts and outcomes of nothing as fast as it can."""

    async def greedy(siege: Siege, seconds: int) -> Greed:
        counts = await siege.attack("reports", siege.mesh, seconds)
        siege.figures["flood_reports"] = siege.figures.get("flood_reports", 0) + counts["reports"]
        return _greed(counts, counts["answers"])

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
        "A program submits as fast as it is answered: what others' jobs wait at most doubles, "
        "compared with a neighbour as busy",
        flooding_submitter,
        control=unguarded("floods-first", flooding_submitter, "others' jobs wait", is_short=False),
        is_in_suite=False,
    ),
    Row(
        "agent-floods",
        "An agent floods heartbeats, progress and outcomes: what others' jobs wait at most doubles, "
        "compared with a neighbour as busy",
        flooding_agent,
        control=unguarded("floods-first", flooding_agent, "others' jobs wait", is_short=False),
        is_in_suite=False,
    ),
)
