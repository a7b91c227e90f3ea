"""What lies on a disk, twice: as programs see it, and as it will be found when the power is gone.

Only what a program synced is safe: the content of a file by syncing the file, names in a folder (made, renamed,
removed) by syncing the folder. That is all that POSIX promises; real file systems often keep more, and a store that
counts on it is caught here. Of what was not synced a cut leaves nothing, or some of it, in sectors and in any order:
a disk writes what it likes in the meantime.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import time
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

SECTOR_BYTES: Final = 512
"""What a disk writes whole or not at all."""


class Forgotten(NamedTuple):
    """What a cut took."""

    sectors: int = 0
    sizes: int = 0
    """Changes of a file's length."""
    names: int = 0

    def plus(self, other: Forgotten) -> Forgotten:
        """Both together."""
        return Forgotten(*(mine + its for mine, its in zip(self, other, strict=True)))


class Write(NamedTuple):
    """Bytes that a file was given at this place."""

    offset: int
    data: bytes

    def sectors(self) -> Iterator[Write]:
        """The same in parts, none of which crosses the border of a sector."""
        at, end = self.offset, self.offset + len(self.data)
        while at < end:
            until = min(end, (at // SECTOR_BYTES + 1) * SECTOR_BYTES)
            yield Write(at, self.data[at - self.offset : until - self.offset])
            at = until


class File:
    """Bytes as they are read, and what was done to them since the last sync."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.changed_ns = time.time_ns()
        self.content = bytearray()
        self._synced = bytearray()
        self._changes: list[Write | int] = []
        """Writes, and new lengths."""

    def write(self, offset: int, data: bytes) -> None:
        """Put bytes there; what lies between the end and the place becomes zeros."""
        self._do(self.content, Write(offset, data))
        self._changes.append(Write(offset, data))

    def truncate(self, size: int) -> None:
        """Cut it off, or fill it with zeros."""
        self._do(self.content, size)
        self._changes.append(size)

    def sync(self) -> None:
        """From now on what was written is there whatever happens."""
        for change in self._changes:
            self._do(self._synced, change)
        self._changes.clear()

    def forget(self, generator: random.Random, kept: float) -> Forgotten:
        """Be what a cut leaves: of what was not synced each sector stays with the chance `kept`."""
        lost = Forgotten()
        for change in self._changes:
            for part in change.sectors() if isinstance(change, Write) else (change,):
                if generator.random() < kept:
                    self._do(self._synced, part)
                else:
                    lost = lost.plus(Forgotten(sectors=1) if isinstance(part, Write) else Forgotten(sizes=1))
        self._changes.clear()
        self.content = bytearray(self._synced)
        return lost

    def _do(self, content: bytearray, change: Write | int) -> None:
        self.changed_ns = time.time_ns()
        end = change if isinstance(change, int) else change.offset + len(change.data)
        if end > len(content):
            content.extend(bytes(end - len(content)))
        if isinstance(change, int):
            del content[change:]
        else:
            content[change.offset : end] = change.data


class Folder:
    """Names as they are seen, and what was done to them since the last sync."""

    def __init__(self, mode: int) -> None:
        self.mode = mode
        self.changed_ns = time.time_ns()
        self.names: dict[str, Node] = {}
        self._synced: dict[str, Node] = {}
        self._changes: list[Mapping[str, Node | None]] = []

    def set(self, change: Mapping[str, Node | None]) -> None:
        """Give names to nodes, or take names away (None): all of it at once, or none when it is forgotten."""
        self._do(self.names, change)
        self._changes.append(change)

    def sync(self) -> None:
        """From now on these names are there whatever happens; what they name is another matter."""
        self._synced = dict(self.names)
        self._changes.clear()

    def forget(self, generator: random.Random, kept: float) -> Forgotten:
        """Be what a cut leaves, and all that is still reachable with it."""
        lost = 0
        for change in self._changes:
            if generator.random() < kept:
                self._do(self._synced, change)
            else:
                lost += 1
        self._changes.clear()
        self.names = dict(self._synced)
        below = (node.forget(generator, kept) for node in self.names.values())
        return sum_of(below).plus(Forgotten(names=lost))

    def _do(self, names: dict[str, Node], change: Mapping[str, Node | None]) -> None:
        self.changed_ns = time.time_ns()
        for name, node in change.items():
            if node is None:
                names.pop(name, None)
            else:
                names[name] = node


Node: TypeAlias = File | Folder


def sum_of(parts: Iterator[Forgotten]) -> Forgotten:
    """All of them together."""
    total = Forgotten()
    for part in parts:
        total = total.plus(part)
    return total


class Platter:
    """A tree of folders and files. Paths begin with `/`. Raises OSError as the system calls of the same names do."""

    def __init__(self) -> None:
        self.root = Folder(stat.S_IFDIR | 0o755)

    def node(self, path: str) -> Node:
        """What is at the path."""
        node: Node = self.root
        for name in path.split("/")[1:] if path != "/" else ():
            found = node.names.get(name) if isinstance(node, Folder) else None
            if found is None:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            node = found
        return node

    def folder(self, path: str) -> Folder:
        """The folder at the path."""
        node = self.node(path)
        if isinstance(node, File):
            raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
        return node

    def file(self, path: str) -> File:
        """The file at the path."""
        node = self.node(path)
        if isinstance(node, Folder):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return node

    def add(self, path: str, node: Node) -> None:
        """Give a new node this path."""
        folder, name = self._place(path)
        if name in folder.names:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        folder.set({name: node})

    def remove(self, path: str) -> None:
        """Take the name away; a folder must be empty."""
        node = self.node(path)
        if isinstance(node, Folder) and node.names:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), path)
        folder, name = self._place(path)
        folder.set({name: None})

    def rename(self, old: str, new: str) -> None:
        """Within one folder; what had the new name has none any more."""
        node = self.node(old)
        folder, name = self._place(old)
        target, new_name = self._place(new)
        if target is not folder:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), old)
        folder.set({name: None, new_name: node})

    def forget(self, generator: random.Random, kept: float) -> Forgotten:
        """The power is gone, and back: what was not synced is there with the chance `kept`, in parts."""
        return self.root.forget(generator, kept)

    def _place(self, path: str) -> tuple[Folder, str]:
        above, _, name = path.rpartition("/")
        return self.folder(above or "/"), name
