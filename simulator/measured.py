"""What the figures of a run are of: their units, and whether there is anything behind them.

The p99 of no job at all is no number, least of all 0.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

OUTCOMES: Final = ("succeeded", "failed", "cancelled", "dead")
TIMES: Final = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
_UNITS: Final = {"throughput": "/s", "rate": "/s", "drain": "s", "seconds": "s"}
_SHARES: Final = frozenset({"share", "utilisation", "availability"})
_TIMES: Final = frozenset({"latency", "wait", "detect", "decide", "reassign", "restart", "reconnect"})


def unit_of(figure: str) -> str:
    """The unit that a figure is shown in, by its name."""
    of, _, what = figure.rpartition(".")
    if what in _SHARES:
        return "%"
    is_time = of.rpartition(".")[2] in _TIMES and what in TIMES
    return "s" if is_time else _UNITS.get(what, "")


def is_measured(name: str, figures: Mapping[str, float]) -> bool:
    """Whether anything was seen behind a figure of a run, by the counts beside it; True where none says otherwise."""
    of, _, what = name.rpartition(".")
    if f"{of}.count" in figures:
        return figures[f"{of}.count"] > 0 or what not in TIMES
    work, _, kind = of.rpartition(".")
    if f"{work}.arrived" not in figures:
        return True
    return _jobs_behind(kind, what, lambda state: figures.get(f"{work}.{state}", 0.0)) > 0


def measured(name: str, runs: Sequence[Mapping[str, float]]) -> list[float]:
    """The values of a figure in those runs that measured it."""
    return [figures[name] for figures in runs if is_measured(name, figures)]


def _jobs_behind(kind: str, what: str, count: Callable[[str], float]) -> float:
    """How many jobs of a work its figure `kind.what` is about; those that were not over when the run was count."""
    arrived = count("arrived")
    if kind == "latency":
        return arrived - count("refused") - count("failed") - count("cancelled") - count("dead")
    if kind == "attempts" or (kind == "wait" and what == "share"):
        return sum(map(count, OUTCOMES))
    if kind == "wait":
        return arrived - count("refused") - count("expired")
    return arrived
