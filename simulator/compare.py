"""Two scenarios on the same days, figure by figure: what changes, and whether it is more than chance.

The difference is taken day by day (paired), so that what both share, the arrivals and the work, falls out of it.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from math import isfinite, nan

from simulator.experiments import Laboratory, Plan, Progress, Question, Series
from simulator.measured import is_measured, unit_of
from simulator.settling import WarmUp, left_out, look
from simulator.sheet import shown
from simulator.statistics import LEVEL, Interval, difference, paired


@dataclass(slots=True, frozen=True)
class Difference:
    """One figure in both, and the interval of second minus first."""

    figure: str
    first: Interval
    second: Interval
    difference: Interval

    @property
    def is_clear(self) -> bool:
        """Whether the difference is more than chance: its interval leaves out 0.

        Where some days are infinite and others are not there is no interval, and so nothing is clear.
        """
        return isfinite(self.difference.half_width) and not self.difference.holds(0.0)

    @property
    def share(self) -> float | None:
        """The difference as a share of the first; None where the first is 0, or either is infinite."""
        is_number = isfinite(self.first.mean) and isfinite(self.difference.mean)
        return self.difference.mean / abs(self.first.mean) if self.first.mean and is_number else None

    def shown(self, value: float, digits: int = 4) -> str:
        """A value of the figure, with its unit."""
        return shown(value, unit_of(self.figure), digits)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        return {
            "first": self.first.mean,
            "second": self.second.mean,
            "difference": self.difference.mean,
            "half_width": self.difference.half_width if self.difference.n > 1 else None,
            "n": self.difference.n,
            "share": self.share,
            "clear": self.is_clear,
        }


@dataclass(slots=True, frozen=True)
class Comparison:
    """Two series of the same length on the same days."""

    first: Series
    second: Series

    @property
    def partial(self) -> bool:
        """Whether somebody interrupted it."""
        return self.first.partial or self.second.partial

    @property
    def has_settled(self) -> bool:
        """Whether both had forgotten their empty start."""
        return self.first.has_settled and self.second.has_settled

    def differences(self, level: float = LEVEL) -> list[Difference]:
        """Of every figure that both have, over the days that both have.

        Raises:
            UnstableError: the backlog of one of them grows.
        """
        shared = self.second.intervals(level).keys()
        return [self._difference(name, level) for name in self.first.intervals(level) if name in shared]

    def by_day(self) -> dict[str, list[float]]:
        """Second minus first for each figure that both have, one for each day."""
        shared = [name for name in self.first.outcomes[0].figures if name in self.second.outcomes[0].figures]
        pairs = list(zip(self.first.outcomes, self.second.outcomes, strict=False))
        return {
            name: [
                difference(before.figures[name], after.figures[name])
                for before, after in pairs
                if name in before.figures and name in after.figures
            ]
            for name in shared
        }

    def _difference(self, name: str, level: float) -> Difference:
        days = [
            (one.figures[name], other.figures[name])
            for one, other in zip(self.first.outcomes, self.second.outcomes, strict=False)
            if is_measured(name, one.figures) and is_measured(name, other.figures)
        ]
        before, after = [day[0] for day in days], [day[1] for day in days]
        change = paired(before, after, level) if days else Interval(nan, nan, 0, level)
        return Difference(name, self.first.interval(name, level), self.second.interval(name, level), change)


def compare(
    laboratory: Laboratory,
    first: Question,
    second: Question,
    plan: Plan,
    progress: Progress = lambda done, started: None,
) -> Comparison:
    """Replicate the first as the plan says, and the second as often.

    Raises:
        ValueError: the questions have different seeds: nothing would be paired.
        KeyboardInterrupt: interrupted before both had one replication.
    """
    if first.seed != second.seed:
        raise ValueError(f"paired days need one seed, not {first.seed} and {second.seed}")
    found = _look(laboratory, first, second, plan, progress)
    has_settled = found is None or found.has_settled
    before = laboratory.replicate(Question(first.scenario, first.seed, left_out(first, found)), plan, progress)
    if before.partial:
        raise KeyboardInterrupt
    again = Plan(len(before.outcomes), plan.objectives, plan.rule)
    after = laboratory.replicate(Question(second.scenario, second.seed, left_out(second, found)), again, progress)
    return Comparison(replace(before, has_settled=has_settled), replace(after, has_settled=has_settled))


def _look(laboratory: Laboratory, first: Question, second: Question, plan: Plan, progress: Progress) -> WarmUp | None:
    """The longer warm-up of the two, so that one window is compared; None unless both may have one."""
    found = [one for question in (first, second) if (one := look(laboratory, question, plan, progress)) is not None]
    if len(found) < 2:
        return None
    longer = max(found, key=lambda one: one.seconds)
    return replace(longer, has_settled=all(one.has_settled for one in found))


def sentence(differences: list[Difference], first: str, second: str, asked: Collection[str] = ()) -> str:
    """What the comparison says, in one sentence: first of the figures that somebody asked about, then the largest."""
    clear = [difference for difference in differences if difference.is_clear]
    if not clear:
        return f"{second} does not differ from {first} in any figure by more than chance."
    clear.sort(key=lambda difference: (difference.figure not in asked, -abs(difference.share or 0.0)))
    words = ", ".join(
        f"{difference.figure} {difference.shown(difference.first.mean)} -> {difference.shown(difference.second.mean)}"
        + (f" ({difference.share:+.1%})" if difference.share is not None else "")
        for difference in clear[:3]
    )
    return f"{second} differs from {first} in {len(clear)} of {len(differences)} figures, such as {words}."
