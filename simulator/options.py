"""What the commands that replicate have in common. Light to import: it is read for `mesh-sim --help`."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number


@Parameter(name="*")
@dataclass(slots=True, frozen=True)
class Files:
    """Where the answer goes besides standard output."""

    html: Path | None = None
    """One page with every picture, to open or to send: it needs no network."""
    csv: Path | None = None
    """A row for each figure."""
    parquet: Path | None = None
    """The same rows, for data frames."""


@Parameter(name="*")
@dataclass(slots=True, frozen=True)
class Metrics:
    """The run as a Prometheus would have seen it."""

    openmetrics: Path | None = None
    """OpenMetrics text with the broker's metric names, for `promtool tsdb create-blocks-from openmetrics`."""
    every_replication: Annotated[bool, Parameter(negative="")] = False
    """All replications instead of the first, each under a label `replication`: not for the broker's dashboards."""
    begin: datetime = datetime(2001, 1, 1, tzinfo=UTC)
    """When the run began, such as 2026-11-21T12:00:00Z; Monday, 1 January 2001 without it."""


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
    backend: Literal["serial", "loky", "dask", "ray"] = "loky"
    """Where replications run: in this process, one on each core, or on a cluster of Dask or Ray."""
    workers: Annotated[int, Parameter(name=["--workers", "--jobs"], validator=Number(gte=0, lte=1024))] = 0
    """Worker processes; 0: one for each core."""
    scheduler: str = ""
    """Address of a cluster that is there, such as tcp://host:8786 (Dask) or ray://host:10001; else one is started."""
    cache: Path | None = None
    """Folder of results that need not be computed again; else `mesh-sim` in your cache folder."""
    no_cache: Annotated[bool, Parameter(negative="")] = False
    """Compute everything, and keep nothing."""


@Parameter(name="*")
@dataclass(slots=True, frozen=True)
class Answers:
    """What `mesh-sim init` is told. Empty or 0: as the scenario of the library has it. Quantities are as in a file."""

    question: Annotated[str, Parameter(name=["--question", "-q"])] = ""
    """The name of a scenario of the library, such as `zone-loss-at-peak`."""
    rate: str = ""
    """How many jobs arrive, such as `40/s`."""
    duration: str = ""
    """How long one takes on average, such as `400 ms`."""
    agents: Annotated[int, Parameter(validator=Number(gte=0, lte=100_000))] = 0
    """How many agents."""
    slots: Annotated[int, Parameter(validator=Number(gte=0, lte=1_000_000))] = 0
    """How many jobs each runs at a time."""
    zones: Annotated[int, Parameter(validator=Number(gte=0, lte=26))] = 0
    """In how many zones they stand."""
    p99: str = ""
    """Of a hundred jobs, 99 are to be done within this, such as `2 s`."""
