"""The truth table: cases whose answer mathematics knows, through the real dispatcher, figure by figure.

A figure passes when its whole interval lies within the bound around the truth and half its width is at most a third of
the bound, so that neither a wrong simulation nor an unprecise one passes. A case that cannot be expressed is listed as
skipped with the reason. `simulator/truth/queueing.json` is the table; further files of the same form may be given,
whose cases may also carry their own `scenario` and `figures` (name in the table: name in the simulation).
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from math import ceil, inf, isfinite
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from broker.errors import ConfigError
from simulator import controls
from simulator.experiments import Laboratory, Outcome, Plan, Question, Run, Series
from simulator.fault_trials import KINDS as FAULT_KINDS
from simulator.objectives import parse
from simulator.queue_trials import KINDS as QUEUE_KINDS
from simulator.scenario import Scenario
from simulator.solve import Sizes, solve
from simulator.statistics import Interval
from simulator.trial import GROUP, Estimate, Evidence, Mean, NotExpressedError, Sizing, Tree, Trial

LEVEL: Final = 0.90
THIRD: Final = 3.0
QUICK_BOUND: Final = 0.05
"""In the quick run a tighter bound may be taken as this, where a third of it would need more than `QUICK_JOBS`."""
QUICK_JOBS: Final = 300_000
Bend = Callable[[Tree], Tree]
"""Changes a scenario before it is run: how a test breaks the simulation to see that the table notices."""


class Bound(BaseModel):
    """How far a simulated figure may be from the truth: a share of it, or an amount."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rel: float | None = None
    abs: float | None = None

    def of(self, truth: float) -> float:
        """The amount."""
        return self.abs if self.abs is not None else (self.rel or 0.0) * abs(truth)


class Case(BaseModel):
    """One case of the table. Figures without a bound are there to be read, not judged."""

    model_config = ConfigDict(frozen=True)
    id: str
    name: str
    setup: str
    truth: dict[str, Any]
    bounds: dict[str, Bound]
    scenario: dict[str, Any] | None = None
    figures: dict[str, str] = {}

    def judged(self) -> Iterator[tuple[str, float, Bound]]:
        """(figure, truth, bound); members of lists and tables are named `figure[0]`, `table.figure`."""
        for name, value in _flat(self.truth):
            bound = self.bounds.get(name) or self.bounds.get(name.partition("[")[0])
            if bound is not None:
                yield name, value, bound


class Table(BaseModel):
    """Cases, and which of them are the quick ones."""

    cases: list[Case]
    quick: list[str] = []


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from ((f"{prefix}{name}[{place}]", float(one)) for place, one in enumerate(value))
        else:
            yield f"{prefix}{name}", float(value)


def read_table(path: Path | None = None) -> Table:
    """The project's table, or another file of the same form.

    Raises:
        ConfigError: the file cannot be read, or is not a table.
    """
    source = path if path is not None else files("simulator") / "truth" / "queueing.json"
    try:
        return Table.model_validate_json(source.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(f"{path}: not a table of cases: {where}: {first['msg']}") from error


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
            "wall_s": round(self.wall_s, 3),
        }


def verify(
    laboratory: Laboratory,
    cases: Iterable[Case],
    *,
    seed: int,
    quick: bool = False,
    bend: Bend = lambda tree: tree,
    progress: Callable[[Row], None] = lambda row: None,
) -> Report:
    """Run the cases and judge every figure that has a bound. The laboratory's world is `simulate_with_controls`."""
    report = Report(seed)
    started = time.perf_counter()
    for case in cases:
        try:
            rows = _rows_of(laboratory, case, seed, quick, bend)
        except NotExpressedError as error:
            report.skipped[case.id] = error.text
            continue
        report.rows += rows
        for row in rows:
            progress(row)
    report.wall_s = time.perf_counter() - started
    return report


def _rows_of(laboratory: Laboratory, case: Case, seed: int, quick: bool, bend: Bend) -> list[Row]:
    trials = trials_of(case)
    unknown = [name for name, _, _ in case.judged() if not any(name in trial.figures for trial in trials)]
    if unknown:
        raise NotExpressedError(f"not measured: {', '.join(unknown)}")
    rows: list[Row] = []
    for trial in trials:
        if isinstance(trial, Sizing):
            rows += _sizing_rows(laboratory, case, trial, seed, bend)
        else:
            rows += _trial_rows(laboratory, case, trial, seed, quick, bend)
    return rows


def _trial_rows(laboratory: Laboratory, case: Case, trial: Trial, seed: int, quick: bool, bend: Bend) -> list[Row]:
    started = time.perf_counter()
    try:
        scenario = Scenario.model_validate(bend(trial.scenario))
    except ValidationError as error:
        raise NotExpressedError(f"no valid scenario: {error.errors()[0]['msg']}") from error
    expected = controls.expected(scenario) if trial.uses_controls else {}
    targets = [
        Target(name, truth, bound, trial.figures[name]) for name, truth, bound in case.judged() if name in trial.figures
    ]
    plan = TruthPlan(stops_unstable=False, targets=tuple(targets), expected=expected, trial=trial, quick=quick)
    series = laboratory.replicate(Question(scenario, seed), plan)
    if series.partial:
        raise KeyboardInterrupt
    strays = controls.stray(expected, {name: series.values(name) for name in expected})
    seconds = time.perf_counter() - started
    return [_row(case, target, series, plan, scenario, seconds, strays) for target in targets]


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
    trial: Trial = field(default_factory=lambda: Trial({}, {}))
    quick: bool = False

    def seen(self, target: Target, outcomes: Sequence[Outcome]) -> Interval:
        """The interval of a target."""
        try:
            return target.estimate(Evidence(outcomes, self.expected, LEVEL))
        except KeyError as error:
            raise NotExpressedError(
                f"`{target.name}` is read off a figure that the world does not give: {error}"
            ) from error

    def is_enough(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether every target is precise, or there is no hope."""
        n = len(outcomes)
        if n < self.trial.at_least:
            return False
        return n >= self.trial.at_most or self._missing(outcomes) <= 1.0

    def _missing(self, outcomes: Sequence[Outcome]) -> float:
        """How many times as many replications are needed, by the widest interval."""
        jobs = sum(outcome.jobs for outcome in outcomes)
        worst = 0.0
        for target in self.targets:
            seen = self.seen(target, outcomes)
            bound, _ = target.allowed(seen, jobs, quick=self.quick)
            wide = THIRD * seen.half_width
            if abs(seen.mean - target.truth) > bound + wide:
                return 0.0  # beyond hope: no number of replications brings it back
            worst = max(worst, 0.0 if wide <= bound else inf if bound == 0 else (wide / bound) ** 2)
        return worst

    def next_round(self, done: int, at_once: int) -> int:
        """All that must be at first, then enough to keep every core busy."""
        if done < self.trial.at_least:
            return self.trial.at_least - done
        return min(max(at_once, done // 4), self.trial.at_most - done)


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
    found: dict[bool, tuple[int, int, float]] = {}
    for equal in {equal for equal, _ in sizing.figures.values()}:
        started = time.perf_counter()
        solution = solve(
            laboratory,
            scenario,
            Sizes(f"groups.{GROUP}.agents.count", sizing.guesses[equal], sizing.zones if equal else 1),
            [parse(text) for text in scenario.objectives],
            seed=seed,
        )
        found[equal] = solution.agents, solution.jobs, time.perf_counter() - started
    rows = []
    for name, truth, bound in case.judged():
        equal, what = sizing.figures[name]
        agents, jobs, seconds = found[equal]
        value = agents if what == "agents" else agents - ceil(agents / sizing.zones)
        passed = abs(value - truth) <= bound.of(truth)
        policy = next(iter(scenario.groups.values())).policy
        rows.append(
            Row(
                case.id,
                name,
                truth,
                value,
                0.0,
                bound.of(truth),
                passed,
                jobs,
                scenario.broker.fidelity,
                policy,
                seconds,
            )
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

    run = simulate(scenario, seed=seed, replication=replication, changes=changes)
    extra = controls.seen(scenario.changed(changes), seed, replication)
    return ControlledRun(run.digest, {**run.figures, **extra}, run.jobs, run.simulated_s, run.growth_per_s)


def dump(report: Report) -> str:
    """The report as one line of JSON."""
    return json.dumps(report.as_json())
