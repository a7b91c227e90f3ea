from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.machine import missing
from tests.chaos.strace import SYNCS, Tampering, hits_of
from tests.conftest import not_run
from tests.e2e.course import until
from tests.e2e.processes import Process

pytestmark = pytest.mark.e2e

PROGRAM = """
import os, sys
for name in ("first", "second", "third"):
    descriptor = os.open(sys.argv[1] + "/" + name, os.O_CREAT | os.O_WRONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        print(name, os.strerror(error.errno), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("how", "code", "hits"),
    [
        ("signal=KILL:when=2", -9, ["second"]),
        ("error=EIO:when=2+", 0, ["second", "third"]),
        ("delay_exit=1", 0, ["first", "second", "third"]),
    ],
)
async def test_tampering_hits_the_calls_that_it_names(tmp_path: Path, how: str, code: int, hits: list[str]) -> None:
    if lacking := missing(("strace",)):
        not_run(lacking)
    tampering = Tampering(tmp_path / "log", SYNCS, how)
    process = Process("program", ["-c", PROGRAM, str(tmp_path)])

    await process.start(tampering.prefix)

    assert await process.ended() == code

    async def is_written() -> bool:
        return tampering.hits == hits

    await until(is_written, "strace has written its log")


def test_tampering_has_hit_nothing_before_its_program_started(tmp_path: Path) -> None:
    assert Tampering(tmp_path / "log", SYNCS, "error=EIO").hits == []


def test_hits_are_found_when_lines_of_other_threads_come_between() -> None:
    log = """\
11 fdatasync(3</a/one> <unfinished ...>
12 fdatasync(4</a/two>)  = 0
11 <... fdatasync resumed>)  = 0 (DELAYED)
12 fdatasync(4</a/two> <unfinished ...>
12 <... fdatasync resumed>)  = 0
12 fdatasync(4</a/three>)  = ?
11 fdatasync(3</a/four> <unfinished ...>
11 +++ killed by SIGKILL +++"""

    assert hits_of(log.splitlines()) == ["one", "three", "four"]
