"""A disk that forgets at a power cut what was not synced, as a file system that any program can use (FUSE).

    async with ForgetfulDisk(tmp_path / "disk", seed=7) as disk:
        ...                                     # a broker with its data in disk.folder; kill it
        forgotten = await disk.cut()            # the same folder, as it is when the power is back

Taking the file system away is the cut: the process behind it (`python -m tests.chaos.forgetful FOLDER SEED`) keeps the
`Platter`, lets go of what was not synced, and mounts what is left. Pages of the kernel's cache do not survive that.
How much of the rest stays is drawn for each cut: nothing, half or nearly all of it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import random
import stat
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from tests.chaos.platter import File, Folder, Forgotten, Platter
from tests.chaos.row import RowError
from tests.e2e.processes import Process, ProcessError

KEPT: Final = (0.0, 0.5, 0.95)
MOUNTED, FORGOT = "disk.mounted", "disk.forgot"
RELEASE_S: Final = 10.0
"""A process that is gone may hold the disk for a moment: the kernel closes its files after it has told its parent."""
BLOCK_BYTES: Final = 4096
BLOCKS: Final = 1 << 20


class FileSystem:
    """The operations of FUSE over a platter; one thread calls them. `life` is how often it was mounted."""

    use_ns = True

    def __init__(self, platter: Platter, life: int) -> None:
        self._platter = platter
        self._life = life
        self._open: dict[int, File] = {}
        self._numbers = itertools.count(1)

    def init(self, path: str) -> None:
        """The kernel asks: it is mounted."""
        print(f"{MOUNTED} {self._life};", file=sys.stderr, flush=True)

    # --- what is there ----------------------------------------------------------------------------------------------

    def getattr(self, path: str, handle: int | None = None) -> dict[str, int]:
        """What `stat` tells."""
        node = self._platter.node(path)
        size = len(node.content) if isinstance(node, File) else 0
        times = dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), node.changed_ns)
        owner = {"st_uid": os.getuid(), "st_gid": os.getgid(), "st_nlink": 1}
        return {"st_mode": node.mode, "st_size": size, "st_blocks": -(-size // 512), **owner, **times}

    def readdir(self, path: str, handle: int) -> list[str]:
        """The names in a folder."""
        return [".", "..", *self._platter.folder(path).names]

    def statfs(self, path: str) -> dict[str, int]:
        """Room enough."""
        return {
            "f_bsize": BLOCK_BYTES,
            "f_frsize": BLOCK_BYTES,
            **dict.fromkeys(("f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree"), BLOCKS),
            "f_namemax": 255,
        }

    def read(self, path: str, size: int, offset: int, handle: int) -> bytes:
        """Bytes as they were written last."""
        return bytes(self._open[handle].content[offset : offset + size])

    # --- what is done to it -----------------------------------------------------------------------------------------

    def create(self, path: str, mode: int) -> int:
        """A new file, open."""
        self._platter.add(path, File(stat.S_IFREG | mode))
        return self.open(path, 0)

    def mkdir(self, path: str, mode: int) -> None:
        """A new folder."""
        self._platter.add(path, Folder(stat.S_IFDIR | mode))

    def open(self, path: str, flags: int) -> int:
        """A number for the file."""
        number = next(self._numbers)
        self._open[number] = self._platter.file(path)
        return number

    def release(self, path: str, handle: int) -> None:
        """Close; that syncs nothing."""
        del self._open[handle]

    def write(self, path: str, data: bytes, offset: int, handle: int) -> int:
        """Put bytes there."""
        self._open[handle].write(offset, data)
        return len(data)

    def truncate(self, path: str, size: int, handle: int | None = None) -> None:
        """Make it so long."""
        self._platter.file(path).truncate(size)

    def chmod(self, path: str, mode: int) -> None:
        """Who may do what; kept at once."""
        node = self._platter.node(path)
        node.mode = stat.S_IFMT(node.mode) | stat.S_IMODE(mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        """All belongs to whoever mounted it."""

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> None:
        """Times are those of the last change."""

    def rename(self, old: str, new: str) -> None:
        """Within a folder."""
        self._platter.rename(old, new)

    def unlink(self, path: str) -> None:
        """Take the name away."""
        self._platter.remove(path)

    rmdir = unlink

    # --- what stays -------------------------------------------------------------------------------------------------

    def fsync(self, path: str, is_data_only: int, handle: int) -> None:
        """The content is safe."""
        self._open[handle].sync()

    def fsyncdir(self, path: str, is_data_only: int, handle: int) -> None:
        """The names are safe."""
        self._platter.folder(path).sync()


class ForgetfulDisk:
    """The file system at `folder`, which is made. Needs /dev/fuse, fusermount3 and mfusepy.

    Raises RowError if it cannot be mounted.
    """

    def __init__(self, folder: Path, *, seed: int) -> None:
        self.folder = folder
        self._lives = 0
        self._process = Process("disk", ["-m", "tests.chaos.forgetful", str(folder), str(seed)])

    async def __aenter__(self) -> Self:
        self.folder.mkdir()
        await self._process.start()
        try:
            await self._mounted()
        except BaseException as error:
            await self._process.kill()
            if isinstance(error, ProcessError):
                raise RowError(f"no file system of FUSE: {error}") from error
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._process.kill()
        await _unmounted(self.folder, "-z")  # libfuse may have been there first

    async def cut(self) -> Forgotten:
        """The power is gone and back; nobody may use the folder meanwhile. Returns what was forgotten."""
        await self._take_away()
        line = await self._process.said(f"{FORGOT} {self._lives};")
        await self._mounted()
        return Forgotten(**json.loads(line.partition(";")[2]))

    async def _take_away(self) -> None:
        loop = asyncio.get_running_loop()
        until_s = loop.time() + RELEASE_S
        while refused := await _unmounted(self.folder):
            if loop.time() > until_s:
                raise RowError(f"the disk cannot be taken away: {refused}")

    async def _mounted(self) -> None:
        self._lives += 1
        await self._process.said(f"{MOUNTED} {self._lives};")


async def _unmounted(folder: Path, *options: str) -> str:
    """Take the file system away; why it stays."""
    process = await asyncio.create_subprocess_exec(
        "fusermount3", "-u", *options, str(folder), stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, said = await process.communicate()
    return said.decode().strip() if process.returncode else ""


def serve(folder: str, seed: int) -> None:
    """Mount, forget and mount again, until somebody ends this process. Raises RuntimeError if it cannot mount."""
    platter, generator = Platter(), random.Random(seed)
    for life in itertools.count(1):
        _mount(FileSystem(platter, life), folder)
        forgotten = platter.forget(generator, generator.choice(KEPT))
        print(f"{FORGOT} {life};{json.dumps(forgotten._asdict())}", file=sys.stderr, flush=True)


def _mount(file_system: FileSystem, folder: str) -> None:
    # The kernel may keep pages: nobody else changes what is there, and SQLite maps its index into memory.
    import mfusepy  # here: a machine without the library of FUSE cannot even import it, and has other rows to run

    options: dict[str, Any] = {"foreground": True, "nothreads": True, "kernel_cache": True, "auto_unmount": True}
    mfusepy.FUSE(file_system, folder, **options)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]))
