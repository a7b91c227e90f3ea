"""A broker that may have only so much memory, or so many descriptors."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final
from uuid import UUID

from mesh_client import JobSpec, MeshClient, MeshClientError, MeshTimeoutError, UnavailableError
from tests.chaos.ration import Cgroup, no_more_descriptors
from tests.chaos.row import BROKER, MissedError, Ran, Row, Trial
from tests.chaos.stage import RATE, RUN_S, SECOND_MS, course_of, planted, start_all, unguarded
from tests.e2e.course import GROUP, Course, until

KIB: Final = 1_024
MIB: Final = KIB * KIB
PAYLOAD_BYTES: Final = 150_000
BATCH: Final = 10
FLOOD: Final = 6
"""Batches at the same time."""
ROUNDS_MAX: Final = 100
MEMORY_MIB: Final = 24
"""What the broker may have more than it has when the limit comes."""
TRY_S: Final = 2.0
BLAMED: Final = ("malformed_message", "invalid_message")
SILENCES: Final = frozenset({"timeout", "deadline_exceeded", "cancelled", "unavailable", "status_lost"})
"""What a client says by itself when nobody answers: the broker may be slow, or away."""
ENDED: Final = "its_end"
NEWCOMERS: Final = 8
END_S: Final = 60.0


# --- memory -----------------------------------------------------------------------------------------------------------


async def no_more_memory(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """Large jobs until the broker has no memory left: by a limit that it sees, and by one that kills it."""
    ran = Ran(f"jobs of {PAYLOAD_BYTES:,} bytes, as fast as they are taken, 1 agent")
    async with course_of(trial, program) as course:
        await start_all(course, "a1", slots=16)
        await course.submit([0.01] * RATE)
        for number in range(trial.of(2, 10)):
            limit = (no_more_addresses, no_more_pages)[number % 2]
            broker = course.mesh.broker
            with limit(broker.pid):
                refused = await _flood_until_refused(course)
            ran.fired += 1  # by its own word, or because it ended; else this is not reached
            if refused in BLAMED:
                ran.violations.append(f"the submitter was blamed for what the broker lacks: {refused}")
            ran.figures[f"refused_with_{refused}"] = ran.figures.get(f"refused_with_{refused}", 0) + 1
            began_s = asyncio.get_running_loop().time()
            if await _has_ended(course):
                with course.during("kill", "broker"):
                    await broker.kill()
                    await course.mesh.start_broker()
            await _take_again(course)
            ran.recovery_ms.append((asyncio.get_running_loop().time() - began_s) * SECOND_MS)
        findings = await course.judge()
    return ran.judged(findings)


@contextmanager
def no_more_addresses(pid: int) -> Iterator[None]:
    """The process is refused more memory than a little (RLIMIT_AS), until the end of the block."""
    before = resource.prlimit(pid, resource.RLIMIT_AS)
    has_bytes = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (has_bytes + MEMORY_MIB * MIB, before[1]))
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_AS, before)


@contextmanager
def no_more_pages(pid: int) -> Iterator[None]:
    """The process is killed by the kernel when it takes more memory than a little (cgroup)."""
    with Cgroup("memory", "broker") as group:
        group.add(pid)  # what it has already is counted where it was
        group.set("memory.limit_in_bytes", MEMORY_MIB * MIB)
        yield
        if not group.counter("memory.oom_control", "oom_kill"):
            raise MissedError("the broker was refused something, and not for lack of memory")


async def _flood_until_refused(course: Course) -> str:
    """Submit large jobs until the broker says no, or has ended: the reason. That it is slow says nothing."""
    async with MeshClient(course.mesh.addresses.api, retry_for_s=TRY_S) as client:
        for _ in range(ROUNDS_MAX):
            answers = await asyncio.gather(*(_submitted(course, client) for _ in range(FLOOD)))
            if refused := refused_of(answers):
                return refused
            if any(answers) and await _has_ended(course):
                return ENDED
    raise MissedError(f"{ROUNDS_MAX * FLOOD * BATCH * PAYLOAD_BYTES // MIB} MiB were taken without trouble")


def refused_of(answers: Sequence[str]) -> str:
    """The first of these reasons that the broker itself has given; empty if there is none."""
    return next((reason for reason in answers if reason and reason not in SILENCES), "")


async def _take_again(course: Course) -> None:
    async def taken() -> bool:
        async with MeshClient(course.mesh.addresses.api, retry_for_s=TRY_S) as client:
            return not await _submitted(course, client)

    await until(taken, "jobs are accepted again")


async def _submitted(course: Course, client: MeshClient) -> str:
    """One batch; why it was not accepted, as far as its submitter knows."""
    ids = [UUID(int=course.generator.getrandbits(128), version=4) for _ in range(BATCH)]
    padding = {"padding": "x" * PAYLOAD_BYTES}
    for one in ids:
        course.history.add("submit", one.hex, "invoke")
    try:
        answers = await client.submit_many([JobSpec("echo", json=padding, job_id=str(one)) for one in ids])
        for answer in answers:
            answer.accepted()
    except MeshClientError as error:
        for one in ids:
            course.history.add("submit", one.hex, "info")
        return error.reason.lower()
    for one in ids:
        course.history.add("submit", one.hex, "ok")
    return ""


async def _has_ended(course: Course) -> bool:
    """Whether the broker is gone: a process that is on its way out may answer for a moment."""
    with suppress(AssertionError):
        await until(lambda: _is_gone(course), "the broker has ended", within_s=TRY_S)
    return not course.mesh.broker.is_running


async def _is_gone(course: Course) -> bool:
    return not course.mesh.broker.is_running


# --- descriptors ------------------------------------------------------------------------------------------------------


async def no_more_files(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """The broker may open nothing more: newcomers wait outside, whoever is connected notices nothing."""
    ran = Ran(f"{RATE} jobs/s, 2 agents")
    async with course_of(trial, program) as course:
        await start_all(course, "a1", "a2", slots=16)
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            for _ in range(trial.of(1, 10)):
                await load.until_acknowledged(RATE // 2)
                with no_more_descriptors(course.mesh.broker.pid):
                    taken = await asyncio.gather(*(_newcomer(course) for _ in range(NEWCOMERS)))
                    await load.until_acknowledged(RATE)
                ran.fired += taken.count(False)
                began_s = asyncio.get_running_loop().time()
                await until(lambda: _newcomer(course), "newcomers are served again")
                ran.recovery_ms.append((asyncio.get_running_loop().time() - began_s) * SECOND_MS)
        findings = await course.judge()
    sessions = Counter(entry.key for entry in course.entries() if entry.op == "session")
    ran.violations += [f"{agent} had {count} sessions" for agent, count in sessions.items() if count > 1]
    return ran.judged(findings)


async def _newcomer(course: Course) -> bool:
    """Whether a client with a connection of its own is served."""
    async with MeshClient(course.mesh.addresses.api, retry_for_s=TRY_S) as client:
        try:
            await client.get_group(GROUP)
        except (UnavailableError, MeshTimeoutError):
            return False
        return True


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "broker-memory",
        "The broker gets no more memory: it is refused it and answers with an error or ends, or is killed for it; "
        "nothing acknowledged is lost, and with memory it goes on",
        no_more_memory,
        needs=("root", "cgroup-memory"),
        control=planted("ack-before-commit", no_more_memory, "lost", is_in_suite=False, is_short=True),
    ),
    Row(
        "broker-descriptors",
        "The broker may open no more descriptors: newcomers are not served, whoever is connected notices nothing; "
        "when it may, it serves newcomers again",
        no_more_files,
        control=unguarded("makes-room", no_more_files, "sessions"),
    ),
)
