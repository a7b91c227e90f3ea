"""A small disk that can be filled (tmpfs; needs root)."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.chaos.row import RowError

BLOCK: Final = bytes(4_096)


class SmallVolume:
    """A file system of its own at `folder`, which is made."""

    def __init__(self, folder: Path, *, mib: int) -> None:
        self.folder = folder
        self._mib = mib
        self._ballast = folder / "ballast"

    async def __aenter__(self) -> Self:
        self.folder.mkdir()
        await _run("mount", "-t", "tmpfs", "-o", f"size={self._mib}m", "tmpfs", str(self.folder))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _run("umount", "--lazy", str(self.folder))

    def fill(self) -> None:
        """Leave no room: somebody else's files have it."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while True:  # who else writes there takes room meanwhile
                file.write(BLOCK)

    def make_room(self) -> None:
        """Take away what filled it."""
        self._ballast.unlink()


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise RowError(f"{' '.join(command[:3])}: it needs root")
