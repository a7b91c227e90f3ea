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
from typing import Final

from broker.errors import ConfigError, MeshError
from simulator.answer import answer
from simulator.backends import Backend, backend_named
from simulator.cache import ResultCache
from simulator.compare import Comparison, Difference, compare, sentence
from simulator.document import document as document_of
from simulator.document import finite
from simulator.experiments import Laboratory, Plan, Question, Simulate, UnstableError
from simulator.objectives import Exit, Objective, ObjectiveError, exit_code, parse, verdict_sentence
from simulator.options import Files, Metrics, Options
from simulator.report.files import refuse_files, write_files, write_lines
from simulator.report.openmetrics import openmetrics
from simulator.scenario import ChangeError, Scenario
from simulator.scenario_file import load
from simulator.settling import NEVER_SETTLES
from simulator.sheet import change_of, table
from simulator.solve import Evaluation, Solution, sizes_of, solve
from simulator.statistics import StoppingRule
from simulator.sweep import AxisError, Sweep, axis_of, points_of, row_of, sweep
from simulator.truth import Report, Row, simulate_with_controls, verify
from simulator.truth_table import read_table
from simulator.units import nearest
from simulator.world import simulate


@dataclass(slots=True, frozen=True)
class Said:
    """What a command has found: for programs, for people, and its exit code."""

    document: dict[str, object]
    lines: list[str]
    code: int


def laboratory_of(
    options: Options, world: Simulate = simulate, *, remembers: bool = True, in_depth: bool = False
) -> Laboratory:
    """Where replications run, and where their results are kept."""
    backend: Backend = backend_named(options.backend, options.workers, options.scheduler)
    if options.no_cache or not remembers:
        return Laboratory(world, backend, in_depth=in_depth)
    cache = ResultCache(options.cache or ResultCache.default_folder())
    cache.prune()
    return Laboratory(world, backend, cache, in_depth=in_depth)


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


# --- run ------------------------------------------------------------------------------------------------------------


def say_run(file: Path, changes: Sequence[str], metrics: Metrics, options: Options, files: Files) -> Said:
    """The answer to one scenario."""
    refuse_files(files, metrics.openmetrics)
    scenario = load(file).changed(dict(change_of(text) for text in changes))
    plan = plan_of(options, scenario, objectives_of(scenario))
    with progress_bar() as bar:
        found = answer(
            laboratory_of(options, in_depth=True),
            Question(scenario, seed_of(options, scenario)),
            plan,
            lambda done, started: bar(scenario.name, done, started),
        )
    said = Said(document_of(found), [*_partial(partial=found.series.partial), *table(found)], found.code)
    if metrics.openmetrics is not None:
        write_lines(openmetrics(found, metrics.begin, every=metrics.every_replication), metrics.openmetrics)
    return filed(said, files)


def filed(said: Said, files: Files) -> Said:
    """Write what was found into files, too. Raises FileError."""
    write_files(said.document, files)
    return said


# --- compare --------------------------------------------------------------------------------------------------------


def say_comparison(first: Path, second: Path, options: Options, files: Files) -> Said:
    """The paired differences of two scenario files."""
    refuse_files(files)
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
    document: dict[str, object] = {
        "kind": "compare",
        "first": before.name,
        "second": after.name,
        "seed": seed,
        "partial": pair.partial,
    }
    try:
        differences = pair.differences()
    except UnstableError as error:
        return filed(_unstable(document, error, pair), files)
    asked = {objective.figure for objective in objectives}
    verdict = sentence(differences, first.stem, second.stem, asked) if pair.has_settled else NEVER_SETTLES
    code = Exit.NOT_PRECISE if pair.partial or not pair.has_settled else Exit.MET
    document |= {
        "verdict": verdict,
        "replications": len(pair.second.outcomes),
        "figures": {difference.figure: finite(difference.as_json()) for difference in differences},
        "days": {name: [finite({"d": value})["d"] for value in values] for name, values in pair.by_day().items()},
        "objectives": list(before.objectives),
        "exit_code": code,
    }
    lines = [*_partial(partial=pair.partial), *_comparison_lines(differences), *_still(pair, objectives, second.stem)]
    return filed(Said(document, [*lines, verdict], code), files)


def _unstable(document: dict[str, object], error: UnstableError, pair: Comparison) -> Said:
    which = [name for name, series in (("first", pair.first), ("second", pair.second)) if series.growth.is_unstable]
    verdict = f"{error.text} in the {' and the '.join(which)} scenario"
    nothing: dict[str, object] = {
        "replications": len(pair.second.outcomes),
        "figures": {},
        "days": {},
        "objectives": [],
    }
    return Said({**document, "verdict": verdict, **nothing, "exit_code": Exit.MISSED}, [verdict], Exit.MISSED)


def _comparison_lines(differences: Sequence[Difference]) -> Iterator[str]:
    """What differs by more than chance, under a heading."""
    clear = [difference for difference in differences if difference.is_clear]
    if clear:
        yield f"{'figure':36} {'first':>12} {'second':>12}   second - first, ± half of its 95 % interval"
    for one in clear:
        change, share = one.difference, f" ({one.share:+.1%})" if one.share is not None else ""
        half_width = f" ± {one.shown(change.half_width, digits=2)}" if change.half_width else ""
        sides = f"{one.shown(one.first.mean):>12} {one.shown(one.second.mean):>12}"
        yield f"{one.figure:36} {sides}   {'+' * (change.mean > 0)}{one.shown(change.mean)}{half_width}{share}"


def _still(pair: Comparison, objectives: Sequence[Objective], second: str) -> Iterator[str]:
    """Whether the second meets the objectives of the first, those that are about what both have."""
    shared = [one for one in objectives if one.figure in pair.second.outcomes[0].figures]
    for judgement in pair.second.judge(shared):
        yield f"{second} {judgement.verdict}: {judgement.fact}"


# --- sweep ----------------------------------------------------------------------------------------------------------


def say_sweep(file: Path, axes: Sequence[str], options: Options, files: Files) -> Said:
    """Every combination of values."""
    refuse_files(files)
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
    code = exit_code(judgements, unstable=unstable, partial=found.partial or not found.has_settled)
    document: dict[str, object] = {
        "kind": "sweep",
        "scenario": scenario.name,
        "seed": seed_of(options, scenario),
        "axes": sorted({key for changes in points for key in changes}),
        "points": [row_of(series, plan) for series in found.series],
        "asked": found.asked,
        "partial": found.partial,
        "exit_code": code,
    }
    return filed(Said(document, [*_partial(partial=found.partial), *_sweep_lines(found, plan)], code), files)


def _sweep_lines(found: Sweep, plan: Plan) -> Iterator[str]:
    for series in found.series:
        changes = " ".join(f"{key}={value}" for key, value in series.question.changes.items()) or "as it is"
        growth = series.growth
        if growth.is_unstable:
            yield f"{changes}: {growth}"
        elif not series.has_settled:
            yield f"{changes}: {NEVER_SETTLES}"
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
            laboratory_of(options, simulate_with_controls),
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
        seen = evaluation.why or "; ".join(map(str, evaluation.judgements))
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


# --- verify ---------------------------------------------------------------------------------------------------------


PARTIAL_TRUTH: Final = "PARTIAL: interrupted; the cases that were finished are above."


def say_truth(options: Options, *, quick: bool, cases: Path | None, only: Sequence[str] = ()) -> Said:
    """The truth table beside the simulation."""
    table = read_table(cases)
    wanted = set(only) or (set(table.quick) if quick and table.quick else {case.id for case in table.cases})
    ids = [case.id for case in table.cases]
    if unknown := sorted(wanted - set(ids)):
        raise ConfigError(f"there is no case `{unknown[0]}`; {nearest(unknown[0], ids)}")
    chosen = [case for case in table.cases if case.id in wanted]
    lines: list[str] = []
    with progress_bar() as bar:

        def heard(row: Row) -> None:
            lines.append(_truth_line(row))
            bar(f"{row.id} {row.figure}", len({line.split()[0] for line in lines}), len(chosen))

        report = verify(
            chosen,
            seed=1 if options.seed is None else options.seed,
            quick=quick,
            backend=backend_named(options.backend, options.workers, options.scheduler),
            progress=heard,
        )
    lines += [f"{id_:5} skipped: {reason}" for id_, reason in report.skipped.items()]
    lines += [*([PARTIAL_TRUTH] if report.partial else []), _truth_sentence(report)]
    code = Exit.MISSED if report.failed else Exit.NOT_PRECISE if report.skipped or report.partial else Exit.MET
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
