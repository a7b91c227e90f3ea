"""A store whose file was damaged while nobody used it."""

from __future__ import annotations

import random
import shutil
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from broker.app import STORE_FILE
from mesh_client import JobSpec
from tests.chaos.row import BROKER, Ran, Row, Trial
from tests.chaos.stage import planted
from tests.e2e.course import FAST, Course

JOBS: Final = 100
PAYLOAD_BYTES: Final = 3_000
HEADER_BYTES: Final = 100
PAGE_BYTES: Final = 4_096
END_S: Final = 60.0
CONTROL_S: Final = 20.0

Damage = Callable[[Path, random.Random], None]
"""What is done to the file of the store, which lies there alone or with its log beside it."""


def header(file: Path, generator: random.Random) -> None:
    """Other bytes at its beginning."""
    _write(file, 0, generator.randbytes(HEADER_BYTES))


def page(file: Path, generator: random.Random) -> None:
    """Other bytes in place of the first page of some table or index."""
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as database:
        pages = [number for (number,) in database.execute("SELECT rootpage FROM sqlite_master WHERE rootpage > 1")]
    _write(file, (generator.choice(pages) - 1) * PAGE_BYTES, generator.randbytes(PAGE_BYTES))


def truncation(file: Path, generator: random.Random) -> None:
    """Its end is gone."""
    pages = file.stat().st_size // PAGE_BYTES
    with file.open("r+b") as opened:
        opened.truncate(generator.randint(1, pages // 2) * PAGE_BYTES)


def emptiness(file: Path, generator: random.Random) -> None:
    """Nothing is left of it but its name."""
    file.write_bytes(b"")


def text(file: Path, generator: random.Random) -> None:
    """Somebody wrote something else there."""
    file.write_text("moved to the new disk\n")


def removal(file: Path, generator: random.Random) -> None:
    """It is gone, and its log is there."""
    file.unlink()


def garbage(file: Path, generator: random.Random) -> None:
    """After the end of its log is something: a write that was never finished."""
    with _log(file).open("ab") as opened:
        opened.write(generator.randbytes(generator.randint(1, 3 * PAGE_BYTES)))


def half_frame(file: Path, generator: random.Random) -> None:
    """After the end of its log a frame begins like its first one, and is cut off."""
    frame = _log(file).read_bytes()[32 : 32 + generator.randint(25, PAGE_BYTES)]
    with _log(file).open("ab") as opened:
        opened.write(frame)


REFUSED: Final[tuple[Damage, ...]] = (header, page, truncation, emptiness, text)
REFUSED_WITH_LOG: Final[tuple[Damage, ...]] = (removal,)
LEGAL: Final[tuple[Damage, ...]] = (garbage, half_frame)
"""What a crash may leave: it was acknowledged to nobody, and is cut off."""


def _write(file: Path, offset: int, content: bytes) -> None:
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(content)


def _log(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


@dataclass(frozen=True, slots=True)
class Store:
    """The broker's folder as it was left: stopped in order, or killed with a log beside the file."""

    data: Path
    copy: Path

    def keep(self) -> None:
        """Remember what lies there."""
        shutil.copytree(self.data, self.copy)

    def damaged(self, damage: Damage, generator: random.Random) -> dict[str, bytes]:
        """Put it back and damage it; the bytes of each file then."""
        shutil.rmtree(self.data)
        shutil.copytree(self.copy, self.data)
        damage(self.data / STORE_FILE, generator)
        return self.files()

    def files(self) -> dict[str, bytes]:
        """Names and bytes; the lock is of no account."""
        return {one.name: one.read_bytes() for one in self.data.iterdir() if one.is_file() and one.suffix != ".lock"}


async def corrupted(trial: Trial, *, program: Sequence[str] = BROKER, within_s: float = END_S) -> Ran:
    """Damage of many kinds, each to a store with jobs in it; then the store as it was."""
    ran = Ran(f"{2 * JOBS} jobs of {PAYLOAD_BYTES:,} bytes in the store")
    async with Course(trial.folder, settings=FAST, broker_program=program, seed=trial.seed) as course:
        stopped, killed = (Store(course.mesh.data, trial.folder / name) for name in ("stopped", "killed"))
        await _fill(course)
        await course.mesh.broker.stop()
        stopped.keep()
        await course.mesh.start_broker()
        await _fill(course)
        with course.during("kill", "broker"):
            await course.mesh.broker.kill()
        killed.keep()
        for store, damages in ((stopped, REFUSED), (killed, REFUSED_WITH_LOG)):
            for damage in _some(trial, course, damages):
                await _refused(course, store, damage, ran, within_s)
        for damage in _some(trial, course, LEGAL):
            killed.damaged(damage, course.generator)
            await course.mesh.broker.kill()
            await course.mesh.start_broker()
            ran.fired += 1
        await course.start_agent("a1", slots=16)
        findings = await course.judge()
    return ran.judged(findings)


def _some(trial: Trial, course: Course, damages: tuple[Damage, ...]) -> list[Damage]:
    return course.generator.sample(damages, trial.of(1, len(damages)))


async def _fill(course: Course) -> None:
    spec = JobSpec("echo", json={"padding": "x" * PAYLOAD_BYTES})
    await course.submit_specs([spec] * JOBS)


async def _refused(course: Course, store: Store, damage: Damage, ran: Ran, within_s: float) -> None:
    """The broker does not start, names the file and leaves everything as it is."""
    broker = course.mesh.broker
    before = store.damaged(damage, course.generator)
    await broker.start()
    code = await broker.ended(within_s)
    ran.fired += 1
    said = await broker.said('"broker.')
    if code == 0 or "broker.failed" not in said or str(store.data / STORE_FILE) not in said:
        ran.violations.append(f"{damage.__name__}: the broker ended with {code} and {said}")
    if store.files() != before:
        ran.violations.append(f"{damage.__name__}: the broker changed what it refused")


ROWS: Final[tuple[Row, ...]] = (
    Row(
        "store-corrupted",
        "The file of the store is damaged, cut short, replaced or gone: the broker refuses to start, names it and "
        "leaves it as it is; what a crash leaves at the end of its log is cut off, and nothing acknowledged is lost",
        corrupted,
        control=planted(
            "begins-anew", partial(corrupted, within_s=CONTROL_S), "broker.ready", is_in_suite=False, is_short=True
        ),
        runs=10,
    ),
)
