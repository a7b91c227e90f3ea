"""What a running process may use from now on: memory and processor time (cgroup v1), descriptors (prlimit).

    with Cgroup("memory", "a1") as group:
        group.set("memory.limit_in_bytes", 200 << 20)
        group.add(agent.pid)

Needs root. The group is gone after the block; what still runs in it goes back to the group above.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.chaos.remains import CGROUPS, dissolve, name_of
from tests.chaos.row import RowError

PERIOD_US: Final = 100_000
QUOTA_MIN_US: Final = 1_000
"""The kernel takes none below it."""


class Cgroup:
    """A group of a v1 controller with a name that no other run has. Raises RowError if it cannot be made."""

    def __init__(self, controller: str, name: str) -> None:
        self._root = CGROUPS / controller
        self._folder = self._root / name_of(name)

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir()
        except OSError as error:
            raise RowError(f"no cgroup v1 at {self._root}: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        dissolve(self._folder)

    def add(self, pid: int) -> None:
        """From now on the process, with all its threads and what it starts, is in the group."""
        (self._folder / "cgroup.procs").write_text(str(pid))

    def set(self, name: str, value: int) -> None:
        """Write a limit."""
        (self._folder / name).write_text(str(value))

    def counter(self, file: str, name: str) -> int:
        """A number of a file of lines `name number`."""
        lines = dict(line.split() for line in (self._folder / file).read_text().splitlines())
        return int(lines[name])


@contextmanager
def cpu_share(pid: int, share: float, name: str) -> Iterator[Cgroup]:
    """The process has this share of one processor, until the end of the block."""
    with Cgroup("cpu", name) as group:
        period_us = max(PERIOD_US, int(QUOTA_MIN_US / share))
        group.set("cpu.cfs_period_us", period_us)
        group.set("cpu.cfs_quota_us", int(share * period_us))
        group.add(pid)
        yield group


@contextmanager
def no_more_descriptors(pid: int) -> Iterator[int]:
    """The process may open nothing more, until the end of the block; gives how many it has."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(one.name) for one in Path(f"/proc/{pid}/fd").iterdir())
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1, limits[1]))
    try:
        yield highest + 1
    finally:
        with suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
