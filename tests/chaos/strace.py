"""Faults in system calls of a broker: `strace` around it, from its start.

    tampering = Tampering(log, SYNCS, "signal=KILL:when=5")
    await mesh.broker.start(tampering.prefix)
    ...
    tampering.hits                              # the files whose calls were tampered with

What `when` counts is counted for each thread by itself; the broker has one that writes, and one that checkpoints.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

SYNCS: Final = ("fsync", "fdatasync")
WRITES: Final = ("pwrite64",)
CALL: Final = re.compile(r"^(?P<thread>\d+) +(?:\w+\(\d+<(?P<path>[^>]*)>|<\.\.\. \w+ resumed>)(?P<rest>.*)$")
"""A call, or what was left of it when lines of other threads came between."""
UNFINISHED: Final = "<unfinished ...>"
HIT: Final = ("(INJECTED)", "(DELAYED)", "= ?")
"""How the line of a call ends that was tampered with, or that its process did not survive."""


class Tampering:
    """These calls of all threads fail as `how` says (`error=EIO:when=10+`, `delay_exit=MICROSECONDS`, `signal=KILL`).

    `path` limits it to calls on one file. The log is written anew with each start of a program.
    """

    def __init__(self, log: Path, calls: Sequence[str], how: str, *, path: Path | None = None) -> None:
        self._log = log
        self._path = path
        named = ",".join(calls)
        only = ("-P", str(path)) if path else ()
        # As a grandchild (-D), strace leaves the broker the child of whoever starts it, with the number that it knows.
        quiet = ("-D", "-f", "-qq", "-y", "-e", "signal=none", "-o", str(log))
        self.prefix = ("strace", *quiet, *only, "-e", f"trace={named}", "-e", f"inject={named}:{how}")
        """The words that go before a program."""

    @property
    def hits(self) -> list[str]:
        """The names of the files that were hit, one for each call, in their order."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return hits_of(lines)


def hits_of(lines: Iterable[str]) -> list[str]:
    """The same of the lines of a log."""
    begun: dict[str, str] = {}
    hits = []
    for found in filter(None, map(CALL.match, lines)):
        path = found["path"] if found["path"] is not None else begun.pop(found["thread"], "")
        if found["rest"].endswith(UNFINISHED):
            begun[found["thread"]] = path
        elif found["rest"].endswith(HIT):
            hits.append(path)
    return [Path(path).name for path in (*hits, *begun.values())]
