"""What `mesh-sim run` says to people: a table of figures, whole and by phase, then the objectives and the verdict."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite, isnan
from typing import Final, NamedTuple

from ruamel.yaml import YAML

from simulator.answer import Answer
from simulator.scenario import ChangeError
from simulator.statistics import Interval
from simulator.units import duration_text

PHASES_SHOWN: Final = 4
LABEL: Final = 26
WHOLE: Final = 24
PHASE: Final = 20
Figures = Mapping[str, Interval]


class Line(NamedTuple):
    """One line of the table: a label and the figure behind it. `quiet`: left out where the figure is 0 throughout."""

    label: str
    figure: str
    unit: str = ""
    quiet: bool = False


def change_of(text: str) -> tuple[str, object]:
    """`key.path=value`, the value as YAML reads it. Raises ChangeError."""
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise ChangeError(f"`{text}` is not `key.path=value`, such as `groups.erp.agents.count=20`")
    return path, YAML(typ="safe", pure=True).load(value)


def table(answer: Answer) -> Iterator[str]:
    """The whole answer as text, the verdict last."""
    scenario, n = answer.scenario, len(answer.series.outcomes)
    runs = "1 replication" if n == 1 else f"{n} replications"
    settle_s = scenario.horizon.settle
    settling = f" with the {duration_text(settle_s)} of settling that no figure counts" if settle_s else ""
    yield (
        f"{scenario.name}: {runs} of {duration_text(scenario.end_s)}, {answer.series.jobs} jobs{settling}, "
        f"seed {answer.series.question.seed}, digest {answer.digest}"
    )
    if answer.figures:
        yield from _figures(answer)
        yield ""
    for judgement in answer.judgements:
        margin = f", margin {judgement.margin:.0%}" if judgement.margin is not None else ""
        yield f"  {judgement.verdict.upper():18} {judgement.fact}{margin}"
    yield answer.verdict


def _figures(answer: Answer) -> Iterator[str]:
    phases = list(answer.phases) if len(answer.phases) > 1 else []
    shown = phases[:PHASES_SHOWN]
    names = "".join(f"{_cut(name, PHASE - 2):>{PHASE}}" for name, *_ in shown)
    spans = "".join(f"{f'from {duration_text(from_s)}':>{PHASE}}" for _, from_s, _, _ in shown)
    yield f"{'':{LABEL}}{'whole':>{WHOLE}}{names}"
    if shown:
        yield f"{'':{LABEL}}{'':{WHOLE}}{spans}"
    columns = [seen for *_, seen in shown]
    for heading, lines in sections(answer.scenario.work, answer.scenario.groups, answer.figures):
        yield heading
        for line in lines:
            whole = with_half_width(answer.figures[line.figure], line.unit)
            parts = "".join(f"{_phase_cell(seen, line):>{PHASE}}" for seen in columns)
            yield f"  {line.label:{LABEL - 2}}{whole:>{WHOLE}}{parts}"
    if len(phases) > len(shown):
        yield f"  ({len(phases) - len(shown)} more phases: --json, --csv or --html)"


def _phase_cell(seen: Figures, line: Line) -> str:
    return shown(seen[line.figure].mean, line.unit) if line.figure in seen else ""


def sections(works: Iterable[str], groups: Iterable[str], figures: Figures) -> Iterator[tuple[str, Sequence[Line]]]:
    """Headings with their lines, for the work and the groups of a scenario."""
    parts = [
        *((name, _work_lines(name)) for name in works),
        *((name, _group_lines(name)) for name in groups),
        ("mesh", _MESH),
        *((step, lines) for step, lines in (("fail-over", _FAILOVER),) if figures["failover.detect.count"].mean),
    ]
    for heading, lines in parts:
        yield (
            heading,
            [line for line in lines if line.figure in figures and not (line.quiet and figures[line.figure].mean == 0)],
        )


def _work_lines(name: str) -> Sequence[Line]:
    quantiles = (("p50", "p50"), ("p95", "p95"), ("p99", "p99"), ("p99.9", "p999"))
    return (
        Line("jobs arrived", f"{name}.arrived"),
        Line("throughput", f"{name}.throughput", "/s"),
        *(Line(f"end to end {label}", f"{name}.latency.{key}", "s") for label, key in quantiles),
        *(Line(f"wait {label}", f"{name}.wait.{key}", "s") for label, key in quantiles),
        Line("attempts a job", f"{name}.attempts.mean"),
        Line("retried", f"{name}.retried", quiet=True),
        Line("refused", f"{name}.refused", quiet=True),
        Line("failed", f"{name}.failed", quiet=True),
        Line("expired", f"{name}.expired", quiet=True),
        Line("dead letters", f"{name}.dead"),
    )


def _group_lines(name: str) -> Sequence[Line]:
    return (
        Line("agents", f"{name}.agents.mean"),
        Line("agents up", f"{name}.up.mean"),
        Line("availability", f"{name}.availability", "%"),
        Line("utilisation", f"{name}.utilisation", "%"),
        Line("evenness (Jain)", f"{name}.evenness.jain"),
        Line("evenness, max/mean", f"{name}.evenness.peak"),
        Line("evenness, worst window", f"{name}.evenness.window.least"),
        Line("backlog, peak", f"{name}.backlog.peak"),
        Line("backlog, time to drain", f"{name}.backlog.drain", "s"),
    )


_MESH: Final = (
    Line("lost", "lost"),
    Line("unfinished", "unfinished", quiet=True),
    Line("started twice", "overlapped"),
    Line("wasted work", "wasted.share", "%"),
    Line("broker loop busy", "broker.utilisation", "%", quiet=True),
    Line("commits", "broker.commits", quiet=True),
    Line("reconnects a second, peak", "reconnect.peak", quiet=True),
    Line("cost an hour", "cost.per-hour"),
)
_FAILOVER: Final = (
    Line("jobs concerned", "failover.detect.count"),
    Line("loss noticed after", "failover.detect.mean", "s"),
    Line("jobs wait again after", "failover.decide.mean", "s"),
    Line("assigned again after", "failover.reassign.mean", "s"),
    Line("running again after", "failover.restart.mean", "s"),
    Line("running again, latest", "failover.restart.max", "s"),
)


def with_half_width(seen: Interval, unit: str) -> str:
    """A figure with half the width of its interval."""
    if seen.n <= 1 or not isfinite(seen.half_width) or seen.half_width <= 5e-5 * abs(seen.mean):
        return shown(seen.mean, unit)
    return f"{shown(seen.mean, unit)} ± {shown(seen.half_width, unit, digits=2)}"


def shown(value: float, unit: str = "", digits: int = 4) -> str:
    """A value for people: `s`, `%`, `/s` or a plain number. What is no number was not measured."""
    if not isfinite(value):
        return "never" if unit == "s" and not isnan(value) else "-"
    if unit == "s":
        return _time(value, digits)
    if unit == "%":
        return f"{_number(100 * value, digits)} %"
    return f"{_number(value, digits)}{unit}"


def _time(seconds: float, digits: int) -> str:
    if abs(seconds) >= 600:
        return f"{_number(seconds / 60, digits)} min"
    return f"{_number(seconds, digits)} s" if abs(seconds) >= 1 else f"{_number(seconds * 1e3, digits)} ms"


def _number(value: float, digits: int) -> str:
    """So many digits, and never the form of 5e+02."""
    return f"{value:.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
