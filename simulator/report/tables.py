"""The tables of a report, and the few figures on top of it, from the documents."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simulator.objectives import parse
from simulator.report.gallery import kind_of
from simulator.sheet import PHASES_SHOWN, Line, sections, shown, with_half_width
from simulator.statistics import Interval

Document = Mapping[str, Any]


@dataclass(slots=True, frozen=True)
class Fact:
    """A figure on top of the page."""

    label: str
    value: str
    note: str = ""


@dataclass(slots=True, frozen=True)
class Table:
    """Rows of text under headings; a row of one cell is a heading inside. `folded`: shown when asked for."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    folded: bool = False


def interval_of(seen: Mapping[str, Any]) -> Interval:
    """A figure of a document."""
    never = float("inf") if seen["n"] else float("nan")
    value, half_width = (never if seen[key] is None else seen[key] for key in ("value", "half_width"))
    return Interval(value, half_width, seen["n"])


def facts_of(document: Document) -> list[Fact]:
    """What a reader wants first."""
    return list(_run_facts(document)) if kind_of(document) == "run" and document["figures"] else []


def _run_facts(document: Document) -> Iterator[Fact]:
    figures = {name: interval_of(seen) for name, seen in document["figures"].items()}

    def fact(label: str, name: str, unit: str = "") -> Fact:
        seen = figures[name]
        is_wide = seen.n > 1 and 0 < seen.half_width < float("inf")
        return Fact(label, shown(seen.mean, unit), f"± {shown(seen.half_width, unit, digits=2)}" if is_wide else "")

    for work in list(document["scenario"]["work"])[:2]:
        yield fact(f"{work}, p99 end to end", f"{work}.latency.p99", "s")
        yield fact(f"{work}, throughput", f"{work}.throughput", "/s")
    for group in list(document["scenario"]["groups"])[:2]:
        yield fact(f"{group}, utilisation", f"{group}.utilisation", "%")
    yield fact("jobs lost", "lost")
    yield fact("backlog, peak", "backlog.peak")
    yield fact("time to drain", "backlog.drain", "s")
    if figures["failover.restart.count"].mean:
        yield fact("running again after a loss", "failover.restart.mean", "s")
    if "cost.per-hour" in figures:
        currency = str(document["scenario"]["cost"]["agent-hour"]).split()[-1]
        yield Fact("cost an hour", f"{shown(figures['cost.per-hour'].mean)} {currency}")


def tables_of(document: Document) -> list[Table]:
    """All tables that a document has data for."""
    kind = kind_of(document)
    made = {"run": _run_tables, "sweep": _sweep_tables, "compare": _compare_tables, "solve": _solve_tables}
    made |= {"verify": _verify_tables, "emulate": _emulate_tables}
    return [table for table in made[kind](document) if table.rows]


def _objective_rows(objectives: Sequence[Document]) -> list[list[str]]:
    return [
        [
            one["verdict"],
            one["objective"],
            _in_unit(one, "value") or "never",
            f"± {_in_unit(one, 'half_width')}" if one["half_width"] else "",
            "" if one["margin"] is None else f"{one['margin']:.0%}",
        ]
        for one in objectives
    ]


def _in_unit(one: Document, key: str) -> str:
    """A value in the unit that the objective is written in; empty for none."""
    return "" if one[key] is None else parse(one["objective"]).shown(one[key])


def _run_tables(document: Document) -> Iterator[Table]:
    head = ("verdict", "objective", "seen", "", "margin")
    yield Table("Objectives", head, _objective_rows(document["objectives"]))
    if document["figures"]:
        yield _phase_table(document)
    rows = [
        [
            one["figure"],
            f"{one['theory']:.4g}",
            "" if one["simulated"] is None else f"{one['simulated']:.4g}",
            "" if not one["half_width"] else f"± {one['half_width']:.2g}",
            one["by"],
        ]
        for one in document["theory"]
    ]
    yield Table("Formulas beside the simulation", ("figure", "formula", "simulated", "", "by"), rows)
    every = [
        [name, "" if seen["value"] is None else f"{seen['value']:.6g}", _half_width(seen)]
        for name, seen in document["figures"].items()
    ]
    yield Table("Every figure", ("figure", "mean", "interval"), every, folded=True)


def _half_width(seen: Mapping[str, Any]) -> str:
    return "" if not seen["half_width"] else f"± {seen['half_width']:.3g}"


def _phase_table(document: Document) -> Table:
    whole = {name: interval_of(seen) for name, seen in document["figures"].items()}
    phases = document["phases"][:PHASES_SHOWN] if len(document["phases"]) > 1 else []
    rows: list[list[str]] = []
    for heading, lines in sections(document["scenario"]["work"], document["scenario"]["groups"], whole):
        rows.append([heading])
        for line in lines:
            cells = [_phase_cell(phase, line) for phase in phases]
            rows.append([line.label, with_half_width(whole[line.figure], line.unit), *cells])
    head = ["", "whole", *(f"{phase['name']}, from {shown(phase['from_s'], 's')}" for phase in phases)]
    return Table("Figures, whole and by phase", head, rows)


def _phase_cell(phase: Mapping[str, Any], line: Line) -> str:
    seen = phase["figures"].get(line.figure)
    return "" if seen is None else shown(interval_of(seen).mean, line.unit)


def _sweep_tables(document: Document) -> Iterator[Table]:
    asked = list(dict.fromkeys(one["objective"] for point in document["points"] for one in point["objectives"]))
    rows = []
    for point in document["points"]:
        found = {one["objective"]: one for one in point["objectives"]}
        cells = [_sweep_cell(found.get(text), point) for text in asked]
        rows.append([*(str(point["changes"][axis]) for axis in document["axes"]), *cells])
    yield Table("Points", [*document["axes"], *asked], rows)


def _sweep_cell(found: Mapping[str, Any] | None, point: Mapping[str, Any]) -> str:
    if found is None:
        return point["unstable"] or ""
    nothing = "never" if found["n"] else "-"
    value = nothing if found["value"] is None else f"{found['value']:.4g}"
    return f"{value} {_half_width(found)} {found['verdict']}"


def _compare_tables(document: Document) -> Iterator[Table]:
    rows = [
        [
            name,
            *(("never" if one["n"] else "-") if one[key] is None else f"{one[key]:.5g}" for key in ("first", "second")),
            "" if one["difference"] is None else f"{one['difference']:+.4g} {_half_width(one)}",
            "" if one["share"] is None else f"{one['share']:+.1%}",
        ]
        for name, one in document["figures"].items()
        if one["clear"]
    ]
    head = ("figure", document["first"], document["second"], "difference", "share")
    yield Table("What differs by more than chance", head, rows)


def _solve_tables(document: Document) -> Iterator[Table]:
    rows = [
        [
            str(one["n"]),
            "UNSTABLE" if one["unstable"] else "met" if one["met"] else "missed",
            "" if one.get("p99_s") is None else f"{one['p99_s']:.4g} s {_half_width(one)}",
        ]
        for one in sorted(document["evaluated"], key=lambda one: one["n"])
    ]
    yield Table("The fleets that were tried", ("agents", "objectives", "p99"), rows)


def _verify_tables(document: Document) -> Iterator[Table]:
    rows = [
        [
            "pass" if one["pass"] else "FAIL",
            one["id"],
            one["figure"],
            *(f"{one[key]:.6g}" for key in ("truth", "simulated", "half_width", "bound")),
        ]
        for one in document["cases"]
    ]
    head = ("verdict", "case", "figure", "truth", "simulated", "half width", "bound")
    yield Table("Truth table", head, rows)


def _emulate_tables(document: Document) -> Iterator[Table]:
    rows = [
        [
            "no bar" if one["met"] is None else "met" if one["met"] else "missed",
            name,
            *("" if one[key] is None else f"{one[key]:.4g}" for key in ("real", "simulated", "error", "bar")),
        ]
        for name, one in document["figures"].items()
    ]
    yield Table("Twin error", ("verdict", "figure", "real", "simulated", "error", "allowed"), rows)
