"""Limits of running processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.chaos.machine import missing
from tests.chaos.ration import Cgroup, cpu_share, no_more_descriptors
from tests.chaos.remains import CGROUPS
from tests.chaos.row import RowError
from tests.conftest import not_run

HUNGRY = """
import sys
for line in sys.stdin:
    try:
        print(eval(line), flush=True)
    except OSError as error:
        print(error.strerror, flush=True)
"""


class Told:
    """A process that computes what it is told on a line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.pid = process.pid
        self._process = process

    def asked(self, text: str) -> str:
        """Its answer; empty if it has ended."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def told() -> Iterator[Told]:
    """Such a process."""
    with subprocess.Popen(
        [sys.executable, "-c", HUNGRY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Told(process)
        finally:
            process.kill()


@pytest.fixture(autouse=True)
def _cgroups() -> None:
    if reason := missing(("root", "cgroup-memory", "cgroup-cpu")):
        not_run(reason)


def test_process_that_takes_more_memory_than_its_group_may_have_is_killed() -> None:
    with told() as process, Cgroup("memory", "test") as group:
        group.set("memory.limit_in_bytes", 64 << 20)
        group.add(process.pid)
        assert process.asked("len(bytes(8 << 20))") == str(8 << 20)
        assert process.asked("len(b'x' * (256 << 20))") == ""
        assert group.counter("memory.oom_control", "oom_kill") == 1


def test_process_has_no_more_than_its_share_of_a_processor() -> None:
    with told() as process, cpu_share(process.pid, 0.1, "test") as group:
        process.asked("sum(range(3_000_000))")
        assert group.counter("cpu.stat", "nr_throttled") > 0


def test_process_opens_nothing_more_until_the_limit_is_lifted() -> None:
    with told() as process:
        assert process.asked("1 + 1") == "2", "it has started"
        with no_more_descriptors(process.pid):
            assert process.asked("open('/dev/null').fileno()") == os.strerror(24)
        assert process.asked("open('/dev/null').fileno()").isdigit()


def test_group_is_gone_after_the_block_although_its_process_lives() -> None:
    before = set(Path(CGROUPS / "cpu").iterdir())
    with told() as process:
        with cpu_share(process.pid, 0.5, "test"):
            assert set(Path(CGROUPS / "cpu").iterdir()) != before
        assert set(Path(CGROUPS / "cpu").iterdir()) == before
        assert process.asked("1 + 1") == "2"


def test_group_of_a_controller_that_is_not_there_cannot_be_made() -> None:
    with pytest.raises(RowError, match="no cgroup v1"), Cgroup("telepathy", "test"):
        pass
