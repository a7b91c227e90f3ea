"""Files that are removed when they are old, or large: what operations leave behind, by rules of the configuration.

A rule names a directory and which of its files go. Only plain files go, and only those that lie in it: links are
neither followed nor removed, so nothing outside is ever touched, whatever somebody puts there meanwhile. The agent's
own folders, and all below them, are left out: outcomes that wait, and files of attempts that run. A file or folder that
cannot be looked at is logged and left, and keeps nothing else from going.
"""

from __future__ import annotations

import fnmatch
import logging
import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from agent_stub.logs import fields

DAY_S = 86_400

log = logging.getLogger("mesh.agent.cleanup")


@dataclass(frozen=True, slots=True)
class Rule:
    """Which files of a directory go: those whose name matches and that are old and large enough, whatever is said.

    Attributes:
        pattern: of the name, as a shell has it (`*.csv`).
        older_than_s: seconds since it was last written.
        larger_than_bytes: its size.
        subdirectories: look into those too; they stay when they are empty.
    """

    name: str
    directory: Path
    pattern: str = "*"
    older_than_s: float = 0.0
    larger_than_bytes: int = -1
    subdirectories: bool = False


@dataclass(frozen=True, slots=True)
class Cleanup:
    """All rules of an agent, how often they are applied, and the folders that they never look into."""

    rules: Sequence[Rule] = ()
    every_s: float = 3_600.0
    own: Sequence[Path] = ()


class Due(NamedTuple):
    """A file that a rule wants removed."""

    rule: str
    path: Path
    bytes: int


def due(cleanup: Cleanup, now_s: float | None = None) -> Iterator[Due]:
    """What would be removed now."""
    for rule in cleanup.rules:
        for found, _, _ in _found(cleanup, rule, _now_s(now_s)):
            yield found


def is_inside_own(cleanup: Cleanup, directory: Path) -> bool:
    """Whether a directory is one of the agent's own folders, or lies in one: by any way, and before they are made."""
    own, identities = {_resolved(folder) for folder in cleanup.own}, _identities(cleanup.own)
    inside = _resolved(directory)
    return any(step in own or _identity(step) in identities for step in (inside, *inside.parents))


def clean(cleanup: Cleanup, now_s: float | None = None, is_over: Callable[[], bool] = lambda: False) -> list[Due]:
    """Remove what is due; what was removed. What cannot be removed is logged and left. Ends early when `is_over`."""
    gone: list[Due] = []
    for rule in cleanup.rules:
        for found, folder, name in _found(cleanup, rule, _now_s(now_s)):
            if is_over():
                return gone
            try:
                os.unlink(name, dir_fd=folder)  # in the directory that was looked at, wherever its path leads by now
            except OSError as error:
                _not_removed(rule, found.path, error)
            else:
                gone.append(found)
                log.debug("file.removed", extra=fields(rule=rule.name, file=found.path, bytes=found.bytes))
    return gone


def _now_s(given_s: float | None) -> float:
    return time.time() if given_s is None else given_s


def _found(cleanup: Cleanup, rule: Rule, now_s: float) -> Iterator[tuple[Due, int, str]]:
    """The file, the directory that it lies in (a descriptor), and its name there."""
    if is_inside_own(cleanup, rule.directory):
        text = "it lies in a folder of the agent's own"
        log.warning("rule.left_out", extra=fields(rule=rule.name, folder=rule.directory, reason=text))
        return
    own = _identities(cleanup.own)
    for path, folders, files, folder in _walk(rule.directory):
        identity = _identity(folder)
        if identity is None or identity in own:
            folders.clear()
            continue
        if not rule.subdirectories:
            folders.clear()
        for name in sorted(fnmatch.filter(files, rule.pattern)):
            try:
                size = _size_if_due(rule, name, folder, now_s)
            except OSError as error:
                _not_removed(rule, Path(path) / name, error)
                continue
            if size is not None:
                yield Due(rule.name, Path(path) / name, size), folder, name


def _walk(directory: Path) -> Iterator[tuple[str, list[str], list[str], int]]:
    """The directory and those below it, each held open while it is looked at; none if it is not there, or is a link."""
    not_read = partial(_not_read, directory)
    try:
        yield from os.fwalk(str(directory), follow_symlinks=False, onerror=not_read)
    except OSError as error:
        not_read(error)


def _not_read(directory: Path, error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        log.warning("folder.not_read", extra=fields(folder=directory, at=error.filename, reason=error.strerror))


def _not_removed(rule: Rule, file: Path, error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # somebody else was faster
        log.warning("file.not_removed", extra=fields(rule=rule.name, file=file, reason=error.strerror))


def _size_if_due(rule: Rule, name: str, folder: int, now_s: float) -> int | None:
    facts = os.stat(name, dir_fd=folder, follow_symlinks=False)
    is_due = (
        stat.S_ISREG(facts.st_mode)
        and now_s - facts.st_mtime >= rule.older_than_s
        and facts.st_size > rule.larger_than_bytes
    )
    return facts.st_size if is_due else None


def _resolved(path: Path) -> Path:
    return Path(os.path.realpath(path))  # `resolve` raises of links that lead in a circle


def _identities(paths: Sequence[Path]) -> set[tuple[int, int]]:
    return {identity for identity in map(_identity, paths) if identity is not None}


def _identity(file: Path | int) -> tuple[int, int] | None:
    """Which file it is, by whatever path or descriptor; None: that cannot be told."""
    with suppress(OSError):
        facts = os.stat(file)  # noqa: PTH116 - a descriptor too
        return facts.st_dev, facts.st_ino
    return None
