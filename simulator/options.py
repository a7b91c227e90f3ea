"""What the commands that replicate have in common. Light to import: it is read for `mesh-sim --help`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number


@Parameter(name="*")
@dataclass(slots=True, frozen=True)
class Options:
    """`seed`, `replications` and `precision` None: as the scenario says."""

    seed: Annotated[int | None, Parameter(validator=Number(gte=0))] = None
    """The same seed gives the same answer; else the scenario's."""
    replications: Annotated[int | None, Parameter(validator=Number(gte=1, lte=100_000))] = None
    """So many; else as the scenario says, or until the objectives are precise enough."""
    precision: Annotated[float | None, Parameter(validator=Number(gt=0, lt=1))] = None
    """Share of a figure, or of its bound, that half of its interval may be wide."""
    backend: Literal["serial", "loky"] = "loky"
    """Where replications run: in this process, or one on each core."""
    processes: Annotated[int, Parameter(validator=Number(gte=0, lte=1024))] = 0
    """Worker processes; 0: one for each core."""
    cache: Path | None = None
    """Folder of results that need not be computed again; else `mesh-sim` in your cache folder."""
    no_cache: Annotated[bool, Parameter(negative="")] = False
    """Compute everything, and keep nothing."""
