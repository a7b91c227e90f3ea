"""An answer as one JSON object: what `--json` prints, and what reports are made of. Nothing in it depends on the hour.

What is infinite (a backlog that never drained) is null. Courses are rounded to six digits, figures are not.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from typing import Any, Final

from simulator.answer import Answer
from simulator.assumptions import assumptions_of, theory_of
from simulator.detail import Detail
from simulator.histogram import LEAST_S, WIDTH, Histogram
from simulator.incidents import Scripted, label_of
from simulator.scenario import Scenario
from simulator.statistics import Interval

COURSES: Final = ("backlog", "system", "running", "up", "arrived", "finished")
POINTS_MAX: Final = 150
"""Points of a distribution; a curve needs no more."""


def document(answer: Answer) -> dict[str, Any]:
    """Everything that is known."""
    details = answer.details
    return {
        "kind": "run",
        "verdict": answer.verdict,
        "exit_code": answer.code,
        "digest": answer.digest,
        "seed": answer.series.question.seed,
        "replications": len(answer.series.outcomes),
        "partial": answer.series.partial,
        "unstable": answer.instability or None,
        "warm_up_s": answer.warm_up.seconds if answer.warm_up else None,
        "jobs": answer.series.jobs,
        "lost": answer.lost,
        "simulated_s": sum(outcome.simulated_s for outcome in answer.series.outcomes),
        "objectives": [finite(judgement.as_json()) for judgement in answer.judgements],
        "figures": intervals_json(answer.figures),
        "phases": [
            {"name": name, "from_s": from_s, "to_s": to_s, "figures": intervals_json(seen)}
            for name, from_s, to_s, seen in answer.phases
        ],
        "faults": list(_faults(answer.scenario)),
        "runs": [
            {"digest": outcome.digest, "jobs": outcome.jobs, "growth_per_s": outcome.growth_per_s}
            | {"figures": {} if answer.instability else finite(outcome.figures)}
            for outcome in answer.series.outcomes
        ],
        "timeline": _timeline(details),
        "windows": _windows(details),
        "shares": {name: _shares(seen) for name, seen in details[0].shares.items()} if details else {},
        "distributions": _distributions(details),
        "theory": [finite(one.as_json()) for one in theory_of(answer)],
        "assumptions": list(assumptions_of(answer)),
        "scenario": answer.scenario.resolved(),
    }


def finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The same with null for what is infinite or no number."""
    return {
        name: None if isinstance(value, float) and not isfinite(value) else value for name, value in figures.items()
    }


def interval_json(seen: Interval) -> dict[str, Any]:
    """A figure: mean, half the width of its interval (null for one replication), replications."""
    return finite({"value": seen.mean, "half_width": seen.half_width, "n": seen.n})


def intervals_json(figures: Mapping[str, Interval]) -> dict[str, Any]:
    """Figures by name."""
    return {name: interval_json(seen) for name, seen in figures.items()}


def _faults(scenario: Scenario) -> Iterator[dict[str, Any]]:
    for fault in scenario.faults:
        if isinstance(fault, Scripted):
            until_s = min(fault.at + fault.lasts_s, scenario.end_s)
            yield {"name": label_of(fault), "from_s": fault.at, "to_s": until_s}


def _timeline(details: Sequence[Detail]) -> dict[str, Any]:
    """Each course as its mean over the replications, with the least and the most."""
    if not details:
        return {}
    groups = [name for name in details[0].timeline if name.endswith((".waiting", ".slots", ".running"))]
    courses: dict[str, Any] = {"t": [_short(at_s) for at_s in details[0].timeline["t"]]}
    for name in (*COURSES, *groups):
        rows = list(zip(*(detail.timeline[name] for detail in details), strict=True))
        courses[name] = {
            "mean": [_short(sum(row) / len(row)) for row in rows],
            "least": [min(row) for row in rows],
            "most": [max(row) for row in rows],
        }
    return courses


def _windows(details: Sequence[Detail]) -> dict[str, Any]:
    """Quantiles over time, averaged over the replications that have one there."""
    if not details:
        return {}
    return {
        name: [_mean([value for value in row if value is not None]) for row in zip(*rows, strict=True)]
        for name in details[0].windows
        if (rows := [detail.windows[name] for detail in details])
    }


def _mean(values: Sequence[float]) -> float | None:
    return _short(sum(values) / len(values)) if values else None


def _shares(seen: Any) -> dict[str, Any]:
    return {
        "agents": seen.agents,
        "from_s": seen.from_s,
        "width_s": seen.width_s,
        "counts": seen.counts,
        "up": [[int(one) for one in row] for row in seen.up],
    }


def _distributions(details: Sequence[Detail]) -> dict[str, Any]:
    """For each distribution of times the share of values above each of some times, over all replications."""
    merged: dict[str, Histogram] = {}
    for detail in details:
        for name, sparse in detail.samples.items():
            whole = sparse.whole()
            merged[name] = merged[name].merge([whole]) if name in merged else whole
    return {name: _above(seen) for name, seen in merged.items() if seen.count}


def _above(seen: Histogram) -> dict[str, Any]:
    full = [number for number, count in enumerate(seen.counts.tolist()) if count]
    step = -(-len(full) // POINTS_MAX)
    points, above = [], seen.count
    for place, number in enumerate(full):
        above -= int(seen.counts[number])
        # The tail is where the answer is: the last buckets are all drawn.
        if place % step == 0 or len(full) - place <= POINTS_MAX // 3:
            points.append([_short(LEAST_S * (1 + WIDTH) ** number), _short(above / seen.count)])
    return {"count": seen.count, "mean": seen.mean, "points": points}


def _short(value: float) -> float:
    return float(f"{value:.6g}")
