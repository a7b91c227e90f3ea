"""Agents that have too little: memory, descriptors, processor time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

from mesh_client import JobSpec
from tests.chaos import operations
from tests.chaos.ration import Cgroup, cpu_share, no_more_descriptors
from tests.chaos.row import BROKER, MissedError, Ran, Row, Trial
from tests.chaos.stage import RATE, RUN_S, TOO_SMALL_SHARE, course_of, hasty, planted, start_all
from tests.e2e.course import Course, until
from tests.e2e.processes import Process

SLOTS: Final = 8
OPTIONS: Final = ("--operations", operations.MODULE)
LIMIT_BYTES: Final = 100 << 20
HOG_BYTES: Final = 160 << 20
SHARE: Final = 0.03
"""Of one processor: less than its work needs."""


async def out_of_memory(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """A job needs more memory than its agent may have: the kernel kills the agent, another one has enough."""
    kills = trial.of(1, 10)
    async with course_of(trial, program) as course:
        await start_all(course, "a1", slots=SLOTS, options=OPTIONS)
        hogs = 0
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            for number in range(kills):
                with Cgroup("memory", "agent") as group:
                    group.set("memory.limit_in_bytes", LIMIT_BYTES)
                    name = f"m{number}"
                    small = await course.start_agent(name, slots=SLOTS, options=OPTIONS)
                    group.add(small.pid)
                    await course.begun(name, 1)
                    with course.during("freeze", name):  # nobody knows when it will be killed
                        while small.is_running:
                            await _feed_hog(course, small)
                            hogs += 1
                        with course.during("kill", name):
                            await small.kill()
                    if not group.counter("memory.oom_control", "oom_kill"):
                        raise MissedError("the agent ended, and not for lack of memory")
                await load.until_acknowledged(RATE)
        findings = await course.judge()
    ran = Ran(f"{RATE} jobs/s, 2 agents", fired=kills).judged(findings)
    ran.violations += [f"job {job.job_key} is {job.state}" for job in course.jobs if job.state != "succeeded"][:5]
    ran.figures["hogs"] = hogs
    return ran


async def _feed_hog(course: Course, small: Process) -> None:
    """Such a job, until it has run on the agent that has room for it, or the other one is gone."""
    [job_id] = await course.submit_specs([JobSpec("chaos.hog", str(HOG_BYTES).encode())])

    async def is_over() -> bool:
        return not small.is_running or (await course.client.get(job_id)).state == "succeeded"

    await until(is_over, "the job has run, or killed its agent")


async def out_of_descriptors(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """An agent can open nothing more for a while: what it cannot run runs elsewhere, and later it works again."""
    rounds = trial.of(1, 5)
    async with course_of(trial, program) as course:
        await start_all(course, "a1", "a2", slots=SLOTS, options=OPTIONS)
        poor = course.mesh.agents["a1"]
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            for _ in range(rounds):
                await load.until_acknowledged(RATE // 2)
                with course.during("stall", "a1"), no_more_descriptors(poor.pid):
                    await _cannot_start(course)
                    await load.until_acknowledged(RATE // 2)
                await _works_again(course)
                await load.until_acknowledged(RATE)
        findings = await course.judge()
    failures = sum(job.failures for job in course.jobs)
    ran = Ran(f"{RATE} jobs/s, 2 agents", fired=failures).judged(findings)
    ran.violations += [f"job {job.job_key} is {job.state}" for job in course.jobs if job.state != "succeeded"][:5]
    ran.figures["runs_failed"] = failures
    return ran


def _ended(course: Course, phase: str) -> int:
    """How many runs of a1 have ended so."""
    return sum((one.process, one.op, one.phase) == ("a1", "run", phase) for one in course.entries())


async def _cannot_start(course: Course) -> None:
    """Return when a1 could not start a process: what is free below its highest descriptor lets some through."""
    before = _ended(course, "fail")

    async def has_failed() -> bool:
        await course.submit_specs([JobSpec("chaos.apart") for _ in range(SLOTS)])
        await asyncio.sleep(1.0)
        return _ended(course, "fail") > before

    await until(has_failed, "a1 cannot start a process")


async def _works_again(course: Course) -> None:
    before = _ended(course, "ok")

    async def has_worked() -> bool:
        return _ended(course, "ok") > before

    await until(has_worked, "a1 works again")


async def starved(trial: Trial, *, settings: Mapping[str, str] | None = None, share: float = SHARE) -> Ran:
    """An agent that gets less of a processor than it needs is slow, and not dead; what waits is not forgotten."""
    async with course_of(trial, settings=settings) as course:
        await start_all(course, "a1", "a2", slots=SLOTS)
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            await load.until_acknowledged(RATE // 2)
            agent = course.mesh.agents["a1"]
            with course.during("stall", "a1"), cpu_share(agent.pid, share, "agent") as group:
                await load.until_acknowledged(RATE * trial.of(4, 40))
                throttled = group.counter("cpu.stat", "nr_throttled")
        await course.submit([0.2] * 3 * SLOTS)
        findings = await course.judge()
    ran = Ran(f"{RATE} jobs/s, 2 agents", fired=throttled).judged(findings)
    sessions = sum((entry.op, entry.key) == ("session", "a1") for entry in course.entries())
    ran.violations += [f"a1 was taken for dead: {sessions} sessions"] if sessions > 1 else []
    return ran


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "agent-out-of-memory",
        "A job takes all memory its agent may have (cgroup): the kernel kills the agent, another one runs its jobs",
        out_of_memory,
        needs=("root", "cgroup-memory"),
        control=planted("lost-is-done", out_of_memory, "unfounded", is_in_suite=False),
    ),
    Row(
        "agent-out-of-descriptors",
        "An agent may open nothing more for a while: what it cannot start runs elsewhere, then it works again",
        out_of_descriptors,
        control=planted("failures-are-final", out_of_descriptors, "is failed", is_in_suite=False, is_short=True),
        is_in_suite=False,
    ),
    Row(
        "agent-starved",
        "An agent that gets 3 % of a processor (cgroup), less than it needs: slow, and not taken for dead",
        starved,
        needs=("root", "cgroup-cpu"),
        control=hasty(partial(starved, share=TOO_SMALL_SHARE), "taken for dead"),
        is_in_suite=False,
    ),
)
