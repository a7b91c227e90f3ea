"""A disk that is full, slow or broken."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from functools import partial
from http.client import HTTPConnection
from typing import Final

from broker import series
from mesh_client import MeshClient, UnavailableError
from tests.chaos.row import BROKER, Control, Ran, Row, Trial
from tests.chaos.stage import planted
from tests.chaos.strace import SYNCS, WRITES, Tampering
from tests.chaos.volume import SmallVolume
from tests.e2e.course import FAST, Course, until
from tests.e2e.history import Entry
from tests.e2e.load import Load
from tests.e2e.page import told
from tests.e2e.processes import Mesh
from tests.e2e.stored import percentile

RATE: Final = 60
RUN_S: Final = (0.02, 0.1)
PATIENCE_S: Final = 60.0
VOLUME_MIB: Final = 96
"""Room enough for the log of the store (16 MiB before it is taken over) and all jobs, when nothing else has it."""
PAYLOAD_BYTES: Final = 4_000
DELAY_US: Final = 200_000
READY: Final = 200


def milliseconds() -> float:
    """Now, on a clock that nobody sets."""
    return asyncio.get_running_loop().time() * 1_000


# --- full -------------------------------------------------------------------------------------------------------------


async def full_disk(trial: Trial, *, program: Sequence[str] = BROKER, within_s: float = PATIENCE_S) -> Ran:
    """No room under load, until the broker says so; every second time it is killed then, and started when there is."""
    ran = Ran(f"{RATE} jobs/s of {PAYLOAD_BYTES:,} bytes, 2 agents")
    async with SmallVolume(trial.folder / "disk", mib=VOLUME_MIB) as volume:
        data = volume.folder / "broker"
        course = Course(trial.folder, settings=FAST, broker_program=program, seed=trial.seed, data=data)
        async with course:
            for name in ("a1", "a2"):
                await course.start_agent(name, slots=16)
            async with course.load(rate=RATE, run_s=RUN_S, payload_bytes=PAYLOAD_BYTES) as load:
                for number in range(trial.of(1, 4)):
                    await load.until_acknowledged(RATE)
                    with course.during("stall", "broker"):
                        await _filled(course, volume, ran, within_s)
                        if number % 2:
                            await course.mesh.broker.kill()
                        volume.make_room()
                    await _recovered(course, load, ran)
            findings = await course.judge()
    return ran.judged(findings)


async def _filled(course: Course, volume: SmallVolume, ran: Ran, within_s: float) -> None:
    """No room, until the broker refuses; it says so to submitters and to whoever asks whether it is ready."""
    volume.fill()

    async def refuses() -> bool:
        return bool((await told(course.mesh, series.STORE_STALLED)).get(()))

    await until(refuses, "the store refuses commits", within_s)
    ran.fired += 1
    async with MeshClient(course.mesh.addresses.api, retry_for_s=1.0) as impatient:
        try:
            await impatient.submit("echo", json={})
            ran.violations.append("a submission was accepted while the disk was full")
        except UnavailableError as error:
            if error.reason != "STORE_UNAVAILABLE":
                ran.violations.append(f"a submission was refused with {error.reason}")
    if await asyncio.to_thread(_readiness, course.mesh) == READY:
        ran.violations.append("the broker called itself ready while the disk was full")


async def _recovered(course: Course, load: Load, ran: Ran) -> None:
    began_ms = milliseconds()
    if not course.mesh.broker.is_running:
        with course.during("kill", "broker"):
            await course.mesh.start_broker()
    await load.until_acknowledged(1)
    ran.recovery_ms.append(milliseconds() - began_ms)


def _readiness(mesh: Mesh) -> int:
    connection = HTTPConnection(mesh.addresses.metrics, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status
    finally:
        connection.close()


# --- broken -----------------------------------------------------------------------------------------------------------


async def broken_disk(
    trial: Trial,
    *,
    program: Sequence[str] = BROKER,
    kinds: Sequence[Sequence[str]] = (SYNCS, WRITES),
    within_s: float = PATIENCE_S,
) -> Ran:
    """From some sync or write on the disk answers with an error; it is whole again when the broker starts anew."""
    ran = Ran(f"{RATE} jobs/s, 2 agents")
    hits: Counter[str] = Counter()
    async with Course(trial.folder, settings=FAST, broker_program=program, seed=trial.seed) as course:
        for name in ("a1", "a2"):
            await course.start_agent(name, slots=16)
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            for number in range(trial.of(1, 20)):
                calls = kinds[(trial.seed + number) % len(kinds)]
                how = f"error=EIO:when={course.generator.randint(20, 60)}+"
                tampering = Tampering(trial.folder / f"{number}.log", calls, how)
                hits[calls[-1]] += await _broken(course, tampering, ran, within_s)
                began_ms = milliseconds()
                await course.mesh.start_broker()
                ran.recovery_ms.append(milliseconds() - began_ms)
            await load.until_acknowledged(RATE // 2)
        findings = await course.judge()
    ran.fired = hits.total()
    ran.figures = {f"failed_{name}": count for name, count in hits.items()}
    return ran.judged(findings)


async def _broken(course: Course, tampering: Tampering, ran: Ran, within_s: float) -> int:
    """One life that ends by the error. How many calls failed."""
    broker = course.mesh.broker
    with course.during("kill", "broker"):
        await broker.kill()
        await broker.start(tampering.prefix)
        code = await broker.ended(within_s)
    said = await broker.said("broker.failed")
    if code != 1 or "disk I/O error" not in said:
        ran.violations.append(f"the broker ended with {code} and {said}")
    return len(tampering.hits)


# --- slow -------------------------------------------------------------------------------------------------------------


async def slow_disk(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """Each sync takes long; answers wait for it, agents do not."""
    ran = Ran(f"{RATE // 2} jobs/s, 2 agents")
    tampering = Tampering(trial.folder / "strace.log", SYNCS, f"delay_exit={DELAY_US}")
    course = Course(trial.folder, settings=FAST, broker_program=program, seed=trial.seed)
    async with AsyncExitStack() as stack:
        stack.push_async_exit(course)
        await course.mesh.start_broker(tampering.prefix)
        for name in ("a1", "a2"):
            await course.start_agent(name, slots=16)
        async with course.load(rate=RATE / 2, run_s=RUN_S) as load:
            await load.until_acknowledged(RATE // 2 * trial.of(3, 60))
        findings = await course.judge()
    ran.fired = len(tampering.hits)
    waited_ms = acknowledged_ms(course.entries())
    ran.figures = {f"acknowledged_p{share}_ms": percentile(waited_ms, share / 100) for share in (50, 99)}
    if early := sum(one < DELAY_US / 1_000 for one in waited_ms):
        ran.violations.append(f"{early} submissions were acknowledged sooner than a sync takes")
    sessions = Counter(entry.key for entry in course.entries() if entry.op == "session")
    ran.violations += [f"{agent} was taken for dead" for agent, count in sessions.items() if count > 1]
    return ran.judged(findings)


def acknowledged_ms(entries: Sequence[Entry]) -> list[float]:
    """How long each acknowledged submission waited."""
    asked = {entry.key: entry.t for entry in entries if (entry.op, entry.phase) == ("submit", "invoke")}
    return [(entry.t - asked[entry.key]) * 1_000 for entry in entries if (entry.op, entry.phase) == ("submit", "ok")]


async def full_is_fine(trial: Trial) -> Ran:
    """What was rolled back counts as written: the store never says that it is full."""
    program = ("-m", "tests.e2e.defects", "full-is-fine")
    return await full_disk(Trial(trial.folder, trial.seed), program=program, within_s=10.0)


async def answers_first(trial: Trial) -> Ran:
    """Nobody waits for a sync."""
    return await slow_disk(Trial(trial.folder, trial.seed), program=("-m", "tests.e2e.defects", "ack-before-commit"))


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "disk-full",
        "The broker's disk is full: submissions are refused, the broker is not ready; nothing acknowledged is lost, "
        "and when there is room again it goes on by itself",
        full_disk,
        needs=("root",),
        control=Control("defect full-is-fine", full_is_fine, "the store refuses commits", is_in_suite=False),
    ),
    Row(
        "disk-error",
        "Syncs and writes of the store fail (EIO): the broker answers nothing more and ends with code 1; started again "
        "on a whole disk, nothing acknowledged is missing",
        broken_disk,
        needs=("strace",),
        control=planted(
            "errors-are-fine",
            partial(broken_disk, kinds=(SYNCS,), within_s=30.0),
            "did not end within",
            is_in_suite=False,
            is_short=True,
        ),
    ),
    Row(
        "disk-slow",
        "Each sync takes 200 ms longer: answers wait for it, no agent is taken for dead, nothing runs twice",
        slow_disk,
        needs=("strace",),
        control=Control("defect ack-before-commit", answers_first, "sooner than a sync", is_in_suite=False),
    ),
)
