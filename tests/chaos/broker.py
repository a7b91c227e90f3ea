"""A broker that is killed, stopped, starved, restarted or lives in another time."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Final

from mesh_client import JobSpec, MeshClient
from tests.chaos.clock import Clock
from tests.chaos.elsewhere import too_late
from tests.chaos.ration import cpu_share
from tests.chaos.row import BROKER, Ran, Row, Trial
from tests.chaos.stage import (
    NO_HURRY_MS,
    RATE,
    RUN_S,
    SECOND_MS,
    TOO_SMALL_SHARE,
    course_of,
    defective,
    each,
    hasty,
    planted,
    start_all,
)
from tests.e2e.course import FAST, Course, until
from tests.e2e.kill_broker import KillBroker
from tests.e2e.processes import Process, count_held, store_file
from tests.e2e.stored import SECOND_US, StoredJob

SLOTS: Final = 16
AGENTS: Final = ("a1", "a2", "a3", "a4")
READY_MS: Final = 2_000.0

# --- killed -----------------------------------------------------------------------------------------------------------

SEEDED_RATE: Final = 200.0


async def sigkill(trial: Trial, *, program: Sequence[str] = BROKER, kills: int = 0) -> Ran:
    """At seeded moments, with work in flight, each time started again on the same file."""
    kills = kills or trial.of(2, 20)
    broker = KillBroker(trial.folder, kills=kills, rate=SEEDED_RATE, seed=trial.seed, program=program)
    findings = await broker.run()
    ran = Ran(f"{SEEDED_RATE:g} jobs/s, 4 agents", fired=len(broker.kills.in_flight)).judged(findings)
    ran.recovery_ms = [SECOND_MS * ready_s for ready_s in broker.kills.ready_s]
    _judge_ready(trial, ran, kills)
    ran.figures["in_flight_max"] = max(broker.kills.in_flight, default=0)
    return ran


# Most of a turn of a broker with a defect lies between what it said and its commit: few kills are enough.
too_hasty: Final = partial(sigkill, kills=4)

FLEETS: Final = 2
FLEET_AGENTS: Final = 25
FLEET_SLOTS: Final = 4
FLEET_RUN_S: Final = (0.02, 0.08)
BATCH: Final = 10
KILL_EVERY_S: Final = 5.0
BREATH_S: Final = 2.0
"""However long a start takes, some work is done between two kills."""
DRAINED_WITHIN_S: Final = 120.0
RATE_KEPT: Final = 0.95
"""The part of the stated load that must have been acknowledged, or the kills fired under another one."""


async def sigkill_often(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """Every five seconds, for ten minutes."""
    rate, kills = 1_000, trial.of(12, 120)
    ran = Ran(f"{rate} jobs/s, {FLEETS * FLEET_AGENTS} agents")
    async with Course(trial.folder, settings={}, broker_program=program, seed=trial.seed) as course:
        async with _fleets(course) as fleets:
            began_s = time.monotonic()
            async with course.load(rate=rate, run_s=FLEET_RUN_S, batch=BATCH) as load:
                await load.until_acknowledged(rate)
                for _ in range(kills):
                    due_s = time.monotonic() + KILL_EVERY_S
                    held, ready_s = await _kill(course)
                    ran.fired += held > 0
                    ran.recovery_ms.append(SECOND_MS * ready_s)
                    await asyncio.sleep(max(BREATH_S, due_s - time.monotonic()))
                await load.until_acknowledged(rate)
            ran.figures["acknowledged_per_s"] = len(load.acknowledged) / (time.monotonic() - began_s)
            await course.quiet(DRAINED_WITHIN_S)
            for fleet in fleets:
                await fleet.stop(DRAINED_WITHIN_S)
        findings = await course.judge()
    ran.judged(findings)
    _judge_ready(trial, ran, kills)
    if trial.is_full and ran.figures["acknowledged_per_s"] < RATE_KEPT * rate:
        ran.violations.append(f"only {ran.figures['acknowledged_per_s']:.0f} jobs/s were acknowledged")
    ran.figures |= {"acknowledged": findings.acknowledged, "stale_refused": findings.stale_refused}
    return ran


def _judge_ready(trial: Trial, ran: Ran, kills: int) -> None:
    """After each of the kills, all of which hit work in the full form."""
    ran.wanted = kills if trial.is_full else 1
    ran.violations += too_late("ready", ran.recovery_ms, READY_MS if trial.is_full else NO_HURRY_MS, share=1.0)
    ran.figures["ready_max_ms"] = max(ran.recovery_ms, default=0.0)


@asynccontextmanager
async def _fleets(course: Course) -> AsyncIterator[list[Process]]:
    """Agents in a few processes, all of them there."""
    where = ("--broker", course.mesh.addresses.mesh, "--agents", str(FLEET_AGENTS), "--slots", str(FLEET_SLOTS))
    words = ("-m", "tests.e2e.fleet", str(course.agents_file), *where)
    fleets = [Process(f"fleet-{number}", [*words, "--first", str(number * FLEET_AGENTS)]) for number in range(FLEETS)]
    try:
        for fleet in fleets:
            await fleet.start()

        async def are_all_here() -> bool:
            return sum(entry.op == "session" for entry in course.entries()) >= FLEETS * FLEET_AGENTS

        await until(are_all_here, "all agents of the fleets have a session")
        yield fleets
    finally:
        for fleet in fleets:
            await fleet.kill()


async def _kill(course: Course) -> tuple[int, float]:
    """How many attempts agents held, and after how many seconds there was a broker again that answers."""
    mesh = course.mesh
    await mesh.broker.kill()
    held = count_held(store_file(mesh.data))
    began_s = time.monotonic()
    await mesh.start_broker()
    async with MeshClient(mesh.addresses.api) as client:
        async for _ in client.list(limit=1):
            pass
    return held, time.monotonic() - began_s


# --- stopped and starved ----------------------------------------------------------------------------------------------


# With the fast profile a busy machine alone makes an agent silent for a lease.
CALM: Final = FAST | {
    "MESH_DISPATCH__LEASE_S": "4",
    "MESH_DISPATCH__MARGIN_S": "1",
    "MESH_DISPATCH__RECONNECT_GRACE_S": "3",
}


async def sigstop(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """It stands still for longer than a lease, again and again: agents leave their streams, and come back with all."""
    stops, still_s = trial.of(1, 5), trial.of(6, 12)
    settings = {} if trial.is_full else CALM
    async with Course(trial.folder, settings=settings, broker_program=program, seed=trial.seed) as course:
        await start_all(course, *AGENTS, slots=SLOTS)
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            for _ in range(stops):
                await load.until_acknowledged(RATE)
                await course.submit([2.0 * still_s] * len(AGENTS))  # whatever is judged wrongly is seen
                with course.during("stall", "broker"):
                    course.mesh.broker.signal(signal.SIGSTOP)
                    await asyncio.sleep(still_s)
                    course.mesh.broker.signal(signal.SIGCONT)
                    await load.until_acknowledged(RATE)
        findings = await course.judge()
    ran = Ran(f"{RATE} jobs/s, 4 agents", fired=sum(fault.in_flight > 0 for fault in findings.faults))
    ran.judged(findings).violations += _taken_for_dead(course.jobs)
    ran.figures["jobs_run_again"] = sum(job.attempt > 1 for job in course.jobs)
    return ran


BROKER_SHARE: Final = 0.05
"""Of one processor: less than it needs."""


async def starved(
    trial: Trial,
    *,
    program: Sequence[str] = BROKER,
    settings: Mapping[str, str] | None = None,
    share: float = BROKER_SHARE,
) -> Ran:
    """It gets less of a processor than it needs: slow, and nobody is taken for dead."""
    async with course_of(trial, program, settings=settings) as course:
        await start_all(course, *AGENTS, slots=SLOTS)
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            await load.until_acknowledged(RATE)
            with course.during("stall", "broker"), cpu_share(course.mesh.broker.pid, share, "broker") as group:
                await asyncio.sleep(trial.of(4, 60))
                throttled = group.counter("cpu.stat", "nr_throttled")
            await load.until_acknowledged(RATE)
        findings = await course.judge()
    ran = Ran(f"{RATE} jobs/s, 4 agents", fired=throttled).judged(findings)
    ran.violations += _taken_for_dead(course.jobs)
    return ran


def _taken_for_dead(jobs: Iterable[StoredJob]) -> list[str]:
    """Jobs that count the crash of an agent which was there all the time."""
    crashed = [str(job.job_key) for job in jobs if job.crashes]
    return [f"agents were taken for dead: jobs {', '.join(crashed[:5])}"] if crashed else []


# --- another time -----------------------------------------------------------------------------------------------------

HOUR_S: Final = 3_600.0
DELAY_S: Final = 1.0
LIMIT_S: Final = 1_800.0
"""A deadline that is far away, and nearer than the clock jumps."""
BEHIND: Final = "the clock of this machine says"


async def clock_jumps(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """The wall clock is set an hour ahead, an hour back, and right again; then the broker starts an hour too early."""
    clock = Clock(trial.folder / "clock")
    settings = {**({} if trial.is_full else FAST), **clock.environment}
    jumps = [HOUR_S, -HOUR_S, 0.0] * trial.of(1, 10)
    async with Course(trial.folder, settings=settings, broker_program=program, seed=trial.seed) as course:
        await start_all(course, *AGENTS, slots=SLOTS)
        delayed: list[str] = []
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            for ahead_s in jumps:
                delayed += (await course.submit_specs(_bound_jobs()))[1::2]
                await load.until_acknowledged(RATE // 4)
                clock.set(ahead_s)
                await load.until_acknowledged(RATE // 2)
            await _start_too_early(course, clock)
            await load.until_acknowledged(RATE)
        findings = await course.judge()
    ran = Ran(f"{RATE} jobs/s, 4 agents", fired=len(jumps) + 1).judged(findings)
    ran.violations += _taken_for_dead(course.jobs)
    ran.violations += [f"job {job.job_key} is {job.state}" for job in course.jobs if job.state != "succeeded"][:5]
    ran.violations += _begun_too_early([job for job in course.jobs if job.job_id.hex() in map(_hex, delayed)])
    return ran


def _bound_jobs() -> list[JobSpec]:
    """By turns one that begins at once and one that begins later; all have deadlines that an hour would pass."""
    soon = JobSpec(
        "sleep",
        json={"seconds": 2.0},
        run_timeout_s=LIMIT_S,
        total_timeout_s=LIMIT_S,
        schedule_to_start_s=LIMIT_S,
    )
    return [soon, replace(soon, delay_s=DELAY_S)] * len(AGENTS)


def _begun_too_early(jobs: Sequence[StoredJob]) -> list[str]:
    waits_s = [(job.attempts[0].assigned_us - job.accepted_us) / SECOND_US for job in jobs]
    too_early = sum(wait_s < DELAY_S for wait_s in waits_s)
    return [f"{too_early} of {len(jobs)} delayed jobs began too early"] if too_early else []


def _hex(job_id: str) -> str:
    return job_id.replace("-", "")


async def _start_too_early(course: Course, clock: Clock) -> None:
    """It refuses, and says why; with the right time it goes on where it was."""
    broker = course.mesh.broker
    with course.during("restart", "broker"):
        await broker.kill()
        clock.set(-HOUR_S)
        await broker.start()
        await broker.said(BEHIND)
        code = await broker.ended()
        assert code != 0, "it ends as if all were well"
        clock.set(0.0)
        await course.mesh.start_broker()


# --- ended in order ---------------------------------------------------------------------------------------------------

# An agent that finds no broker may wait for half a minute before it asks again; a slow stop is no reason to run again.
PATIENT: Final = FAST | {
    "MESH_DISPATCH__RECOVERY_GRACE_S": "60",
    "MESH_DISPATCH__LEASE_S": "15",
    "MESH_DISPATCH__MARGIN_S": "3",
    "MESH_DISPATCH__RECONNECT_GRACE_S": "10",
}


HELD: Final = 4
"""Jobs that are longer than a restart, each time: they must be kept."""
OUTLASTS_S: Final = 20.0
"""As long as they are where it must not depend on the speed of the machine."""


async def restart(trial: Trial, *, program: Sequence[str] = BROKER, held_s: float = 0.0) -> Ran:
    """Stopped in order and started again, under load, with every slot in use."""
    held_s = held_s or float(trial.of(1, 8))
    ran = Ran(f"{RATE} jobs/s, 2 agents")
    async with Course(trial.folder, settings=PATIENT, broker_program=program, seed=trial.seed) as course:
        await start_all(course, "a1", "a2", slots=SLOTS)
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            for _ in range(trial.of(2, 20)):
                for agent in ("a1", "a2"):
                    await course.agent_is(agent, "active")
                await load.until_acknowledged(RATE * trial.of(1, 6))
                await course.submit([0.5] * SLOTS + [held_s] * HELD)
                await course.running(SLOTS)
                with course.during("restart", "broker"):
                    code = await course.mesh.broker.stop()
                    began_s = time.monotonic()
                    await course.mesh.start_broker()
                ran.recovery_ms.append(SECOND_MS * (time.monotonic() - began_s))
                ran.violations += [f"the broker ended with {code}"] if code else []
            await load.until_acknowledged(RATE)
        findings = await course.judge(DRAINED_WITHIN_S)
    ran.fired = sum(fault.in_flight > 0 for fault in findings.faults)
    ran.wanted = len(findings.faults) * 9 // 10
    return ran.judged(findings)


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "broker-sigkill",
        "SIGKILL of the broker at seeded moments with work in flight: nothing is lost, double or run again",
        sigkill,
        control=each(
            planted("ack-before-commit", too_hasty, "lost", is_in_suite=False, is_short=True),
            planted("dispatch-before-commit", too_hasty, "ran_twice", is_in_suite=False, is_short=True),
        ),
        is_in_suite=False,
    ),
    Row(
        "broker-sigkill-often",
        "SIGKILL of the broker every 5 s for 10 min: nothing is lost, double, phantom or run again, ready within 2 s",
        sigkill_often,
        control=planted("ack-before-commit", sigkill_often, "lost", is_in_suite=False, is_short=True),
        timeout_s=1_800.0,
    ),
    Row(
        "broker-restart",
        "The broker is stopped in order and started again under load: nothing is lost, nothing runs again",
        restart,
        control=planted(
            "no-reconciliation", partial(restart, held_s=OUTLASTS_S), "wasted", is_in_suite=False, is_short=True
        ),
        is_in_suite=False,
    ),
    Row(
        "broker-sigstop",
        "SIGSTOP of the broker for longer than a lease, then SIGCONT: no agent is taken for dead, nothing runs again",
        sigstop,
        control=planted("unaware-of-lag", sigstop, "taken for dead", is_in_suite=False),
    ),
    Row(
        "broker-starved",
        "The broker gets 5 % of a processor (cgroup), less than it needs: slow, and no agent is taken for dead",
        starved,
        needs=("root", "cgroup-cpu"),
        control=hasty(partial(starved, program=defective("unaware-of-lag"), share=TOO_SMALL_SHARE), "taken for dead"),
        is_in_suite=False,
    ),
    Row(
        "broker-clock",
        "The clock is set an hour ahead and back: no deadline moves; a start an hour too early is refused",
        clock_jumps,
        needs=("faketime",),
        control=planted("wall-clock", clock_jumps, "of the next", is_in_suite=False),
    ),
)
