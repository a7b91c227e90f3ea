"""What is kept of a replication beside its figures: phases, distributions and courses, for tables and pictures."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from simulator.histogram import Histogram, Sparse
from simulator.recorder import Phase
from simulator.windows import Shares


@runtime_checkable
class Detailed(Protocol):
    """What a run of the real world has beside its figures (`simulator.recorder.Run`)."""

    @property
    def samples(self) -> Mapping[str, Histogram]: ...
    @property
    def phases(self) -> tuple[Phase, ...]: ...
    @property
    def timeline(self) -> Mapping[str, list[float]]: ...
    @property
    def tallies(self) -> Mapping[str, list[list[float]]]: ...
    @property
    def windows(self) -> Mapping[str, list[float | None]]: ...
    @property
    def shares(self) -> Mapping[str, Shares]: ...


@dataclass(slots=True, frozen=True)
class Detail:
    """One replication in depth. `samples` are distributions of times, in buckets of 1 %."""

    phases: list[Phase] = field(default_factory=list)
    timeline: dict[str, list[float]] = field(default_factory=dict)
    tallies: dict[str, list[list[float]]] = field(default_factory=dict)
    windows: dict[str, list[float | None]] = field(default_factory=dict)
    shares: dict[str, Shares] = field(default_factory=dict)
    samples: dict[str, Sparse] = field(default_factory=dict)


def detail_of(run: object) -> Detail | None:
    """The depth of a run; None of a world that has none."""
    if not isinstance(run, Detailed):
        return None
    samples = {name: seen.as_sparse() for name, seen in run.samples.items() if seen.count}
    return Detail(list(run.phases), dict(run.timeline), dict(run.tallies), dict(run.windows), dict(run.shares), samples)
