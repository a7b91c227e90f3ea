"""Agents that die, freeze, are ended or are two."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final

from mesh_client import JobSpec
from tests.chaos import hardship, operations
from tests.chaos.elsewhere import moved, too_late
from tests.chaos.row import BROKER, MissedError, Ran, Row, Trial
from tests.chaos.stage import NO_HURRY_MS, RATE, RUN_S, SECOND_MS, course_of, each, planted, start_all
from tests.e2e.course import GROUP, Course, until
from tests.e2e.history import Budgets, attempt_key, check
from tests.e2e.load import Load
from tests.e2e.processes import Process
from tests.e2e.stored import percentile

SLOTS: Final = 24
VICTIM_SLOTS: Final = 8
BURST: Final = 32
"""Jobs at once, of which each agent gets its share: the others have room left for what comes from the victim."""

GRACE_S: Final = 2.0
SLACK_MS: Final = 500.0
UNACCEPTED_MS: Final = 100.0
SILENCE_S: Final = 10.0
FULL_S: Final = (1.5, 6.0, 24.0)
"""How long jobs last that are to run all at once: on a slow machine the first ones end before the last have begun."""
FULL_SLACK_S: Final = 1.0
IN_WITHIN_S: Final = 60.0
DEATHS_MAX: Final = 4
"""Agents that one job may kill, by ADR 0007: of the first, something else that ran there may have been the reason."""
FOREVER_S: Final = 1e6
LEAVE_S: Final = 20.0


# --- killed -----------------------------------------------------------------------------------------------------------


async def sigkill(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """Agents that come, take their share and are killed, one after the other; two others stay."""
    kills = trial.of(2, 30)
    async with course_of(trial, program) as course:
        await start_all(course, "a1", "a2", slots=SLOTS)
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            for number in range(kills):
                await _kill(course, load, f"v{number}", grace_s=trial.of(1, 2))
        await _all_slots_work(course, ("a1", "a2"))
        findings = await course.judge()
    ran = Ran(f"{RATE} jobs/s, 3 agents", fired=sum(fault.in_flight > 0 for fault in findings.faults)).judged(findings)
    both = [moved(course.entries(), course.jobs, fault) for fault in findings.faults]
    unaccepted_ms = [one for found in both for one in found.unaccepted_ms]
    accepted_ms = [one for found in both for one in found.accepted_ms]
    if not unaccepted_ms or not accepted_ms:
        raise MissedError("no kill hit both accepted and not yet accepted work")
    promised_ms = (UNACCEPTED_MS, GRACE_S * SECOND_MS + SLACK_MS) if trial.is_full else (NO_HURRY_MS, NO_HURRY_MS)
    ran.violations += too_late("work that was not accepted began elsewhere", unaccepted_ms, promised_ms[0])
    ran.violations += too_late("accepted work began elsewhere", accepted_ms, promised_ms[1])
    ran.recovery_ms = accepted_ms
    ran.figures["unaccepted_p99_ms"] = percentile(unaccepted_ms, 0.99)
    ran.figures["unaccepted_moved"], ran.figures["accepted_moved"] = len(unaccepted_ms), len(accepted_ms)
    return ran


async def _kill(course: Course, load: Load, name: str, *, grace_s: int) -> None:
    """It holds work that it runs, and work that it was sent and never read."""
    victim = await course.start_agent(name, slots=VICTIM_SLOTS)
    await load.until_acknowledged(RATE // 2)
    victim.signal(signal.SIGSTOP)
    await course.submit([0.1] * BURST)
    with course.during("kill", name):
        await victim.kill()
    await load.until_acknowledged(RATE * grace_s)


async def _all_slots_work(course: Course, names: Sequence[str]) -> None:
    """As many jobs run at the same time as these agents, which now are all, have slots."""

    async def is_full() -> bool:
        return _running(course, *names) >= SLOTS * len(names)

    for run_s in FULL_S:
        await course.submit([run_s] * SLOTS * len(names))
        with suppress(AssertionError):
            await until(is_full, "all slots work", run_s + FULL_SLACK_S)
            return
    raise AssertionError(f"not all slots of {', '.join(names)} work again")


def _running(course: Course, *names: str) -> int:
    """How many attempts these agents run now, as far as they have said."""
    runs = [entry for entry in course.entries() if entry.op == "run" and entry.process in names]
    ended = {entry.key for entry in runs if entry.phase != "invoke"}
    return len({entry.key for entry in runs} - ended)


# --- stopped and resumed ----------------------------------------------------------------------------------------------


async def sigstop(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """An agent that stands still for longer than its lease, with work in hand, and then goes on."""
    async with course_of(trial, program) as course:
        await asyncio.gather(start_all(course, "a1", slots=VICTIM_SLOTS), start_all(course, "a2", slots=SLOTS))
        await course.submit([1.0] * (VICTIM_SLOTS + SLOTS))
        held = await course.begun("a1", VICTIM_SLOTS)
        again = {attempt_key(int(run.key.partition("/")[0]), 2) for run in held}
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            with course.during("freeze", "a1"):
                began_s = time.monotonic()
                course.mesh.agents["a1"].signal(signal.SIGSTOP)
                await course.agent_is("a1", "no_response")
                found_s = time.monotonic() - began_s
                await load.until_acknowledged(RATE * trial.of(1, 50))

                async def all_again() -> bool:
                    return again <= {entry.key for entry in course.entries() if entry.process == "a2"}

                await until(all_again, "what the agent holds has begun elsewhere")
                course.mesh.agents["a1"].signal(signal.SIGCONT)
                await course.agent_is("a1", "active")
            await load.until_acknowledged(RATE)
        findings = await course.judge()
    [freeze] = findings.faults
    ran = Ran(f"{RATE} jobs/s, 2 agents", fired=int(freeze.in_flight >= VICTIM_SLOTS)).judged(findings)
    refused = {entry.key for entry in course.entries() if (entry.op, entry.phase) == ("outcome", "fail")}
    ran.violations += [f"the late outcome of {run.key} was not refused" for run in held if run.key not in refused]
    if trial.is_full and found_s > SILENCE_S:
        ran.violations.append(f"silence was found after {found_s:.1f} s, promised are {SILENCE_S:g} s")
    ran.recovery_ms = moved(course.entries(), course.jobs, freeze).accepted_ms
    ran.figures |= {"found_s": found_s, "stale_refused": findings.stale_refused}
    return ran


# --- ended in order ---------------------------------------------------------------------------------------------------


async def sigterm(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """Agents with work in hand that get SIGTERM, and agents that an operator drains; one stays."""
    rounds = trial.of(1, 5)
    async with course_of(trial, program) as course:
        await start_all(course, "a1", slots=SLOTS)
        ran = Ran(f"{RATE} jobs/s, 3 agents")
        async with course.load(rate=RATE, run_s=(0.2, 0.6)):
            for number in range(rounds):
                left, drained = f"t{number}", f"d{number}"
                await start_all(course, left, drained, slots=VICTIM_SLOTS)
                await course.begun(left, VICTIM_SLOTS)
                await course.begun(drained, VICTIM_SLOTS)
                ran.fired += sum(_running(course, name) > 0 for name in (left, drained))
                with course.during("drain", drained):
                    await course.client.drain_agent(GROUP, drained)
                codes = (
                    await course.mesh.agents[left].stop(LEAVE_S),
                    await course.mesh.agents[drained].ended(LEAVE_S),
                )
                ran.violations += [f"{left} and {drained} ended with {codes}"] if codes != (0, 0) else []
        findings = await course.judge()
    ran.judged(findings)
    ran.violations += [f"job {job.job_key} is {job.state}" for job in course.jobs if job.state != "succeeded"][:5]
    return ran


# --- two of one name --------------------------------------------------------------------------------------------------


async def clone(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """A second process of one name takes over; the first is kept out for as long as the second one is here."""
    rounds = trial.of(1, 3)
    async with course_of(trial, program) as course:
        await start_all(course, "a1", "a2", slots=VICTIM_SLOTS)
        first = course.mesh.agents["a1"]
        async with course.load(rate=RATE, run_s=RUN_S) as load:
            for number in range(rounds):
                await load.until_acknowledged(RATE // 2)
                with course.during("cut", "a1"):
                    second = await _start_clone(course, trial.folder / f"clone-{number}")
                    course.mesh.agents["the clone"] = second  # ended with the others
                    await _is_in(course, second)
                    await load.until_acknowledged(RATE * 2)
                    await _is_in(course, second)
                    if trial.is_full:  # it asks again after three leases
                        await second.stop(LEAVE_S)
                        await _is_in(course, first)
        findings = await course.judge()
    ran = Ran(f"{RATE} jobs/s, 2 agents and a clone", fired=sum(fault.in_flight > 0 for fault in findings.faults))
    ran.judged(findings)
    sessions = sum((entry.op, entry.key) == ("session", "a1") for entry in course.entries())
    if sessions > 1 + rounds * trial.of(1, 2):
        ran.violations.append(f"the two processes took the name from one another: {sessions} sessions")
    ran.violations += [f"job {job.job_key} is {job.state}" for job in course.jobs if job.state != "succeeded"][:5]
    ran.violations += [f"job {job.job_key} counts a crash that never was" for job in course.jobs if job.crashes][:5]
    ran.figures |= {"sessions": sessions, "attempts_max": max(job.attempt for job in course.jobs)}
    return ran


async def _start_clone(course: Course, state: Path) -> Process:
    """As on another machine: with a state of its own."""
    where = ("--broker", course.mesh.addresses.mesh, "--dev", "--name", "a1", "--slots", str(VICTIM_SLOTS))
    words = ("-m", "tests.e2e.agent", str(course.agents_file), "run", *where, "--state", str(state))
    second = Process("a1, the clone", words, environment={"TMPDIR": str(state.parent)})
    await second.start()
    await second.said("session.started")
    return second


async def _is_in(course: Course, process: Process) -> None:
    """This is the process that the broker gives the work of the name to."""

    async def found() -> bool:
        view = await course.client.get_agent(GROUP, "a1")
        return view.pid == process.pid and view.status == "active" and view.live > 0

    await until(found, f"the work of a1 goes to process {process.pid}", IN_WITHIN_S)


# --- what kills them --------------------------------------------------------------------------------------------------


async def poison(trial: Trial, *, program: Sequence[str] = BROKER) -> Ran:
    """Jobs that kill whatever agent runs them, one after the other, among others; every agent is started again."""
    jobs = trial.of(1, 5)
    names = ("a1", "a2", "a3", "a4")
    deaths: Counter[str] = Counter()
    async with course_of(trial, program) as course:
        await asyncio.gather(*(_start_victim(course, name) for name in names))
        async with _supervised(course, names, deaths), course.load(rate=RATE, run_s=RUN_S) as load:
            for number in range(1, jobs + 1):
                payload = str(course.agents_file).encode()
                [job_id] = await course.submit_specs([JobSpec("chaos.poison", payload)])
                while (await course.client.get(job_id)).state != "dead":
                    await load.until_acknowledged(RATE // 10)
                    assert deaths.total() <= number * DEATHS_MAX, f"{number} jobs have killed {deaths.total()} agents"
        await course.judge()
    findings = check(course.entries(), course.jobs, Budgets(crashes=len(course.jobs)), course.page)
    ran = Ran(f"{RATE} jobs/s, 4 agents", fired=deaths.total()).judged(findings)
    states = Counter(job.state for job in course.jobs)
    if states != {"dead": jobs, "succeeded": len(course.jobs) - jobs}:
        ran.violations.append(f"not only the jobs that kill are dead, or not all others have succeeded: {states}")
    ran.figures |= {"agents_killed": deaths.total(), "agents_killed_each": deaths.total() / jobs}
    return ran


@asynccontextmanager
async def _supervised(course: Course, names: Sequence[str], deaths: Counter[str]) -> AsyncIterator[None]:
    """Agents that die are started again, as a supervisor of their machine does."""

    async def watch(name: str) -> None:
        while True:
            await course.mesh.agents[name].ended(FOREVER_S)
            deaths[name] += 1
            with course.during("kill", name):
                await _start_victim(course, name)
            course.history.add("freeze", name, "ok")

    watching = [asyncio.create_task(watch(name), name=f"supervise-{name}") for name in names]
    try:
        yield
    finally:
        for task in watching:
            task.cancel()
        ended = await asyncio.gather(*watching, return_exceptions=True)
    for error in ended:
        if isinstance(error, Exception):
            raise error


async def _start_victim(course: Course, name: str) -> Process:
    return await course.start_agent(name, slots=VICTIM_SLOTS, options=("--operations", operations.MODULE))


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "agent-sigkill",
        "SIGKILL of an agent: what it had not accepted runs elsewhere within 100 ms, what it had within grace + 0.5 s",
        sigkill,
        control=planted("capacity-drifts", sigkill, "not all slots of a1, a2 work again", is_in_suite=False),
    ),
    Row(
        "agent-sigstop",
        "SIGSTOP of an agent for 60 s, then SIGCONT: found within 10 s, its late outcomes are refused",
        sigstop,
        control=planted("no-fencing", sigstop, "unfenced"),
        is_in_suite=False,
    ),
    Row(
        "agent-sigterm",
        "SIGTERM, and an operator's drain: what runs ends, nothing runs again, exit code 0",
        sigterm,
        control=planted("drain-that-kills", sigterm, "is failed"),
        is_in_suite=False,
    ),
    Row(
        "agent-clone",
        "A second process with the identity of the first: the newer one gets the work, the older one is kept out",
        clone,
        control=each(
            planted("no-quarantine", clone, "took the name from one another", is_in_suite=False),
            planted("stale-close", clone, "the work of a1 goes to", is_in_suite=False),
        ),
    ),
    Row(
        "agent-poison",
        "A job that kills its agent: a dead letter after four agents at most, the work of others goes on",
        poison,
        control=planted("crashes-uncounted", poison, "jobs have killed", is_in_suite=False),
    ),
    *hardship.ROWS,
)
