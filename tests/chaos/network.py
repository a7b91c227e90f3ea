"""Cuts, delays, losses and resets between real network namespaces.

The agent a1 is in a namespace of its own behind a bad wire (`tests.chaos.namespace`), a2 is beside the broker.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Final
from uuid import UUID

from mesh_client import JobSpec
from tests.chaos.namespace import NEEDS, TO_AGENT, TO_BROKER, Namespace, Weather
from tests.chaos.reckless import reckless
from tests.chaos.row import BROKER, Control, Ran, Row, Trial
from tests.chaos.stage import NO_HURRY_MS, SECOND_MS, hasty, planted
from tests.e2e.course import AGENT_PROGRAM, FAST, Course, until
from tests.e2e.history import Entry, attempt_key
from tests.e2e.stored import percentile_s

SLOTS: Final = 4
RATE: Final = 60.0
DEFAULTS: Final[dict[str, str]] = {}
# The lease has time left when an agent is suspected, and so has the grace while it backs off.
PATIENT: Final = {
    "MESH_DISPATCH__LEASE_S": "15",
    "MESH_DISPATCH__MARGIN_S": "3",
    "MESH_DISPATCH__RECONNECT_GRACE_S": "14",
    "MESH_DISPATCH__RECOVERY_GRACE_S": "25",
}
EXCLUSIVE: Final = {"MESH_OPERATIONS__SLEEP__EXCLUSIVE": "true"}
FOUND_MAX_S: Final = 10.0
"""A2 of the promises: within this time a silent agent is found, at the default settings."""
DIAL_S: Final = 5.0
BACKOFF_S: Final = 10.0
BACK_MAX_S: Final = 2 * DIAL_S + BACKOFF_S
"""An agent is back after the heal: at worst it has begun a try in vain, then its longest back-off, then a try."""
DIRECTIONS: Final = (TO_BROKER, TO_AGENT)
THIN_BYTES_S: Final = 125_000
LARGE_BYTES: Final = 1_000_000
THIN_WAIT_S: Final = 180.0
THIN_CONTROL_S: Final = 60.0
"""What is given out again and again never arrives; where it does, the payloads of the short form take 20 s."""


@asynccontextmanager
async def far_agent(
    trial: Trial,
    settings: Mapping[str, str],
    program: Sequence[str] = BROKER,
    *,
    agent_program: Sequence[str] = AGENT_PROGRAM,
    far_slots: int = SLOTS,
    near_slots: int = 4 * SLOTS,
) -> AsyncIterator[tuple[Course, Namespace]]:
    """A broker, the agent a1 behind the wire, and a2 without one."""
    async with (
        Course(
            trial.folder, settings=settings, broker_program=program, agent_program=agent_program, seed=trial.seed
        ) as course,
        Namespace(trial.folder, seed=trial.seed) as far,
    ):
        await asyncio.gather(
            course.start_agent("a1", slots=far_slots, prefix=far.prefix), course.start_agent("a2", slots=near_slots)
        )
        yield course, far


async def cut(
    trial: Trial,
    *directions: str,
    settings: dict[str, str] = DEFAULTS,
    program: Sequence[str] = BROKER,
    agent_program: Sequence[str] = AGENT_PROGRAM,
) -> Ran:
    """Work is with a1 when its wire is cut for longer than its lease, and heals."""
    ran = Ran(f"{RATE:g} jobs/s, 2 agents")
    async with far_agent(trial, _pace(trial) | settings, program, agent_program=agent_program) as (course, far):
        held = await _held_by_far(course, [5.0, 45.0] if trial.is_full else [3.0 if settings else 1.5])
        async with course.load(rate=RATE, run_s=None) as load:
            await load.until_acknowledged(10)
            with course.during("cut", "a1"):
                await far.cut(*directions)
                cut_s = time.monotonic()
                ends_s = cut_s + trial.of(3, 30)
                await _is_not_active(course, "a1")
                ran.figures["found_s"] = time.monotonic() - cut_s
                await _begun_again(course, held)
                ran.figures["elsewhere_s"] = time.monotonic() - cut_s
                await asyncio.sleep(ends_s - time.monotonic())
                lost = await far.counts()
                await far.heal()
                healed_s = time.monotonic()
                await course.agent_is("a1", "active")
                ran.recovery_ms.append((time.monotonic() - healed_s) * 1_000)
            await load.until_acknowledged(30)
        ran.judged(await course.judge())
        ran.fired = int(all(lost[name].cut for name in directions or DIRECTIONS))
        ran.violations += _found_late(trial, ran) + _came_late(ran)
        ran.violations += _late_ones(course.entries(), held, is_exclusive=bool(settings))
    return ran


async def cut_from_broker(trial: Trial, *, agent_program: Sequence[str] = AGENT_PROGRAM) -> Ran:
    """In one direction, while a1 holds exclusive work."""
    return await cut(trial, TO_AGENT, settings=EXCLUSIVE, agent_program=agent_program)


def _pace(trial: Trial) -> dict[str, str]:
    return DEFAULTS if trial.is_full else FAST


async def _held_by_far(course: Course, seconds: Sequence[float]) -> list[str]:
    """Attempts that a1 runs; a2 has its share of the same jobs."""
    await course.submit([seconds[number % len(seconds)] for number in range(5 * SLOTS)])
    return [run.key for run in await course.begun("a1", SLOTS - 1)]


async def _is_not_active(course: Course, agent: str) -> None:
    async def found() -> bool:
        return (await course.client.get_agent("default", agent)).status != "active"

    await until(found, f"{agent} is found to be silent")


async def _begun_again(course: Course, held: Sequence[str]) -> None:
    following = {_next_of(key) for key in held}

    async def begun() -> bool:
        return following <= {one.key for one in course.entries() if (one.op, one.phase) == ("run", "invoke")}

    await until(begun, "what a1 holds has begun elsewhere")


def _next_of(key: str) -> str:
    job_key, _, number = key.partition("/")
    return attempt_key(int(job_key), int(number) + 1)


def _found_late(trial: Trial, ran: Ran) -> list[str]:
    found_s, limit_s = ran.figures["found_s"], FOUND_MAX_S if trial.is_full else NO_HURRY_MS / SECOND_MS
    return [f"the silent agent was found after {found_s:.1f} s"] if found_s > limit_s else []


def _came_late(ran: Ran) -> list[str]:
    return [f"the agent was back {one:.0f} ms after the heal" for one in ran.recovery_ms if one > BACK_MAX_S * 1_000]


def _late_ones(entries: Sequence[Entry], held: Sequence[str], *, is_exclusive: bool) -> list[str]:
    """Whether a1's late outcomes were answered at all; and of exclusive jobs, whether one ran beside itself."""
    answered = {one.key for one in entries if one.op == "outcome"}
    texts = [] if answered & set(held) else ["no outcome came late: that it counts once was not tried"]
    if is_exclusive:
        runs = {(one.key, one.phase == "invoke"): one.t for one in entries if one.op == "run"}
        texts += [f"ran beside itself: {key}" for key in held if runs[_next_of(key), True] < runs[key, False]]
    return texts


async def vanished_agent(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """The machine of a1 is gone with all that it would have said last; then it comes back, with another process."""
    ran = Ran(f"{RATE:g} jobs/s, 2 agents")
    async with far_agent(trial, _pace(trial), program) as (course, far):
        held = await _held_by_far(course, [1.5])
        async with course.load(rate=RATE, run_s=None) as load:
            await load.until_acknowledged(10)
            with course.during("kill", "a1"):
                await far.cut()
                gone_s = time.monotonic()
                await course.mesh.agents["a1"].kill()
                await _is_not_active(course, "a1")
                ran.figures["found_s"] = time.monotonic() - gone_s
                await _begun_again(course, held)
                ran.recovery_ms.append((time.monotonic() - gone_s) * 1_000)
                ran.fired = int((await far.counts())[TO_BROKER].cut > 0)  # the end of its connection
                await far.heal()
            await course.start_agent("a1", slots=SLOTS, prefix=far.prefix)
            await load.until_acknowledged(30)
        ran.judged(await course.judge())
        ran.violations += _found_late(trial, ran)
    return ran


async def vanished_broker(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """The broker's machine is gone without a word, and comes back: a1 still believes in its connection."""
    ran = Ran(f"{RATE:g} jobs/s, 2 agents")
    async with far_agent(trial, _pace(trial), program) as (course, far):
        await _held_by_far(course, [trial.of(3, 20)])
        async with course.load(rate=RATE, run_s=None) as load:
            await load.until_acknowledged(10)
            sessions = _sessions(course)
            with course.during("restart", "broker"):
                await far.cut()
                await course.mesh.broker.kill()
                ran.fired = int((await far.counts())[TO_AGENT].cut > 0)  # the end of its connections
                await course.mesh.start_broker()
                await asyncio.sleep(trial.of(0, 12))
                await far.heal()
                ran.recovery_ms.append(await _back_ms(course, sessions))
            await load.until_acknowledged(30)
        ran.judged(await course.judge())
        ran.violations += _came_late(ran)
    return ran


async def reset_storm(trial: Trial, program: Sequence[str] = BROKER) -> Ran:
    """One kernel or the other forgets the connection of a1, again and again, while a1 works."""
    ran = Ran(f"{RATE:g} jobs/s, 2 agents")
    async with far_agent(trial, PATIENT, program) as (course, far):
        await _held_by_far(course, [trial.of(3, 70)])
        async with course.load(rate=RATE, run_s=None) as load:
            with course.during("stall", "a1"):
                ends_s = time.monotonic() + trial.of(1, 60)
                sessions = 0
                while time.monotonic() < ends_s:
                    await asyncio.sleep(course.generator.uniform(0.05, 0.4))
                    sessions = _sessions(course)
                    ran.fired += await far.reset(course.generator.choice(DIRECTIONS))
                ran.recovery_ms.append(await _back_ms(course, sessions))
            await load.until_acknowledged(30)
        ran.judged(await course.judge())
        ran.figures["sessions"] = _sessions(course)
        ran.violations += _came_late(ran)
    return ran


async def bad_way(trial: Trial, *, settings: Mapping[str, str] = DEFAULTS) -> Ran:
    """Packets are late, overtake each other, are lost and come twice: that is slow, and nothing else."""
    ran = Ran(f"{RATE:g} jobs/s, 2 agents")
    weather = Weather(delay_ms=200, jitter_ms=150, loss=0.05, twice=0.01)
    async with far_agent(trial, settings, far_slots=4 * SLOTS, near_slots=SLOTS) as (course, far):
        with course.during("stall", "a1"):
            await far.weather(weather)
            async with course.load(rate=RATE) as load:
                for _ in range(trial.of(2, 36)):
                    await load.until_acknowledged(100)
            findings = await course.judge()
            counts = await far.counts()
        ran.judged(findings)
        ran.fired = sum(one.lost for one in counts.values())
        ran.figures |= {
            "delayed_packets": sum(one.delayed for one in counts.values()),
            "sessions": _sessions(course),
            "given_far": findings.assigned["a1"],
        }
        if far_jobs := [job for job in course.jobs if job.attempts[-1].agent == "a1"]:
            ran.figures["p99_s"] = percentile_s(far_jobs, 0.99)
    return ran


async def thin_way(trial: Trial, *, program: Sequence[str] = BROKER, within_s: float = THIN_WAIT_S) -> Ran:
    """Each payload takes longer than an agent may take to accept a small one; then results go the same way back."""
    payloads = trial.of(2, 5)
    ran = Ran(f"{payloads} payloads and {payloads} results of 1 MB at 1 Mbit/s")
    async with (
        Course(trial.folder, settings=DEFAULTS, broker_program=program, seed=trial.seed) as course,
        Namespace(trial.folder, seed=trial.seed) as far,
    ):
        await course.start_agent("a1", slots=SLOTS, prefix=far.prefix)
        await far.weather(Weather(rate_bytes_s=THIN_BYTES_S))
        began_s = time.monotonic()
        with course.during("stall", "a1"):
            wish = {"seconds": 0.01, "padding": "x" * LARGE_BYTES}
            down = await course.submit_specs([JobSpec("sleep", json=wish)] * payloads)
            await _all_end(course, down, within_s)
            ran.figures["s_per_payload"] = (time.monotonic() - began_s) / payloads
            ran.figures["sessions"] = _sessions(course)
        # With both directions full not even heartbeats are in time for the default lease, and a result may come late.
        with course.during("cut", "a1"):
            await course.submit_specs([JobSpec("echo", payload=b"x" * LARGE_BYTES)] * payloads)
            findings = await course.judge(quiet_s=THIN_WAIT_S)
            ran.figures["s_per_result"] = (time.monotonic() - began_s) / payloads - ran.figures["s_per_payload"]
            counts = await far.counts()
        ran.judged(findings)
        ran.fired = sum(one.passed_bytes > payloads * LARGE_BYTES for one in counts.values())
        sent = {UUID(bytes=job.job_id) for job in course.jobs if job.attempt == 1}
        ran.violations += [f"given out again: {job_id}" for job_id in down if UUID(job_id) not in sent]
    return ran


async def _all_end(course: Course, job_ids: Sequence[str], within_s: float) -> None:
    async def ended() -> bool:
        return all([(await course.client.get(job_id)).state == "succeeded" for job_id in job_ids])

    await until(ended, "all payloads have arrived and run", within_s)


def _sessions(course: Course) -> int:
    return sum((one.op, one.process) == ("session", "a1") for one in course.entries())


async def _back_ms(course: Course, sessions: int) -> float:
    """How long from now until a1 has another session than these."""
    since_s = time.monotonic()

    async def is_back() -> bool:
        return _sessions(course) > sessions

    await until(is_back, "a1 has a new session")
    return (time.monotonic() - since_s) * 1_000


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "network-cut",
        "The wire of an agent is cut for 30 s and heals: it is found in 10 s, its work runs elsewhere, what it "
        "reports too late is refused, and it is active again within its back-off",
        cut,
        needs=NEEDS,
        control=planted("no-fencing", cut, "unfenced"),
    ),
    Row(
        "network-cut-to-broker",
        "What an agent sends is lost for 30 s, what is sent to it arrives: the same",
        lambda trial: cut(trial, TO_BROKER),
        needs=NEEDS,
        control_of="network-cut",
        is_in_suite=False,
    ),
    Row(
        "network-cut-to-agent",
        "What is sent to an agent is lost for 30 s, while it holds exclusive work: it stops that by itself before it "
        "begins elsewhere",
        cut_from_broker,
        needs=NEEDS,
        control=Control(
            "agent no-lease",
            partial(cut_from_broker, agent_program=reckless("no-lease")),
            "ran beside itself",
            is_in_suite=False,
        ),
    ),
    Row(
        "network-half-open-agent",
        "An agent's machine vanishes without closing its connection: it is found in 10 s and its work runs elsewhere",
        vanished_agent,
        needs=NEEDS,
        control=planted("timers-never-fire", vanished_agent, "begun elsewhere", is_in_suite=False, is_short=True),
        is_in_suite=False,
    ),
    Row(
        "network-half-open-broker",
        "The broker's machine vanishes without closing its connections and comes back: agents return in time, and "
        "nothing is run again",
        vanished_broker,
        needs=NEEDS,
        control=planted("no-reconciliation", vanished_broker, "wasted", is_in_suite=False),
        is_in_suite=False,
    ),
    Row(
        "network-bad-way",
        "Packets between broker and agent are 200 +- 150 ms late, 5 % are lost, 1 % come twice: nothing is run again",
        bad_way,
        needs=NEEDS,
        control=hasty(bad_way, "wasted"),
    ),
    Row(
        "network-thin-way",
        "Payloads of 1 MB go to an agent over 1 Mbit/s, each once: slow is not deaf; results of 1 MB come back, "
        "and each counts once",
        thin_way,
        needs=NEEDS,
        control=planted(
            "slow-is-deaf",
            partial(thin_way, within_s=THIN_CONTROL_S),
            "all payloads have arrived",
            is_in_suite=False,
            is_short=True,
        ),
        is_in_suite=False,
    ),
    Row(
        "network-reset-storm",
        "An agent's connection is reset several times a second: what it holds is not run again while it returns within "
        "the grace",
        reset_storm,
        needs=NEEDS,
        control=planted("no-reconciliation", reset_storm, "wasted"),
    ),
)
