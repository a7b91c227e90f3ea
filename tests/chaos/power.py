"""The moment of a sync: the broker is killed before it, or the power is cut and what was not synced is gone."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from typing import Final

from tests.chaos.eager import EAGER
from tests.chaos.forgetful import ForgetfulDisk
from tests.chaos.platter import Forgotten
from tests.chaos.row import BROKER, Control, Ran, Row, Trial
from tests.chaos.strace import SYNCS, Tampering
from tests.e2e.course import FAST, Course, until
from tests.e2e.load import Load
from tests.e2e.processes import ProcessError, store_file
from tests.e2e.stored import read_store

RATE: Final = 60
SYNCS_MAX: Final = 200
MESHES: Final = 4
PATIENCE_S: Final = 60.0
QUIET_S: Final = 300.0
NAMES: Final = {
    "mesh.sqlite": "file",
    "mesh.sqlite-wal": "log",
    "mesh.sqlite.new": "file",
    "mesh.sqlite.new-wal": "log",
}
START_S: Final = 1.0
"""A start lasts about so long: some cuts come in it."""
NORMAL: Final = {"MESH_STORE__SYNCHRONOUS": "NORMAL"}
EATMYDATA: Final = ("eatmydata",)


# --- the power goes ---------------------------------------------------------------------------------------------------


async def power_cut(trial: Trial) -> Ran:
    """The power of the broker's machine goes again and again, under load; agents and submitters stay up."""
    return await _cuts(trial, _judged, cuts=trial.of(2, 20), program=EAGER if trial.seed % 2 else BROKER)


MOST: Final = 0.9
"""In which part of the cuts the disk must have forgotten something."""


async def _cuts(
    trial: Trial,
    judge: Callable[[Course, Ran], Awaitable[None]],
    *,
    cuts: int,
    program: Sequence[str] = BROKER,
    settings: Mapping[str, str] = FAST,
    prefix: Sequence[str] = (),
) -> Ran:
    """`prefix` are words before the program of the broker, from its second start on."""
    data = trial.folder / "disk" / "broker"
    ran = Ran(f"{RATE} jobs/s, 2 agents")
    async with ForgetfulDisk(data.parent, seed=trial.seed) as disk:
        course = Course(trial.folder, settings=settings, broker_program=program, seed=trial.seed, data=data)
        async with course:
            for name in ("a1", "a2"):
                await course.start_agent(name, slots=16)
            async with course.load(rate=RATE) as load:
                forgotten = [await _cut(course, disk, load, ran, prefix) for _ in range(cuts)]
                await load.until_acknowledged(RATE // 2)
            await judge(course, ran)
    ran.fired, ran.wanted = sum(any(one) for one in forgotten), int(MOST * cuts)
    ran.figures["sectors_forgotten"] = sum(one.sectors for one in forgotten)
    return ran


async def _judged(course: Course, ran: Ran) -> None:
    ran.judged(await course.judge())


async def _cut(course: Course, disk: ForgetfulDisk, load: Load, ran: Ran, prefix: Sequence[str]) -> Forgotten:
    """One while it works, and sometimes a second one while it starts."""
    loop, mesh = asyncio.get_running_loop(), course.mesh
    await load.until_acknowledged(course.generator.randint(1, RATE))
    with course.during("kill", "broker"):
        await mesh.broker.kill()
        forgotten = await disk.cut()
        if course.generator.random() < 1 / 4:
            await mesh.broker.start(prefix)
            await asyncio.sleep(course.generator.uniform(0, START_S))
            await mesh.broker.kill()
            forgotten = forgotten.plus(await disk.cut())
        began_s = loop.time()
        await mesh.start_broker(prefix)
        ran.recovery_ms.append((loop.time() - began_s) * 1_000)
    return forgotten


async def careless(trial: Trial) -> Ran:
    """Syncs are left out, by the setting that allows it and by a library that eats them: both must lose."""
    first = await _losses(trial, "normal", settings={**FAST, **NORMAL})
    second = await _losses(trial, "eaten", prefix=EATMYDATA)
    return Ran("", 1, [*first, *second] if first and second else [])


async def _losses(
    trial: Trial, name: str, *, settings: Mapping[str, str] = FAST, prefix: Sequence[str] = ()
) -> list[str]:
    folder = trial.folder / name
    folder.mkdir()
    at, found = Trial(folder, trial.seed), list[str]()
    try:
        found += (await _cuts(at, _counted, cuts=3, settings=settings, prefix=prefix)).violations
    except* ProcessError as group:  # it finds its own file damaged, and does not start
        found.append(f"all that was acknowledged is gone: {group.exceptions}")
    return [f"{name}: {text}" for text in found]


async def _counted(course: Course, ran: Ran) -> None:
    """What was acknowledged and is gone. A broker that has forgotten itself too comes to no quiet with its agents."""
    await course.mesh.broker.kill()
    stored = {job.job_id.hex() for job in read_store(store_file(course.mesh.data))}
    acknowledged = {entry.key for entry in course.entries() if (entry.op, entry.phase) == ("submit", "ok")}
    if gone := acknowledged - stored:
        ran.violations.append(f"{len(gone)} of {len(acknowledged)} acknowledged are gone")


# --- killed at a sync -------------------------------------------------------------------------------------------------


async def kill_at_sync(trial: Trial, *, program: Sequence[str] = EAGER) -> Ran:
    """Instead of the Nth sync of a thread SIGKILL, for each N: while the store is made, and then under load.

    Several brokers, each with its share of the numbers, beside each other: a life is mostly waiting for its syncs.
    """
    meshes, numbers, hits = trial.of(1, MESHES), _numbers(trial), Counter[str]()
    ran = Ran(f"{RATE} jobs/s, 1 agent each, {meshes} meshes")
    async with asyncio.TaskGroup() as killing:
        for at in range(meshes):
            one = Trial(trial.folder / f"mesh-{at}", trial.seed + at, trial.is_full)
            one.folder.mkdir()
            killed = _killed_at_each(one, program, numbers[at::meshes], ran, hits, is_first=at == 0)
            killing.create_task(killed, name=f"mesh-{at}")
    ran.fired, ran.wanted = hits.total(), len(numbers)
    ran.figures |= {f"before_sync_of_{name}": count for name, count in sorted(hits.items())}
    return ran


async def _killed_at_each(
    trial: Trial, program: Sequence[str], numbers: Sequence[int], ran: Ran, hits: Counter[str], *, is_first: bool
) -> None:
    """One mesh, whose broker is killed before each of these syncs; what was hit, and what is wrong in the end.

    That of the first one is also killed while it makes its store.
    """
    course = Course(trial.folder, settings=FAST, broker_program=program, seed=trial.seed)
    async with AsyncExitStack() as stack:
        stack.push_async_exit(course)  # its broker is started here, and is not ready at once
        if is_first:
            hits.update(await _killed_while_made(course, trial))
        await course.mesh.start_broker()
        await course.start_agent("a1", slots=16)
        async with course.load(rate=RATE, run_s=None) as load:
            for number in numbers:
                hits[await _killed_at(course, trial, number)] += 1
            await _start(course, ran)
            await load.until_acknowledged(RATE // 2)
        ran.judged(await course.judge(QUIET_S))


async def too_early(trial: Trial) -> Ran:
    """Few are enough for a broker that answers before it has written."""
    return await kill_at_sync(Trial(trial.folder, trial.seed), program=("-m", "tests.e2e.defects", "ack-before-commit"))


def _numbers(trial: Trial) -> Sequence[int]:
    every = range(1, SYNCS_MAX + 1)
    return every if trial.is_full else sorted(random.Random(trial.seed).sample(every[: SYNCS_MAX // 4], 2))


async def _killed_while_made(course: Course, trial: Trial) -> list[str]:
    """Before each sync (short: before one) of a start on nothing; it starts anew from what is left. What was hit."""
    broker, hits = course.mesh.broker, []
    for number in itertools.count(1) if trial.is_full else (trial.seed % 3 + 1,):
        tampering = _killing(trial, number)
        await broker.start(tampering.prefix)
        with suppress(ProcessError):  # it ended before
            await broker.said("broker.ready")
            break
        await broker.ended(PATIENCE_S)
        hits.append(await _hit(tampering, f"the broker was killed before sync {number} of its first start"))
    await broker.kill()
    return hits


async def _killed_at(course: Course, trial: Trial, number: int) -> str:
    """Before this sync of the next life. What was to be synced."""
    broker, tampering = course.mesh.broker, _killing(trial, number)
    with course.during("kill", "broker"):
        await broker.kill()
        await broker.start(tampering.prefix)
        code = await broker.ended(PATIENCE_S)
    return await _hit(tampering, f"the broker was killed before sync {number}, and ended with {code}")


async def _start(course: Course, ran: Ran) -> None:
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await course.mesh.start_broker()
    ran.recovery_ms.append((loop.time() - began_s) * 1_000)


def _killing(trial: Trial, number: int) -> Tampering:
    return Tampering(trial.folder / f"strace-{number}.log", SYNCS, f"signal=KILL:when={number}")


async def _hit(tampering: Tampering, what: str) -> str:
    """What was to be synced when the broker was killed; strace writes its last line when the broker is gone."""

    async def found() -> list[str]:
        return tampering.hits

    return NAMES.get((await until(found, what))[0], "folder")


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "broker-kill-at-sync",
        f"The broker is killed before the Nth sync of a life, N = 1 to {SYNCS_MAX}, also while it makes its store and "
        "takes over its log; nothing acknowledged is lost",
        kill_at_sync,
        needs=("strace",),
        control=Control("defect ack-before-commit", too_early, "lost", is_in_suite=False),
        timeout_s=3_600.0,
    ),
    Row(
        "power-cut",
        "The power of the broker's machine goes: its disk forgets what was not synced, also names, or keeps some "
        "sectors of it in any order; nothing acknowledged is lost",
        power_cut,
        needs=("fuse", "fusermount3", "mfusepy", "eatmydata"),
        control=Control("synchronous=NORMAL, eatmydata", careless, "gone", is_in_suite=False),
        runs=5,
    ),
)
