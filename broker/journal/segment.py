r"""One segment of a journal: a file that opens with all that is needed to do its turns again.

    jobmesh-journal 1\n                                the format
    frame, frame, ...                                 length and checksum (32 bits each, little endian), then zlib

A frame is some lines of JSON. The first line of a segment is its head, then come the snapshots of its groups, then
turns; a group that is added or lost in between has its own line. The last line says why the segment ended; without it
the writer was killed.

    ["head", {"number", "at_us", "program", "shape", "seed"}]
    ["group", {"group", "epoch", "policy", "random", "nodes"}]       the snapshot has so many nodes:
    ["nodes", node, node, ...]                                        some of them, until all are there
    ["turn", at_us, lag_us, [[group, event], ...], {group: digest of its effects}]
    ["lost", [group, ...]]
    ["end", why]

What stands behind a frame that is cut short or damaged is not read: it would belong to a state that nobody knows.
"""

import json
import struct
import zlib
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Any, Final, NamedTuple

MAGIC: Final = b"jobmesh-journal "
FORMAT: Final = 1
SUFFIX: Final = ".journal"
COMPRESSION: Final = 1
FRAME_BYTES_MAX: Final = 64 << 20
"""No frame is larger: a length beyond it is damage."""
_HEADER: Final = struct.Struct("<II")

Line = list[Any]
"""One line as it is written: its kind, then what the kind says."""


class JournalError(Exception):
    """A journal, or a segment of one, cannot be read: the text says which, why, and what can be done."""


class Head(NamedTuple):
    """What a segment opens with. `shape` names the classes of the writer, by a digest; `seed` is the broker's."""

    number: int
    at_us: int
    program: str
    shape: str
    seed: int


def name_of(number: int) -> str:
    """The file name of a segment: in the order of their names they are in the order of time."""
    return f"{number:09}{SUFFIX}"


def shape_of(*shapes: object) -> str:
    """A digest of what classes look like: programs with the same one can read each other's segments."""
    return sha256(json.dumps(shapes).encode()).hexdigest()[:16]


def segments_of(folder: Path) -> list[Path]:
    """The segments of a journal, the oldest first. Raises JournalError: there is no such folder, or it has none."""
    if not folder.is_dir():
        raise JournalError(f"{folder}: there is no such folder; a journal is the folder `journal` of a data_dir")
    found = sorted(path for path in folder.iterdir() if path.suffix == SUFFIX)
    if not found:
        raise JournalError(f"{folder}: there is no segment of a journal here; set journal.enabled and run the broker")
    return found


def opening() -> bytes:
    """How every segment begins."""
    return MAGIC + b"%d\n" % FORMAT


def frame(lines: Iterable[str]) -> bytes:
    """These lines as one frame."""
    packed = zlib.compress("\n".join(lines).encode(), COMPRESSION)
    return _HEADER.pack(len(packed), zlib.crc32(packed)) + packed


class SegmentReader:
    """Reads one segment. `damage` says, once all lines are read, why they were not all ("": they were)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.damage = ""

    def lines(self) -> Iterator[Line]:
        """All whole lines. Raises JournalError: this is no segment, or one of another format."""
        with self._path.open("rb") as file:
            self._check_format(file)
            while lines := self._frame(file):
                yield from lines

    def _check_format(self, file: IO[bytes]) -> None:
        first = file.read(len(MAGIC) + 4).partition(b"\n")[0]
        name, number = first[: len(MAGIC)], first[len(MAGIC) :]
        if name != MAGIC or not number.isdigit():
            raise JournalError(f"{self._path.name}: this is not a segment of a journal")
        if int(number) != FORMAT:
            raise JournalError(
                f"{self._path.name}: this journal has format {int(number)}, this program reads format {FORMAT}: "
                "use the version that wrote it"
            )
        file.seek(len(MAGIC) + len(number) + 1)

    def _frame(self, file: IO[bytes]) -> list[Line]:
        """The lines of the next frame; none at the end, and where the file is damaged."""
        at = file.tell()
        header = file.read(_HEADER.size)
        if not header:
            return []
        if len(header) < _HEADER.size:
            return self._damaged(f"cut short in the frame at byte {at}")
        length, checksum = _HEADER.unpack(header)
        packed = file.read(length) if length <= FRAME_BYTES_MAX else b""
        if length <= FRAME_BYTES_MAX and len(packed) < length:
            return self._damaged(f"cut short in the frame at byte {at}")
        if zlib.crc32(packed) != checksum:
            return self._damaged(f"the frame at byte {at} is damaged: its checksum is another one")
        try:
            return [json.loads(line) for line in zlib.decompress(packed).decode().split("\n")]
        except (zlib.error, ValueError) as error:
            return self._damaged(f"the frame at byte {at} is damaged: {error}")

    def _damaged(self, why: str) -> list[Line]:
        self.damage = why
        return []
