"""What `mesh-sim run` prints of one run."""

from collections.abc import Iterator
from math import isfinite
from typing import Any, Final

from ruamel.yaml import YAML

from simulator.recorder import Run
from simulator.scenario import ChangeError, Scenario
from simulator.units import duration_text

_TIMES: Final = (".mean", ".p50", ".p90", ".p95", ".p99", ".p999", ".max", ".drain", ".up", ".down")
_COUNTS: Final = ("backlog.mean", "running.mean", "up.mean", "agents.mean", "attempts.mean", "system.mean")


def change_of(text: str) -> tuple[str, object]:
    """`key.path=value`, the value as YAML reads it. Raises ChangeError."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ChangeError(f"`{text}` is not `key.path=value`, such as `groups.erp.agents.count=20`")
    return path, YAML(typ="safe", pure=True).load(value)


def document(scenario: Scenario, seed: int, replication: int, run: Run) -> dict[str, Any]:
    """One run as JSON; what is infinite (a backlog that never drained) is null."""
    return {
        "scenario": scenario.resolved(),
        "seed": seed,
        "replication": replication,
        "digest": run.digest,
        "jobs": run.jobs,
        "simulated_s": run.simulated_s,
        "growth_per_s": run.growth_per_s,
        "figures": _finite(run.figures),
        "phases": [
            {"name": phase.name, "from_s": phase.from_s, "to_s": phase.to_s, "figures": _finite(phase.figures)}
            for phase in run.phases
        ],
        "timeline": run.timeline,
    }


def _finite(figures: dict[str, float]) -> dict[str, float | None]:
    return {name: value if isfinite(value) else None for name, value in figures.items()}


def table(scenario: Scenario, run: Run) -> Iterator[str]:
    """One run as text."""
    yield f"{scenario.name}: {run.jobs} jobs in {duration_text(run.simulated_s)}, digest {run.digest}"
    for name, value in run.figures.items():
        yield f"  {name:32} {_shown(name, value)}"
    for phase in run.phases:
        yield f"{phase.name}, from {duration_text(phase.from_s)} to {duration_text(phase.to_s)}"
        for work in scenario.work:
            p50, p99 = (_shown(".p50", phase.figures[f"{work}.latency.{one}"]) for one in ("p50", "p99"))
            yield f"  {work:32} {phase.figures[f'{work}.arrived']:.0f} jobs, latency p50 {p50}, p99 {p99}"


def _shown(name: str, value: float) -> str:
    if name.endswith(_TIMES) and not name.endswith(_COUNTS):
        return f"{value:.4g} s" if value >= 1 else f"{value * 1e3:.4g} ms"
    return f"{value:.6g}"
