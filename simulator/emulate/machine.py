"""How busy this machine is while something is measured: figures of a machine without room say little of the program."""

from pathlib import Path
from typing import Final

BUSY: Final = 0.9
"""Above this share of all processors, what is measured is the queue for them."""
_IDLE: Final = (3, 4)
"""Columns of /proc/stat that are no work: idle, and waiting for disks."""


class Processors:
    """The processors of this machine, all programs together, since this was made."""

    def __init__(self) -> None:
        self._before = _times()

    def busy(self) -> float:
        """The share of their time in which they worked."""
        work, whole = (now - before for now, before in zip(_times(), self._before, strict=True))
        return work / whole if whole else 0.0


def _times() -> tuple[int, int]:
    """Ticks of work, and of all. Raises OSError."""
    with Path("/proc/stat").open() as file:
        ticks = [int(word) for word in file.readline().split()[1:9]]
    return sum(ticks) - sum(ticks[column] for column in _IDLE), sum(ticks)
