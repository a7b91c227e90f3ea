"""Profiles on disk: one part is measured, the other stays as it was."""

import tempfile
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from simulator.calibrate import history, live
from simulator.emulate.play import Tell
from simulator.emulate.stage import run
from simulator.profile import Live, Profile, WorkHistory, read, text_of
from simulator.streams import mean_s


@dataclass(slots=True, frozen=True)
class Said:
    """What was found, for programs and for people."""

    document: dict[str, Any]
    lines: list[str]


def add_live(file: Path, rate: float, run_s: float, seed: int, tell: Tell) -> Said:
    """Measure on this machine. Raises ProfileError, ProcessError, MeshClientError, EmulationError, OSError."""
    profile = _known(file)
    with tempfile.TemporaryDirectory(prefix="mesh-calibrate-") as folder:
        found = run(live.calibrate(rate, run_s, seed, Path(folder) / "mesh", tell))
    _write(file, profile.model_copy(update={"live": found}))
    figures = figures_of(found)
    return Said(
        {"made_at": found.made_at, "jobs": found.jobs, "rate": found.rate, "seconds": figures},
        [f"{name:20} {value * 1e3:10.3f} ms" for name, value in figures.items()],
    )


def figures_of(found: Live) -> dict[str, float]:
    """The profile in a few numbers, in seconds; of laws their means."""
    costs = {f"costs.{name}": value for name, value in found.costs.model_dump(mode="python").items()}
    laws = {"network": found.network, "submit": found.submit, "overhead": found.overhead}
    return {
        **{name: getattr(found.costs, name.partition(".")[2]) for name in costs},
        "commit.mean": mean_s(found.commits.time),
        "commit.p99": _p99(found.commits.time.empirical),
        **{f"{name}.mean": mean_s(law) for name, law in laws.items()},
        "broker-start": found.broker_start,
        "agent-start": found.agent_start,
    }


def _p99(law: Any) -> float:
    quantiles = law.quantiles
    return float(quantiles[round(0.99 * (len(quantiles) - 1))])


def add_history(file: Path, source: str, back: timedelta, tell: Tell) -> Said:
    """Read what a broker remembers. Raises ProfileError, MeshClientError, OSError."""
    profile = _known(file)
    found = history.read_history(source, back, tell)
    _write(file, profile.model_copy(update={"work": {**profile.work, **found}}))
    return Said(
        {"work": {name: _summary(work) for name, work in found.items()}},
        [_line(name, work) for name, work in found.items()],
    )


def _summary(work: WorkHistory) -> dict[str, float]:
    return {
        "jobs": work.jobs,
        "weeks": round(work.weeks, 4),
        "failure": round(work.failure, 6),
        "median_s": work.quantiles[len(work.quantiles) // 2],
        "per_minute_peak": round(max(work.per_minute), 3),
    }


def _line(name: str, work: WorkHistory) -> str:
    median_s = work.quantiles[len(work.quantiles) // 2]
    return f"{name:24} {work.jobs} jobs, median {median_s * 1e3:.4g} ms, {work.failure:.2%} of attempts failed"


def _known(file: Path) -> Profile:
    return read(file) if file.exists() else Profile()


def _write(file: Path, profile: Profile) -> None:
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(text_of(profile), encoding="utf-8")
    beside.replace(file)
