"""The truth table: cases whose answer mathematics knows, through the real dispatcher, figure by figure.

A figure passes when its whole interval lies within the bound around the truth and half its width is at most a third of
the bound, so that neither a wrong simulation nor an unprecise one passes. A case that cannot be expressed is listed as
skipped with the reason. The table itself is `simulator.truth_table`.
"""

import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf, isfinite
from typing import Final, NamedTuple

import numpy as np

from simulator import controls
from simulator.backends import Backend, Serial
from simulator.experiments import Laboratory, Outcome, Plan, Question, Run, Series, Simulate
from simulator.fault_trials import KINDS as FAULT_KINDS
from simulator.histogram import Histogram
from simulator.neighbours import swing_of
from simulator.objectives import parse
from simulator.queue_controls import ticks_of
from simulator.queue_trials import KINDS as QUEUE_KINDS
from simulator.scenario import Scenario
from simulator.solve import Evaluation, sizes_of, solve
from simulator.statistics import Interval
from simulator.trial import GROUP, STEPS, Estimate, Evidence, Mean, NotExpressedError, Sizing, Tree, Trial, above
from simulator.truth_table import Bound, Case

LEVEL: Final = 0.90
THIRD: Final = 3.0
AIM: Final = 3.3
"""What replications are made for is narrower than a third, so that chance seldom tips a figure that is right."""
QUICK_BOUND: Final = 0.05
"""In the quick run a tighter bound may be taken as this, where a third of it would need more than `QUICK_JOBS`."""
QUICK_JOBS: Final = 300_000
Bend = Callable[[Tree], Tree]
"""Changes a scenario before it is run: how a test breaks the simulation to see that the table notices."""


def trials_of(case: Case) -> Sequence[Trial | Sizing]:
    """What to run for a case; several where its figures come from different scenarios.

    Raises:
        NotExpressedError: its set-up says nothing that can be run, with what is missing.
    """
    if case.scenario is not None:
        return [Trial(case.scenario, {name: Mean(figure) for name, figure in case.figures.items()})]
    for pattern, make in (*FAULT_KINDS, *QUEUE_KINDS):
        if re.search(pattern, f"{case.name}; {case.setup}"):
            made = make(case.id, f"{case.name}; {case.setup}")
            return [made] if isinstance(made, Trial | Sizing) else made
    raise NotExpressedError(f"no scenario is known for `{case.name}`: give the case a `scenario` and `figures`")


@dataclass(slots=True, frozen=True)
class Row:
    """One figure of one case: the truth beside the simulation."""

    id: str
    figure: str
    truth: float
    simulated: float
    half_width: float
    bound: float
    passed: bool
    jobs: int
    fidelity: str
    policy: str
    seconds: float
    relaxed: bool = False
    level: float = LEVEL

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "id": self.id,
            "figure": self.figure,
            "truth": self.truth,
            "simulated": self.simulated,
            "half_width": self.half_width if isfinite(self.half_width) else None,
            "level": self.level,
            "bound": self.bound,
            "relaxed": self.relaxed,
            "pass": self.passed,
            "jobs": self.jobs,
            "fidelity": self.fidelity,
            "policy": self.policy,
            "seconds": round(self.seconds, 3),
        }


@dataclass(slots=True)
class Report:
    """All rows, and the cases that were not run with the reason."""

    seed: int
    rows: list[Row] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    wall_s: float = 0.0
    partial: bool = False
    """Somebody interrupted it: not all cases are there."""

    @property
    def failed(self) -> list[str]:
        """Cases with a figure that does not pass."""
        return sorted({row.id for row in self.rows if not row.passed})

    @property
    def passed(self) -> list[str]:
        """Cases all of whose figures pass."""
        return sorted({row.id for row in self.rows} - set(self.failed))

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "seed": self.seed,
            "cases": [row.as_json() for row in self.rows],
            "passed": len(self.passed),
            "failed": len(self.failed),
            "skipped": [{"id": id_, "reason": reason} for id_, reason in self.skipped.items()],
            "partial": self.partial,
            "wall_s": round(self.wall_s, 3),
        }


class _Part(NamedTuple):
    """One trial of a case, with all that it needs to be judged in another process."""

    simulate: Simulate
    case: Case
    number: int
    seed: int
    quick: bool
    bend: Bend


def verify(
    cases: Sequence[Case],
    *,
    seed: int,
    quick: bool = False,
    bend: Bend = lambda tree: tree,
    simulate: Simulate | None = None,
    backend: Backend | None = None,
    progress: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Run the cases and judge every figure that has a bound. Rows are heard as they come, and reported by case.

    Each trial is one task of the backend, so that no core waits for another between rounds; one that is alone is spread
    over it. Ctrl-C gives what was finished, and says that it is partial.
    """
    report = Report(seed)
    started = time.perf_counter()
    world, backend = simulate or simulate_with_controls, backend or Serial()
    parts: list[_Part] = []
    for case in cases:
        try:
            trials = _trials_that_measure(case)
        except NotExpressedError as error:
            report.skipped[case.id] = error.text
            continue
        parts += [_Part(world, case, number, seed, quick, bend) for number in range(len(trials))]
    try:
        for rows in _judged(parts, backend):
            report.rows += rows
            for row in rows:
                progress(row)
    except KeyboardInterrupt:
        report.partial = True
    order = {case.id: place for place, case in enumerate(cases)}
    report.rows.sort(key=lambda row: order[row.id])
    report.wall_s = time.perf_counter() - started
    return report


def _trials_that_measure(case: Case) -> Sequence[Trial | Sizing]:
    """The trials of a case. Raises NotExpressedError for a figure that none of them measures."""
    trials = trials_of(case)
    unknown = [name for name, _, _ in case.judged() if not any(name in trial.figures for trial in trials)]
    if unknown:
        raise NotExpressedError(f"not measured: {', '.join(unknown)}")
    return trials


def _judged(parts: Sequence[_Part], backend: Backend) -> Iterator[list[Row]]:
    if len(parts) == 1:
        yield _rows_of(parts[0], Laboratory(parts[0].simulate, backend))
    else:
        # The last cases of the table take longest: a long one that begins last would run alone.
        yield from backend.play(_alone, parts[::-1])


def _alone(part: _Part) -> list[Row]:
    return _rows_of(part, Laboratory(part.simulate))


def _rows_of(part: _Part, laboratory: Laboratory) -> list[Row]:
    trial = trials_of(part.case)[part.number]
    if isinstance(trial, Sizing):
        return _sizing_rows(laboratory, part.case, trial, part.seed, part.bend)
    return _trial_rows(laboratory, part, trial)


def _trial_rows(laboratory: Laboratory, part: _Part, trial: Trial) -> list[Row]:
    started = time.perf_counter()
    scenario = Scenario.model_validate(part.bend(trial.scenario))
    expected = controls.expected(scenario) if trial.uses_controls else {}
    targets = tuple(
        Target(name, truth, bound, trial.figures[name])
        for name, truth, bound in part.case.judged()
        if name in trial.figures
    )
    plan = TruthPlan(
        stops_unstable=False,
        targets=targets,
        expected=expected,
        variances=controls.variances(scenario) if trial.uses_controls else {},
        trial=trial,
        quick=part.quick,
    )
    series = laboratory.replicate(Question(scenario, part.seed), plan)
    if series.partial:
        raise KeyboardInterrupt
    strays = controls.stray(expected, {name: series.values(name) for name in expected})
    seconds = time.perf_counter() - started
    return [_row(part.case, target, series, plan, scenario, seconds, strays) for target in targets]


@dataclass(slots=True, frozen=True)
class Target:
    """A figure with its truth, its bound, and how it is read."""

    name: str
    truth: float
    bound: Bound
    estimate: Estimate

    def allowed(self, seen: Interval, jobs: int, *, quick: bool) -> tuple[float, bool]:
        """The bound as an amount, and whether the quick run has widened it."""
        asked = self.bound.of(self.truth)
        wider = QUICK_BOUND * abs(self.truth)
        if quick and self.bound.rel is not None and asked < wider and seen.half_width > asked / THIRD:
            needed = jobs * (seen.half_width / (asked / THIRD)) ** 2
            if needed > QUICK_JOBS:
                return wider, True
        return asked, False


@dataclass(slots=True, frozen=True)
class TruthPlan(Plan):
    """Replications until half the width of every interval is a third of its bound."""

    targets: tuple[Target, ...] = ()
    expected: Mapping[str, float] = field(default_factory=dict)
    variances: Mapping[str, float] = field(default_factory=dict)
    trial: Trial = field(default_factory=lambda: Trial({}, {}))
    quick: bool = False

    def seen(self, target: Target, outcomes: Sequence[Outcome]) -> Interval:
        """The interval of a target."""
        try:
            return target.estimate(Evidence(outcomes, self.expected, LEVEL, self.variances))
        except KeyError as error:
            raise NotExpressedError(
                f"`{target.name}` is read off a figure that the world does not give: {error}"
            ) from error

    @property
    def at_least(self) -> int:
        """Replications that always run: fewer in the quick run."""
        return min(self.trial.at_least, self.trial.at_first) if self.quick else self.trial.at_least

    def is_enough(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether every target is precise, or there is no hope."""
        n = len(outcomes)
        if n < self.at_least:
            return False
        return n >= self.trial.at_most or self._missing(outcomes) <= 1.0

    def _missing(self, outcomes: Sequence[Outcome]) -> float:
        """How many times as many replications are needed, by the widest interval."""
        jobs = sum(outcome.jobs for outcome in outcomes)
        worst = 0.0
        for target in self.targets:
            seen = self.seen(target, outcomes)
            bound, _ = target.allowed(seen, jobs, quick=self.quick)
            wide = (THIRD if self.quick else AIM) * seen.half_width
            if abs(seen.mean - target.truth) > bound + wide:
                return 0.0  # beyond hope: no number of replications brings it back
            worst = max(worst, 0.0 if wide <= bound else inf if bound == 0 else (wide / bound) ** 2)
        return worst

    def next_round(self, done: int, at_once: int) -> int:
        """All that must be at first, then enough to keep every core busy."""
        if done < self.at_least:
            return self.at_least - done
        return min(max(at_once, done // 8), self.trial.at_most - done)


def _row(
    case: Case, target: Target, series: Series, plan: TruthPlan, scenario: Scenario, seconds: float, strays: list[str]
) -> Row:
    seen = plan.seen(target, series.outcomes)
    bound, relaxed = target.allowed(seen, series.jobs, quick=plan.quick)
    inside = target.truth - bound <= seen.low and seen.high <= target.truth + bound
    return Row(
        case.id,
        target.name,
        target.truth,
        seen.mean,
        seen.half_width,
        bound,
        inside and THIRD * seen.half_width <= bound and not strays,
        series.jobs,
        scenario.broker.fidelity,
        next(iter(scenario.groups.values())).policy,
        seconds,
        relaxed,
    )


def _sizing_rows(laboratory: Laboratory, case: Case, sizing: Sizing, seed: int, bend: Bend) -> list[Row]:
    scenario = Scenario.model_validate(bend(sizing.scenario))
    policy = next(iter(scenario.groups.values())).policy
    known: dict[int, Evaluation] = {}
    found: dict[bool, tuple[int, int, float]] = {}
    for equal in sorted({equal for equal, _ in sizing.figures.values()}):
        started = time.perf_counter()
        sizes = sizes_of(scenario, GROUP, [parse(text) for text in scenario.objectives], equal=equal)
        solution = solve(
            laboratory, scenario, sizes, [parse(text) for text in scenario.objectives], seed=seed, known=known
        )
        found[equal] = solution.agents, solution.jobs, time.perf_counter() - started
    rows = []
    for name, truth, bound in case.judged():
        equal, what = sizing.figures[name]
        agents, jobs, seconds = found[equal]
        value = agents if what == "agents" else agents - ceil(agents / sizing.zones)
        allowed = bound.of(truth)
        passed = abs(value - truth) <= allowed
        rows.append(
            Row(case.id, name, truth, value, 0.0, allowed, passed, jobs, scenario.broker.fidelity, policy, seconds)
        )
    return rows


@dataclass(slots=True, frozen=True)
class ControlledRun:
    """A run whose figures hold the controls of its work as well."""

    digest: str
    figures: dict[str, float]
    jobs: int
    simulated_s: float
    growth_per_s: float


def simulate_with_controls(scenario: Scenario, /, *, seed: int, replication: int, changes: Mapping[str, object]) -> Run:
    """`simulator.world.simulate`, and beside its figures what the work of the replication was."""
    from simulator.world import simulate

    changed = scenario.changed(changes)
    run = simulate(changed, seed=seed, replication=replication)
    extra = controls.seen(changed, seed, replication) | _day_of(changed, run.timeline) | _tails_of(changed, run.samples)
    return ControlledRun(run.digest, {**run.figures, **extra}, run.jobs, run.simulated_s, run.growth_per_s)


def _day_of(scenario: Scenario, timeline: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """How the number of busy slots swings, where the work of a single class does."""
    shape = next((work.arrivals.diurnal for work in scenario.work.values()), None)
    if shape is None or len(scenario.work) > 1:
        return {}
    at_s = ticks_of(scenario)
    day = swing_of(at_s, np.asarray(timeline["running"])[-len(at_s) :], shape.period, shape.peak_at)
    return {"day.mean": day.mean, "day.peak": day.peak, "day.lag": day.lag_s}


def _tails_of(scenario: Scenario, samples: Mapping[str, Histogram]) -> dict[str, float]:
    """What share took longer than each of some limits around the quantiles of a neighbour."""
    return {
        above(f"{name}.latency.{label}", step * limit_s): samples[f"{name}.latency"].share_above(step * limit_s)
        for name in scenario.work
        for label, limit_s in zip(("p95", "p99"), controls.limits_s(scenario), strict=False)
        for step in STEPS
    }


def dump(report: Report) -> str:
    """The report as one line of JSON."""
    return json.dumps(report.as_json())
