"""What the figures of a run are of: their units, and whether there is anything behind them.

The p99 of no job at all is no number, least of all 0.
"""

from collections.abc import Mapping, Sequence
from typing import Final

OUTCOMES: Final = ("succeeded", "failed", "cancelled", "dead")
TIMES: Final = ("mean", "p50", "p90", "p95", "p99", "p999", "max")
_UNITS: Final = {"throughput": "/s", "rate": "/s", "drain": "s", "seconds": "s", "up": "s", "down": "s"}
_SHARES: Final = frozenset({"share", "utilisation", "availability"})
_OF_NONE: Final = frozenset({"reconnect.peak"})
"""What is 0, and not unknown, where nothing was seen."""
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
    work, _, kind = of.rpartition(".")
    if what == "count" or name in _OF_NONE:
        return True
    if f"{work}.arrived" in figures and (what == "share" or kind == "attempts"):
        behind = OUTCOMES if kind in ("attempts", "wait") else ("arrived",)
        return any(figures.get(f"{work}.{count}") for count in behind)
    return figures.get(f"{of}.count", 1) > 0


def measured(name: str, runs: Sequence[Mapping[str, float]]) -> list[float]:
    """The values of a figure in those runs that measured it."""
    return [figures[name] for figures in runs if is_measured(name, figures)]
