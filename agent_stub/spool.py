"""Outcomes on disk: what outlives the process until a broker has acknowledged it.

One file an outcome, `<job_key>-<attempt>.outcome`: a line `mesh-outcome 1 <SHA-256 of the rest>`, and the outcome as it
goes on the wire. A file appears whole or not at all. One that is not what it was when it was written is set aside under
`.corrupt`, named in the log, and never delivered.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from agent_stub import convert
from agent_stub.logs import fields
from agent_stub.session import Key, Outcome
from protos.mesh.v1 import agent_service_pb2 as pb

SUFFIX: Final = ".outcome"
TEMPORARY: Final = ".writing"
CORRUPT: Final = ".corrupt"
MESH: Final = "mesh"
"""The file that says which mesh the outcomes are for."""
MESH_CHARACTERS_MAX: Final = 64
MAGIC: Final = b"mesh-outcome 1 "
NAME: Final = re.compile(r"(\d+)-(\d+)\.outcome")

log = logging.getLogger("mesh.agent.spool")


class CorruptError(Exception):
    """A file is not what it was when it was written: the text says why."""


class Spool:
    """The outcomes in one folder, which no other process uses.

    Args:
        folder: made if it is missing, for the agent's user alone.

    Raises:
        OSError: the folder cannot be made or read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._bytes: dict[Key, int] = {}
        for leftover in folder.glob(f"*{TEMPORARY}"):
            leftover.unlink()

    def __contains__(self, key: object) -> bool:
        return key in self._bytes

    def __iter__(self) -> Iterator[Key]:
        return iter(list(self._bytes))

    def __len__(self) -> int:
        return len(self._bytes)

    @property
    def used_bytes(self) -> int:
        """What the files take."""
        return sum(self._bytes.values())

    @property
    def free_bytes(self) -> int:
        """What the file system has left for this user."""
        room = os.statvfs(self.folder)
        return room.f_bavail * room.f_frsize

    @property
    def mesh_id(self) -> str:
        """Which mesh the outcomes are for; "" if nobody has said."""
        with suppress(OSError, UnicodeDecodeError):
            return (self.folder / MESH).read_text("ascii").strip()[:MESH_CHARACTERS_MAX]
        return ""

    def belong_to(self, mesh_id: str) -> None:
        """What is kept from now on is for this mesh. When this returns that outlives a power cut, as outcomes may.

        Raises:
            OSError: the disk does not take it.
        """
        _put(self.folder / MESH, f"{mesh_id}\n".encode("ascii"), is_durable=True)

    def belong_to_nobody(self) -> None:
        """Forget which mesh it is for, if nothing is left in it."""
        if not self._bytes:
            with suppress(OSError):
                (self.folder / MESH).unlink(missing_ok=True)

    def read(self) -> list[Outcome]:
        """All outcomes, the oldest job first; what is corrupt is set aside."""
        outcomes = []
        for path in self.folder.glob(f"*{SUFFIX}"):
            try:
                outcome, size = _read(path)
            except (CorruptError, OSError) as error:
                _set_aside(path, error)
                continue
            self._bytes[(outcome.job_key, outcome.attempt)] = size
            outcomes.append(outcome)
        return sorted(outcomes, key=lambda outcome: (outcome.job_key, outcome.attempt))

    def write(self, outcome: Outcome, *, is_durable: bool) -> None:
        """Keep an outcome. When this returns it outlives the process; with `is_durable` a power cut too.

        Raises:
            OSError: the disk does not take it.
        """
        key = (outcome.job_key, outcome.attempt)
        body = convert.outcome_to(outcome).SerializeToString()
        content = MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        _put(self._path_of(key), content, is_durable=is_durable)
        self._bytes[key] = len(content)

    def remove(self, key: Key) -> None:
        """A broker has acknowledged it; what is not there is left alone."""
        if self._bytes.pop(key, None) is not None:
            try:
                self._path_of(key).unlink(missing_ok=True)
            except OSError as error:
                log.warning("spool.not_removed", extra=fields(job_key=key[0], attempt=key[1], reason=error))

    def _path_of(self, key: Key) -> Path:
        return self.folder / f"{key[0]}-{key[1]}{SUFFIX}"


def _put(path: Path, content: bytes, *, is_durable: bool) -> None:
    """Have the file hold this, whole or not at all; raises OSError, and leaves what was there."""
    temporary = path.with_suffix(TEMPORARY)
    try:
        with temporary.open("wb") as file:
            file.write(content)
            if is_durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
        if is_durable:
            _sync(path.parent)
    except OSError:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def _read(path: Path) -> tuple[Outcome, int]:
    name = NAME.fullmatch(path.name)
    if name is None:
        raise CorruptError("its name is none of an outcome")
    content = path.read_bytes()
    head, line_end, body = content.partition(b"\n")
    if not line_end or head != MAGIC + hashlib.sha256(body).hexdigest().encode():
        raise CorruptError("its digest is another than that of its content")
    try:
        outcome = convert.outcome_of(pb.Outcome.FromString(body))
    except (DecodeError, ValueError) as error:
        raise CorruptError(f"it holds no outcome: {error}") from error
    if (str(outcome.job_key), str(outcome.attempt)) != name.groups():
        raise CorruptError("it holds the outcome of another attempt")
    return outcome, len(content)


def _set_aside(path: Path, reason: Exception) -> None:
    aside = path.with_suffix(CORRUPT)
    try:
        path.replace(aside)
    except OSError as error:
        reason = error
    log.error("spool.corrupt", extra=fields(file=path, reason=reason, set_aside_as=aside.name))


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
