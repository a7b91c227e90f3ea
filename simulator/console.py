"""What the commands compare, sweep, solve and verify say: one JSON object, or words for people, and an exit code.

The commands themselves stand in `simulator.cli`; here nothing is printed. Interrupted commands say that what they
found is partial.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker.errors import ConfigError, MeshError
from simulator.backends import Backend, backend_named
from simulator.cache import ResultCache
from simulator.compare import Comparison, Difference, compare, sentence
from simulator.erlang import agents_for, servers_for
from simulator.experiments import Laboratory, Plan, Question, Simulate, UnstableError
from simulator.incidents import ZoneDown
from simulator.objectives import Exit, Objective, ObjectiveError, exit_code, parse, verdict_sentence
from simulator.options import Options
from simulator.scenario import ChangeError, Scenario
from simulator.scenario_file import load
from simulator.solve import Evaluation, Sizes, Solution, solve
from simulator.statistics import StoppingRule
from simulator.sweep import AxisError, Sweep, axis_of, points_of, row_of, sweep
from simulator.truth import Report, Row, read_table, simulate_with_controls, verify
from simulator.world import simulate


@dataclass(slots=True, frozen=True)
class Said:
    """What a command has found: for programs, for people, and its exit code."""

    document: dict[str, object]
    lines: list[str]
    code: int


def laboratory_of(options: Options, world: Simulate = simulate, *, remembers: bool = True) -> Laboratory:
    """Where replications run, and where their results are kept."""
    backend: Backend = backend_named(options.backend, options.processes)
    if options.no_cache or not remembers:
        return Laboratory(world, backend)
    cache = ResultCache(options.cache or ResultCache.default_folder())
    cache.prune()
    return Laboratory(world, backend, cache)


def seed_of(options: Options, scenario: Scenario) -> int:
    """The seed that counts."""
    return scenario.statistics.seed if options.seed is None else options.seed


def plan_of(options: Options, scenario: Scenario, objectives: Sequence[Objective]) -> Plan:
    """How many replications."""
    asked = scenario.statistics.replications
    fixed = 0 if asked == "auto" else int(asked)
    precision = scenario.statistics.precision if options.precision is None else options.precision
    replications = fixed if options.replications is None else options.replications
    return Plan(replications, tuple(objectives), StoppingRule(precision))


def objectives_of(scenario: Scenario) -> list[Objective]:
    """The scenario's objectives. Raises ObjectiveError."""
    return [parse(text) for text in scenario.objectives]


def refused(error: MeshError | ChangeError) -> Said:
    """A file, a key or an objective that cannot be used."""
    return Said({"error": str(error), "exit_code": Exit.BAD_FILE}, [str(error)], Exit.BAD_FILE)


BAD_INPUT = (ConfigError, AxisError, ChangeError, ObjectiveError)


# --- compare --------------------------------------------------------------------------------------------------------


def say_comparison(first: Path, second: Path, options: Options) -> Said:
    """The paired differences of two scenario files."""
    before, after = load(first), load(second)
    seed, objectives = seed_of(options, before), objectives_of(before)
    with progress_bar() as bar:
        pair = compare(
            laboratory_of(options),
            Question(before, seed),
            Question(after, seed),
            plan_of(options, before, objectives),
            lambda done, started: bar(first.name, done, started),
        )
    document: dict[str, object] = {"first": before.name, "second": after.name, "seed": seed, "partial": pair.partial}
    try:
        differences = pair.differences()
    except UnstableError as error:
        return _unstable(document, error, pair)
    verdict = sentence(differences, first.stem, second.stem)
    code = Exit.NOT_PRECISE if pair.partial else Exit.MET
    document |= {
        "verdict": verdict,
        "replications": len(pair.second.outcomes),
        "figures": {difference.figure: difference.as_json() for difference in differences},
        "exit_code": code,
    }
    lines = [_difference_line(difference) for difference in differences if difference.is_clear]
    return Said(document, [*_partial(partial=pair.partial), *lines, verdict], code)


def _unstable(document: dict[str, object], error: UnstableError, pair: Comparison) -> Said:
    which = [name for name, series in (("first", pair.first), ("second", pair.second)) if series.growth.is_unstable]
    verdict = f"{error.text} in the {' and the '.join(which)} scenario"
    return Said({**document, "verdict": verdict, "exit_code": Exit.MISSED}, [verdict], Exit.MISSED)


def _difference_line(difference: Difference) -> str:
    share = f" ({difference.share:+.1%})" if difference.share is not None else ""
    change = difference.difference
    return (
        f"{difference.figure:32} {difference.first.mean:12.5g} -> {difference.second.mean:12.5g}   "
        f"{change.mean:+.4g} +- {change.half_width:.2g}{share}"
    )


# --- sweep ----------------------------------------------------------------------------------------------------------


def say_sweep(file: Path, axes: Sequence[str], options: Options) -> Said:
    """Every combination of values."""
    scenario = load(file)
    points = points_of([axis_of(text) for text in axes])
    for changes in points:
        scenario.changed(changes)  # a value that does not fit is refused before hours of the others
    objectives = objectives_of(scenario)
    plan = plan_of(options, scenario, objectives)
    with progress_bar() as bar:
        found = sweep(
            laboratory_of(options),
            scenario,
            points,
            plan,
            seed=seed_of(options, scenario),
            progress=lambda point, done, started: bar(f"point {point + 1} of {len(points)}", done, started),
        )
    judgements = found.judgements(plan)
    unstable = any(series.growth.is_unstable for series in found.series)
    code = exit_code(judgements, unstable=unstable, partial=found.partial)
    document: dict[str, object] = {
        "scenario": scenario.name,
        "seed": seed_of(options, scenario),
        "points": [row_of(series, plan) for series in found.series],
        "asked": found.asked,
        "partial": found.partial,
        "exit_code": code,
    }
    return Said(document, [*_partial(partial=found.partial), *_sweep_lines(found, plan)], code)


def _sweep_lines(found: Sweep, plan: Plan) -> Iterator[str]:
    for series in found.series:
        changes = " ".join(f"{key}={value}" for key, value in series.question.changes.items())
        growth = series.growth
        if growth.is_unstable:
            yield f"{changes}: {growth}"
        else:
            yield f"{changes}: {verdict_sentence(series.judge(plan.objectives), partial=series.partial)}"


# --- solve ----------------------------------------------------------------------------------------------------------


def say_solution(file: Path, options: Options, *, group: str | None, zones: str) -> Said:
    """The smallest fleet that meets the objectives."""
    started = time.perf_counter()
    scenario = load(file)
    name = _group_of(scenario, group)
    equal = zones == "equal"
    objectives = objectives_of(scenario)
    with progress_bar() as bar:
        found = solve(
            laboratory_of(options),
            scenario,
            sizes_of(scenario, name, objectives, equal=equal),
            objectives,
            seed=seed_of(options, scenario),
            progress=lambda agents, done, started: bar(f"{agents} agents", done, started),
        )
    document: dict[str, object] = {
        "scenario": scenario.name,
        "seed": seed_of(options, scenario),
        "group": name,
        "agents": found.agents,
        "zones": zones,
        "evaluated": [evaluation.as_json() for evaluation in found.evaluated],
        "neighbour": found.neighbour.as_json() if found.neighbour else None,
        "jobs_simulated": found.jobs,
        "wall_s": round(time.perf_counter() - started, 3),
        "exit_code": Exit.MET,
    }
    return Said(document, _solution_lines(found, name), Exit.MET)


def _solution_lines(found: Solution, group: str) -> list[str]:
    def words(evaluation: Evaluation) -> str:
        seen = str(evaluation.series.growth) if evaluation.is_unstable else "; ".join(map(str, evaluation.judgements))
        return f"{evaluation.agents:6} agents  {'met     ' if evaluation.is_met else 'not met '} {seen}"

    ordered = sorted(found.evaluated, key=lambda evaluation: evaluation.agents)
    why = f", {found.neighbour.agents} do not" if found.neighbour else ""
    return [*map(words, ordered), f"{group} needs {found.agents} agents: they meet all objectives{why}."]


def _group_of(scenario: Scenario, name: str | None) -> str:
    names = list(scenario.groups)
    if name is None and len(names) == 1:
        return names[0]
    if name not in scenario.groups:
        asked = f"there is no group `{name}`" if name else "which group is to be sized?"
        raise ConfigError(f"{asked} --group takes one of: {', '.join(names)}")
    return name


def sizes_of(scenario: Scenario, name: str, objectives: Sequence[Objective], *, equal: bool) -> Sizes:
    """What is varied, and Erlang's guess: as many slots as the arrivals need, and the zones that are gone throughout.

    Raises:
        ConfigError: the group has several pools, so that it is not said which is to grow.
    """
    from simulator.controls import rate_of
    from simulator.streams import mean_s

    group = scenario.groups[name]
    if len(group.agents) != 1:
        raise ConfigError(f"group `{name}` has {len(group.agents)} pools; `solve` sizes a group of equal agents")
    pool = group.agents[0]
    works = [
        (rate_of(work.arrivals) or 0.0, mean_s(work.duration)) for work in scenario.work.values() if work.group == name
    ]
    rate = sum(rate for rate, _ in works)
    mean = sum(rate * mean for rate, mean in works) / rate / pool.speed if rate else 1.0
    limit = next(
        (one for one in objectives if one.figure.endswith("latency.p99") and one.relation in ("<", "<=")), None
    )
    servers = servers_for(rate, mean, limit.bound if limit else 5 * mean, 0.99)
    zones = len(set(pool.spread))
    lost = {
        fault.zone_down
        for fault in scenario.faults
        if isinstance(fault, ZoneDown)
        and fault.at <= scenario.horizon.settle
        and fault.at + fault.for_ >= scenario.end_s
    } & set(pool.spread)
    guess = agents_for(servers, pool.slots, zones, min(len(lost), zones - 1), equal=equal)
    return Sizes(f"groups.{name}.agents.count", guess, zones if equal else 1)


# --- verify ---------------------------------------------------------------------------------------------------------


def say_truth(options: Options, *, quick: bool, cases: Path | None, only: Sequence[str] = ()) -> Said:
    """The truth table beside the simulation."""
    table = read_table(cases)
    wanted = set(only) or (set(table.quick) if quick and table.quick else {case.id for case in table.cases})
    unknown = wanted - {case.id for case in table.cases}
    if unknown:
        raise ConfigError(f"no case {', '.join(sorted(unknown))}; there are {', '.join(one.id for one in table.cases)}")
    chosen = [case for case in table.cases if case.id in wanted]
    lines: list[str] = []
    with progress_bar() as bar:

        def heard(row: Row) -> None:
            lines.append(_truth_line(row))
            bar(f"{row.id} {row.figure}", len({line.split()[0] for line in lines}), len(chosen))

        report = verify(
            laboratory_of(options, simulate_with_controls, remembers=False),
            chosen,
            seed=options.seed or 1,
            quick=quick,
            progress=heard,
        )
    lines += [f"{id_:5} skipped: {reason}" for id_, reason in report.skipped.items()]
    lines.append(_truth_sentence(report))
    code = Exit.MISSED if report.failed else Exit.NOT_PRECISE if report.skipped else Exit.MET
    return Said(report.as_json(), lines, code)


def _truth_line(row: Row) -> str:
    seen = f"truth {row.truth:<11.6g} simulated {row.simulated:<11.6g} +- {row.half_width:<8.3g}"
    verdict = ("pass" if row.passed else "FAIL") + (" (5 % in the quick run)" if row.relaxed else "")
    return f"{row.id:5} {row.figure:26} {seen} bound {row.bound:<9.3g} {verdict}"


def _truth_sentence(report: Report) -> str:
    words = f"{len(report.passed)} cases pass, {len(report.failed)} fail, {len(report.skipped)} were skipped"
    return f"{words}; seed {report.seed}, {report.wall_s:.0f} s."


# --- people ---------------------------------------------------------------------------------------------------------


def _partial(*, partial: bool) -> list[str]:
    return (
        ["PARTIAL: interrupted; what was finished is below, and the same command goes on from here."] if partial else []
    )


@contextmanager
def progress_bar() -> Iterator[Callable[[str, int, int], None]]:
    """A bar with the remaining time on stderr; nothing where stderr is not a terminal."""
    if not sys.stderr.isatty():
        yield lambda what, done, started: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description:24}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, started: bar.update(task, description=what, completed=done, total=started)
