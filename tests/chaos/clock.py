"""A wall clock that can be set while a process runs: libfaketime, for that process only.

    clock = Clock(folder / "clock")
    Process("broker", words, environment=clock.environment)
    clock.set(3_600.0)

The monotonic clocks go on as they are, as they do on a machine whose clock is set.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tests.chaos.row import RowError

PATTERN: Final = "*-linux-gnu*/faketime/libfaketimeMT.so.1"


class Clock:
    """One clock, for all processes that are started with its `environment`; `file` holds by how much it is wrong."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._library = next(Path("/usr/lib").glob(PATTERN), None)
        self.set(0.0)

    def set(self, ahead_s: float) -> None:
        """From now on it is so many seconds ahead of the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead_s:+g}\n")
        new.replace(self._file)  # whoever reads it finds the old text or the new one

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of processes that live by this clock. Raises RowError if the library is not there."""
        if self._library is None:
            raise RowError("libfaketime is missing: make system")
        return {
            "LD_PRELOAD": str(self._library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_NO_CACHE": "1",
        }
