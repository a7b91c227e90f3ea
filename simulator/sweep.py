"""One scenario with every combination of some values: `groups.erp.agents.count=16..20 work.orders.attempts=1,3`.

All points see the same days. A point whose backlog grows is a result too, and has no figures. What was interrupted
goes on at the point where it stopped, because each replication was filed.
"""

import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import isfinite
from typing import Final

from pydantic import BaseModel

from broker.errors import ConfigError
from simulator.experiments import Laboratory, Plan, Progress, Question, Series
from simulator.objectives import Judgement
from simulator.settling import left_out, look
from simulator.statistics import LEVEL

POINTS_MAX: Final = 10_000
_RANGE: Final = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.(\d+))?")


class AxisError(ConfigError):
    """`key=values` that cannot be read; the text says what is wrong."""

    reason = "BAD_AXIS"


@dataclass(slots=True, frozen=True)
class Axis:
    """One key of the scenario and the values that it takes in turn."""

    key: str
    values: tuple[object, ...]


def axis_of(text: str) -> Axis:
    """Read `key=value,value` or `key=first..last` or `key=first..last..step`.

    Raises:
        AxisError: there is no key, no value, or a value twice.
    """
    key, equals, rest = text.partition("=")
    if not key.strip() or not equals or not rest.strip():
        raise AxisError(f"`{text}` is not KEY=VALUES, such as groups.erp.agents.count=16,18 or ...count=16..20")
    values = tuple(value for part in rest.split(",") for value in _values(part.strip(), text))
    if len(set(map(repr, values))) < len(values):
        raise AxisError(f"`{text}` names a value twice")
    return Axis(key.strip(), values)


def _values(part: str, text: str) -> Sequence[object]:
    found = _RANGE.fullmatch(part)
    if found:
        values = range(int(found[1]), int(found[2]) + 1, int(found[3] or 1) or 1)
        if not 0 < len(values) <= POINTS_MAX:
            raise AxisError(f"`{text}`: the range {part} has {len(values)} values")
        return values
    if not part:
        raise AxisError(f"`{text}` has an empty value")
    return [value_of(part)]


def value_of(text: str) -> object:
    """A whole number, a number, true or false, or else the text itself (`250 ms`)."""
    if text in ("true", "false"):
        return text == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def points_of(axes: Sequence[Axis]) -> list[dict[str, object]]:
    """The changes of every combination, the last axis varying fastest.

    Raises:
        AxisError: a key is given twice, or there are too many combinations.
    """
    keys = [axis.key for axis in axes]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice:
        raise AxisError(f"`{twice}` is given twice")
    count = 1
    for axis in axes:
        count *= len(axis.values)
    if count > POINTS_MAX:
        raise AxisError(f"{count} combinations are more than {POINTS_MAX}")
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(axis.values for axis in axes))]


@dataclass(slots=True, frozen=True)
class Sweep:
    """The series of each point, in order, as far as it came. `asked` is how many points there are."""

    series: tuple[Series, ...]
    asked: int

    @property
    def partial(self) -> bool:
        """Whether somebody interrupted it."""
        return len(self.series) < self.asked or any(series.partial for series in self.series)

    @property
    def has_settled(self) -> bool:
        """Whether every point that has figures had forgotten its empty start."""
        return all(series.has_settled or series.growth.is_unstable for series in self.series)

    def judgements(self, plan: Plan) -> list[Judgement]:
        """Of all points that have figures."""
        return [
            judgement
            for series in self.series
            if not series.growth.is_unstable
            for judgement in series.judge(plan.objectives)
        ]


def sweep(
    laboratory: Laboratory,
    scenario: BaseModel,
    points: Sequence[Mapping[str, object]],
    plan: Plan,
    *,
    seed: int,
    progress: Callable[[int, int, int], None] = lambda point, done, started: None,
) -> Sweep:
    """Replicate every point. `progress` hears the number of the point, and replications done and started of it.

    Ctrl-C ends it; what there is, is kept.
    """
    series: list[Series] = []
    try:
        for number, changes in enumerate(points):
            found = _point(laboratory, Question(scenario, seed, changes), plan, partial(progress, number))
            series.append(found)
            if found.partial:
                break
    except KeyboardInterrupt:
        if not series:
            raise
    return Sweep(tuple(series), len(points))


def _point(laboratory: Laboratory, question: Question, plan: Plan, progress: Progress) -> Series:
    """One point, without its warm-up."""
    found = look(laboratory, question, plan, progress)
    asked = Question(question.scenario, question.seed, left_out(question, found))
    series = laboratory.replicate(asked, plan, progress)
    return replace(series, question=question, has_settled=found is None or found.has_settled)


def _finite(value: float) -> float | None:
    """A backlog that never drained has no number in JSON."""
    return value if isfinite(value) else None


def row_of(series: Series, plan: Plan, level: float = LEVEL) -> dict[str, object]:
    """One point for `--json`: its changes, its figures with half widths, its verdicts; no figures when unstable."""
    growth = series.growth
    row: dict[str, object] = {
        "changes": dict(series.question.changes),
        "replications": len(series.outcomes),
        "partial": series.partial,
        "unstable": str(growth) if growth.is_unstable else None,
        "figures": {},
        "objectives": [],
    }
    if not growth.is_unstable:
        row["figures"] = {
            name: {"value": _finite(seen.mean), "half_width": _finite(seen.half_width), "n": seen.n}
            for name, seen in series.intervals(level).items()
        }
        row["objectives"] = [judgement.as_json() for judgement in series.judge(plan.objectives, level)]
    return row
