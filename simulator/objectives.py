"""What a scenario is asked to meet, and whether it does: `orders.latency.p99 < 2 s`, `lost == 0`.

An objective is met when the whole interval of its figure lies on the right side of the bound, missed when the whole
interval lies on the wrong side, and otherwise *not decided*: more replications are wanted, not a guess. Equality is a
claim about every replication, not about their mean: one lost job in one of them misses `lost == 0`.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from math import isfinite, nan
from typing import Final

from broker.errors import ConfigError
from simulator.measured import unit_of
from simulator.statistics import LEVEL, Interval, interval
from simulator.units import SECONDS, nearest


class Exit(IntEnum):
    """Exit codes of `mesh-sim`: it can be the gate of a change."""

    MET = 0
    BAD_FILE = 2
    MISSED = 3
    NOT_PRECISE = 4


class Verdict(StrEnum):
    """What became of one objective."""

    MET = "met"
    MISSED = "missed"
    NOT_PRECISE = "not precise enough"


UNITS: Final[Mapping[str, float]] = {
    "": 1.0,
    "%": 0.01,
    **SECONDS,
    **{f"/{unit}": 1 / seconds for unit, seconds in SECONDS.items()},
}
"""What a bound is multiplied by: figures are in seconds, shares, counts and counts a second."""

RELATIONS: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "<=": lambda value, bound: value <= bound,
    ">=": lambda value, bound: value >= bound,
    "==": lambda value, bound: value == bound,
    "<": lambda value, bound: value < bound,
    ">": lambda value, bound: value > bound,
}
_FORM: Final = re.compile(
    r"\s*(?P<figure>[A-Za-z_][\w.-]*)\s*(?P<relation><=|>=|==|<|>)\s*(?P<number>[+-]?\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)"
    r"\s*(?P<unit>\S*)\s*"
)


class ObjectiveError(ConfigError):
    """An objective that cannot be judged; the text says what is wrong and the nearest right form."""

    reason = "BAD_OBJECTIVE"


@dataclass(slots=True, frozen=True)
class Objective:
    """One claim about one figure. `bound` is in the figure's own unit, `text` is what was written."""

    text: str
    figure: str
    relation: str
    bound: float
    unit: str = ""

    def judge(self, values: Sequence[float], level: float = LEVEL) -> "Judgement":
        """Hold the values of the figure, one for each replication that measured it, against the bound."""
        if not values:
            return Judgement(self, Interval(nan, nan, 0, level), Verdict.NOT_PRECISE)
        seen = interval(values, level)
        holds = RELATIONS[self.relation]
        if self.relation == "==":
            verdict = Verdict.MET if all(holds(value, self.bound) for value in values) else Verdict.MISSED
        else:
            ends = {holds(seen.low, self.bound), holds(seen.high, self.bound)}
            verdict = Verdict.NOT_PRECISE if len(ends) == 2 else Verdict.MET if ends == {True} else Verdict.MISSED
        return Judgement(self, seen, verdict)

    def shown(self, value: float) -> str:
        """A value of the figure in the unit that the objective is written in."""
        if not isfinite(value):
            return "never"
        if self.unit in SECONDS:
            return _time_text(value, SECONDS[self.unit])
        return f"{value / UNITS[self.unit]:.4g} {self.unit}".rstrip()


def _time_text(seconds: float, unit_s: float) -> str:
    """In the unit asked for, or in a smaller one where that would leave nothing but zeros."""
    fitting = [(name, size) for name, size in SECONDS.items() if size <= unit_s]
    name, size = next(
        ((name, size) for name, size in sorted(fitting, key=lambda pair: -pair[1]) if abs(seconds) >= 0.1 * size),
        next((name, size) for name, size in fitting if size == unit_s),
    )
    return f"{seconds / size:.4g} {name}"


@dataclass(slots=True, frozen=True)
class Judgement:
    """An objective beside what was seen."""

    objective: Objective
    seen: Interval
    verdict: Verdict

    @property
    def margin(self) -> float | None:
        """How far the mean is inside the bound, as a share of the bound; negative outside. None for equality, or 0."""
        objective = self.objective
        if objective.relation == "==" or objective.bound == 0:
            return None
        if not isfinite(self.seen.mean):
            return None
        inside = objective.bound - self.seen.mean
        return (inside if objective.relation.startswith("<") else -inside) / abs(objective.bound)

    def __str__(self) -> str:
        return f"{self.fact}: {self.verdict}"

    @property
    def fact(self) -> str:
        """What was seen beside what was asked."""
        objective, seen = self.objective, self.seen
        if not seen.n:
            asked = objective.text.removeprefix(objective.figure).strip()
            return f"{objective.figure} was not measured: it never happened, asked {asked}"
        words = f"{objective.figure} is {objective.shown(seen.mean)}"
        if not isfinite(seen.mean) and {"latency", "wait"} & set(objective.figure.split(".")):
            words += " (some jobs were not over when the run was)"
        elif seen.n == 1 and objective.relation != "==":
            words += " in one replication"
        elif seen.half_width and isfinite(seen.half_width):
            words += f" ({objective.shown(seen.low)} to {objective.shown(seen.high)})"
        return f"{words}, asked {objective.text.removeprefix(objective.figure).strip()}"

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "objective": self.objective.text,
            "figure": self.objective.figure,
            "value": self.seen.mean if isfinite(self.seen.mean) else None,
            "half_width": self.seen.half_width if isfinite(self.seen.half_width) else None,
            "n": self.seen.n,
            "bound": self.objective.bound,
            "margin": self.margin,
            "verdict": str(self.verdict),
        }


def parse(text: str) -> Objective:
    """Read `figure < number unit`.

    Raises:
        ObjectiveError: it is not of this form, or its unit is not known.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise ObjectiveError(
            f"objective {text!r} is not of the form FIGURE RELATION NUMBER [UNIT], such as 'orders.latency.p99 < 2 s'; "
            f"relations are {', '.join(RELATIONS)}"
        )
    unit = found["unit"]
    if unit not in UNITS:
        raise ObjectiveError(f"objective {text!r}: unit `{unit}` is not known; {nearest(unit, UNITS)}")
    if unit not in SECONDS and unit_of(found["figure"]) == "s" and float(found["number"]):
        raise ObjectiveError(f"objective {text!r}: this is a time; its bound has a unit, such as {found['number']} s")
    bound = float(found["number"]) * UNITS[unit]
    return Objective(" ".join(text.split()), found["figure"], found["relation"], bound, unit)


def check_names(objectives: Sequence[Objective], figures: Collection[str]) -> None:
    """Refuse objectives about figures that the scenario does not have.

    Raises:
        ObjectiveError: with the nearest figure that there is.
    """
    for objective in objectives:
        if objective.figure not in figures:
            raise ObjectiveError(
                f"objective {objective.text!r} names nothing: there is no figure "
                f"`{objective.figure}`; {nearest(objective.figure, figures)}"
            )


def undecided(judgements: Sequence[Judgement]) -> list[Judgement]:
    """The same with nothing decided: what was seen is not what was asked about."""
    return [replace(judgement, verdict=Verdict.NOT_PRECISE) for judgement in judgements]


def verdict_sentence(judgements: Sequence[Judgement], instability: str = "", *, partial: bool = False) -> str:
    """The answer in one sentence, what is wrong first."""
    if instability:
        return instability
    worst = _worst(judgements)
    chosen = [judgement for judgement in judgements if judgement.verdict == worst]
    opening = "Interrupted, from what was finished: " if partial else ""
    if not judgements:
        return f"{opening}No objectives were asked for."
    if worst == Verdict.MET:
        tightest = min(chosen, key=lambda judgement: _or_infinite(judgement.margin))
        if len(chosen) > 1:
            return f"{opening}All {len(chosen)} objectives are met; the tightest: {tightest.fact}."
        return f"{opening}The objective is met: {tightest.fact}."
    what = "Missed" if worst == Verdict.MISSED else "Not precise enough for a verdict"
    return f"{opening}{what}: {'; '.join(judgement.fact for judgement in chosen)}."


def exit_code(judgements: Sequence[Judgement], *, unstable: bool = False, partial: bool = False) -> Exit:
    """What the command returns. Partial results that miss nothing are not precise enough: they were cut short."""
    worst = _worst(judgements)
    if unstable or worst == Verdict.MISSED:
        return Exit.MISSED
    if partial or worst == Verdict.NOT_PRECISE:
        return Exit.NOT_PRECISE
    return Exit.MET


def _worst(judgements: Sequence[Judgement]) -> Verdict:
    verdicts = {judgement.verdict for judgement in judgements}
    return next(
        verdict for verdict in (Verdict.MISSED, Verdict.NOT_PRECISE, Verdict.MET) if verdict in verdicts | {Verdict.MET}
    )


def _or_infinite(margin: float | None) -> float:
    return float("inf") if margin is None else margin
