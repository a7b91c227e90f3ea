"""One row of the matrix of faults: what is injected, how to run it, and which broken program it must catch.

A row is a function of a `Trial` that gives a `Ran`. It starts real processes under real load, injects its fault, waits
for quiet and holds the histories against the store (`tests.e2e.history`). A row's `Control` does the same with a
program or a setting that is known to be bad: its run must give violations, or the row proves nothing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.e2e.history import Findings
from tests.e2e.processes import BROKER_PROGRAM

BROKER: Final = BROKER_PROGRAM


class RowError(Exception):
    """What the run needs could not be made on this machine. The text says what to do."""


class MissedError(Exception):
    """The fault hit nothing, so the run shows nothing: a violation, which never passes for a row that was not run."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What one run is given: an empty folder, its seed, and how much of it is wanted."""

    folder: Path
    seed: int
    is_full: bool = False
    """The numbers of the table; else the short form of the suite."""

    def of(self, short: int, full: int) -> int:
        """How many: in the suite, or in the table."""
        return full if self.is_full else short


@dataclass(slots=True)
class Ran:
    """What one run gave."""

    load: str
    """Under which load the fault fired, for people: `200 jobs/s, 4 agents`."""
    fired: int = 0
    """How often the fault was injected and hit something."""
    violations: list[str] = field(default_factory=list)
    recovery_ms: list[float] = field(default_factory=list)
    """From each injection (or its end) until the mesh did what it promises; one figure for each, in milliseconds."""
    figures: dict[str, float] = field(default_factory=dict)
    """What else was measured: name with its unit last, and the figure."""
    wanted: int = 1
    """How often the fault must have hit something, for the run to count."""

    def judged(self, findings: Findings) -> Ran:
        """The same with what the checker of histories found, and how long jobs waited during the faults and after."""
        self.violations += [f"{name}: {', '.join(found[:5])}" for name, found in findings.wrong().items()]
        self.figures = {**findings.latency_ms, **self.figures}
        return self


Run = Callable[[Trial], Awaitable[Ran]]


class Control(NamedTuple):
    """The same fault with something known to be bad."""

    name: str
    run: Run
    finds: str = ""
    """Words that one of its violations must have: it is to be caught for what it is, not because it did not start."""
    is_in_suite: bool = True
    """Whether it runs with the short form too."""
    is_short: bool = False
    """Whether it plays the short form for the table too: what is found soon need not be dear."""


@dataclass(frozen=True, slots=True)
class Row:
    """A fault that the mesh must survive."""

    id: str
    fault: str
    """What is injected, and what is promised then: one sentence for the table."""
    run: Run
    needs: Sequence[str] = ()
    """Names of `tests.chaos.machine.NEEDS`."""
    control: Control | None = None
    control_of: str = ""
    """The row whose control stands for this one as well: the same judge looks at the same kind of run there."""
    runs: int = 1
    """How often it runs for the table, each time with a seed of its own."""
    is_in_suite: bool = True
    """Whether its short form runs in `make test`: at most about ten seconds; else only in `make chaos`."""
    timeout_s: float = 900.0
