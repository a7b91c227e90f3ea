"""The twin error: what a real run came to, beside what the simulation says that was calibrated on another run.

Both sides are read by the same code from the same thing: when each job was due, and when the broker worked what became
of it.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

from simulator.courses import figures_of
from simulator.emulate.machine import BUSY
from simulator.emulate.play import Played
from simulator.emulate.stage import Loss
from simulator.scenario import Scenario

BARS: Final = {"throughput": 0.01, "latency.mean": 0.05, "latency.p95": 0.10, "latency.p99": 0.15}
"""How far the simulation of a class of work may be off, as a share of what was real."""
FAILOVER_BAR: Final = 0.10
FAILOVER_BAR_S: Final = 0.2
"""Either is enough for a fail-over."""
FAILOVER: Final = ("failover.detect", "failover.reassign", "failover.restart")

Side = tuple[float, int]
"""What a figure is on one side, and how many jobs or attempts that rests on."""


@dataclass(slots=True, frozen=True)
class Figure:
    """One figure of both sides. `error` is a share of the real one, None when that is 0; `bar` None: no bar."""

    real: float
    real_n: int
    simulated: float
    bar: float | None
    met: bool | None

    @property
    def error(self) -> float | None:
        """How far the simulation is off."""
        return (self.simulated - self.real) / self.real if self.real else None

    def as_json(self) -> dict[str, Any]:
        """For a document."""
        error = self.error
        return {
            "real": round(self.real, 6),
            "real_n": self.real_n,
            "simulated": round(self.simulated, 6),
            "error": None if error is None else round(error, 5),
            "bar": self.bar,
            "met": self.met,
        }


@dataclass(slots=True, frozen=True)
class Twin:
    """Both sides of one scenario, and which runs were looked at. A figure without anything behind it is 0."""

    figures: dict[str, Figure]
    calibrated_on: str
    evaluated_on: str
    is_crowded: bool = False
    """Whether other programs left the real run too little of the machine."""

    @property
    def is_met(self) -> bool:
        """Whether every figure with a bar is within it, and there is one."""
        verdicts = {figure.met for figure in self.figures.values()}
        return True in verdicts and False not in verdicts

    def as_json(self) -> dict[str, Any]:
        """What `mesh-sim emulate --json` prints."""
        return {
            "figures": {name: figure.as_json() for name, figure in self.figures.items()},
            "calibrated_on": self.calibrated_on,
            "evaluated_on": self.evaluated_on,
            "met": self.is_met,
            "crowded": self.is_crowded,
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{'figure':28} {'real':>12} {'simulated':>12} {'error':>8} {'bar':>7}  (n)"
        for name, figure in self.figures.items():
            error = "-" if figure.error is None else f"{figure.error:+.1%}"
            bar = "" if figure.bar is None else f"{figure.bar:.0%}"
            verdict = {True: "met", False: "MISSED", None: ""}[figure.met]
            yield (
                f"{name:28} {figure.real:12.5g} {figure.simulated:12.5g} {error:>8} {bar:>7}  "
                f"({figure.real_n}) {verdict}"
            )
        yield f"calibrated on {self.calibrated_on}"
        yield f"evaluated on {self.evaluated_on}"
        if self.is_crowded:
            yield "the machine had no room: what was measured is also the wait for a processor; repeat it when idle"


def compare(scenario: Scenario, seed: int, real: Played, simulated: Played, calibrated_on: str) -> Twin:
    """Hold the simulated run against the real one."""
    begin_s = scenario.horizon.settle
    figures: dict[str, Figure] = {}
    for work in scenario.work:
        ours, theirs = (figures_of(side.jobs, work, begin_s, scenario.end_s) for side in (real, simulated))
        for name, (value, count) in ours.items():
            figures[f"{work}.{name}"] = _judged((value, count), theirs[name], BARS.get(name))
    seen = _failovers(simulated)
    for name, values in _failovers(real).items():
        if values or seen[name]:
            for figure, of in (("mean", np.mean), ("max", np.max)):
                sides = [(float(of(side)) if side else 0.0, len(side)) for side in (values, seen[name])]
                figures[f"{name}.{figure}"] = _failover(*sides)
    at = datetime.fromtimestamp(real.began_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    late_ms = 1e3 * float(np.quantile(real.late_s, 0.99)) if real.late_s else 0.0
    told = (
        f"{len(real.jobs)} jobs of `{scenario.name}` with seed {seed}, {at}; 99 % left within {late_ms:.1f} ms, "
        f"processors {real.busy:.0%} busy"
    )
    return Twin(figures, calibrated_on, told, real.busy > BUSY)


def _judged(real: Side, simulated: Side, bar: float | None) -> Figure:
    if not real[1] and not simulated[1]:
        bar = None  # two nothings are alike, and say nothing of the simulation
    return _figure(real, simulated, bar, (bar or 0.0) * real[0])


def _failover(real: Side, simulated: Side) -> Figure:
    return _figure(real, simulated, FAILOVER_BAR, max(FAILOVER_BAR * real[0], FAILOVER_BAR_S))


def _figure(real: Side, simulated: Side, bar: float | None, most: float) -> Figure:
    """The figure of both sides, which may differ by `most`. What only one of them has is never within a bar."""
    is_within = bool(real[1] and simulated[1]) and abs(simulated[0] - real[0]) <= most
    return Figure(*real, simulated[0], bar, None if bar is None else is_within)


def _failovers(played: Played) -> dict[str, list[float]]:
    """How long after the loss of its agent each job that ran there was taken back, placed again, and running again.

    What the agent had not begun goes elsewhere at once, and is no fail-over.
    """
    found: dict[str, list[float]] = {name: [] for name in FAILOVER}
    for job in played.jobs:
        for cut, again in itertools.pairwise(job.attempts):
            loss = _loss_of(cut.agent, cut.ended_s + played.began_s, played.losses)
            if loss is None or cut.started_s < 0:
                continue
            for name, at_s in zip(FAILOVER, (cut.ended_s, again.assigned_s, again.started_s), strict=True):
                if at_s >= 0:
                    found[name].append(at_s + played.began_s - loss.lost_s)
    return found


def _loss_of(agent: str, ended_s: float, losses: Sequence[Loss]) -> Loss | None:
    return next((loss for loss in losses if loss.agent == agent and loss.lost_s <= ended_s <= loss.back_s), None)
