"""What a run that was killed has left: folders, with what is mounted in them, and control groups.

A run takes away by itself what it makes, unless nothing of it runs any more: SIGKILL, or a machine out of memory. What
it makes is named `chaos-PID-...`; the next run takes away what belongs to processes that are gone. A number that
another process has by now is left alone, and so is all that another run still uses.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mounts")
CGROUPS: Final = Path("/sys/fs/cgroup")
_OWNED: Final = re.compile(r"chaos-(\d+)-.*")


def name_of(what: str) -> str:
    """The name of something that this process makes."""
    return f"chaos-{os.getpid()}-{what}"


def sweep(folders: Path | None = None, cgroups: Path = CGROUPS) -> list[str]:
    """Take away what is left in `folders` (where temporary files are) and below `cgroups`: what that was."""
    swept = []
    for folder in _left_in(folders or Path(tempfile.gettempdir())):
        _unmount_below(folder)
        shutil.rmtree(folder, ignore_errors=True)
        swept.append(str(folder))
    for controller in sorted(cgroups.iterdir()) if cgroups.is_dir() else ():
        for group in _left_in(controller):
            with suppress(OSError):  # in use, or not ours: it stays, and this run goes on
                dissolve(group)
                swept.append(str(group))
    return swept


def dissolve(group: Path) -> None:
    """Remove a control group (v1); what still runs in it goes back to the one above."""
    for pid in (group / "cgroup.procs").read_text().split():
        with suppress(ProcessLookupError):  # it has ended meanwhile
            (group.parent / "cgroup.procs").write_text(pid)
    group.rmdir()


def _left_in(folder: Path) -> Iterator[Path]:
    if not folder.is_dir() or folder.is_symlink():
        return
    for one in sorted(folder.glob("chaos-*-*")):
        owner = _OWNED.fullmatch(one.name)
        if owner is not None and one.is_dir() and not one.is_symlink() and not _is_there(int(owner[1])):
            yield one


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _unmount_below(folder: Path) -> None:
    """The innermost first."""
    points = [line.split()[1].replace("\\040", " ") for line in MOUNTS.read_text().splitlines()]
    for point in sorted((one for one in points if Path(one).is_relative_to(folder)), key=len, reverse=True):
        subprocess.run(("umount", "--lazy", point), check=False, capture_output=True)
