"""The smallest fleet that meets the objectives.

Starts where Erlang's C formula would, steps up or down until one size is met and a smaller one is not, and halves the
gap in between. The answer is a size that was simulated and met, whose neighbour was simulated and not met; both are in
the result. Sizes are multiples of the zones (`equal`) or anything (`any`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from pydantic import BaseModel

from broker.errors import ConfigError
from simulator.experiments import Laboratory, Outcome, Plan, Question, Series
from simulator.objectives import Judgement, Objective, Verdict
from simulator.statistics import Interval, StoppingRule

AGENTS_MAX: Final = 10_000


class SolveError(ConfigError):
    """There is no answer; the text says why."""

    reason = "NO_ANSWER"


class Sizes(NamedTuple):
    """What is varied: `key` of the scenario, in steps, from a first guess."""

    key: str
    guess: int
    step: int = 1
    most: int = AGENTS_MAX


@dataclass(slots=True, frozen=True)
class Decided(StoppingRule):
    """Enough is when every objective is clearly met or missed, and stays so: a size has to be judged, not measured."""

    precision: float = 0.0
    at_least: int = 3
    at_most: int = 40
    stays: int = 1


@dataclass(slots=True, frozen=True)
class DecidedPlan(Plan):
    """Replications until `Decided`."""

    rule: StoppingRule = field(default_factory=Decided)

    def is_enough(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether the verdicts are clear, and were after each of the last few replications."""
        n = len(outcomes)
        if n < self.rule.at_least + self.rule.stays:
            return False
        return n >= self.rule.at_most or all(
            self._is_decided(outcomes[: n - back]) for back in range(self.rule.stays + 1)
        )

    def _is_decided(self, outcomes: Sequence[Outcome]) -> bool:
        verdicts = {
            objective.judge([outcome.figures[objective.figure] for outcome in outcomes]).verdict
            for objective in self.objectives
        }
        return Verdict.MISSED in verdicts or Verdict.NOT_PRECISE not in verdicts


@dataclass(slots=True, frozen=True)
class Evaluation:
    """One size: what was seen, and whether it will do."""

    agents: int
    series: Series
    judgements: tuple[Judgement, ...]

    @property
    def is_unstable(self) -> bool:
        """Whether the backlog grew, and there are no figures."""
        return not self.judgements

    @property
    def is_met(self) -> bool:
        """Whether every objective is met beyond doubt."""
        return bool(self.judgements) and all(judgement.verdict == Verdict.MET for judgement in self.judgements)

    @property
    def p99(self) -> Interval | None:
        """The first objective about a 99th percentile."""
        return next((found.seen for found in self.judgements if found.objective.figure.endswith(".p99")), None)

    def as_json(self) -> dict[str, object]:
        """For `--json`."""
        p99 = self.p99
        return {
            "n": self.agents,
            "p99_s": p99.mean if p99 else None,
            "half_width": p99.half_width if p99 else None,
            "met": self.is_met,
            "unstable": self.is_unstable,
            "replications": len(self.series.outcomes),
            "objectives": [judgement.as_json() for judgement in self.judgements],
        }


@dataclass(slots=True, frozen=True)
class Solution:
    """The smallest size that was met, and the next smaller one, which was not (None: the answer is the first step)."""

    agents: int
    neighbour: Evaluation | None
    evaluated: tuple[Evaluation, ...]

    @property
    def jobs(self) -> int:
        """Jobs simulated for the answer."""
        return sum(evaluation.series.jobs for evaluation in self.evaluated)


def solve(
    laboratory: Laboratory,
    scenario: BaseModel,
    sizes: Sizes,
    objectives: Sequence[Objective],
    *,
    seed: int,
    rule: Decided | None = None,
    progress: Callable[[int, int, int], None] = lambda agents, done, started: None,
) -> Solution:
    """Find the smallest size; `progress` hears the size, and replications done and started of it.

    Raises:
        SolveError: there is no objective, or no size up to the bound meets them.
        ObjectiveError: an objective names nothing.
        KeyboardInterrupt: an interrupted search has no answer; what it simulated is filed.
    """
    if not objectives:
        raise SolveError("the scenario has no objectives: there is nothing that a fleet could be too small for")
    plan = DecidedPlan(objectives=tuple(objectives), rule=rule or Decided())
    search = _Search(laboratory, scenario, sizes, plan, seed, progress)
    agents, missed = search.bracket()
    while agents - missed > sizes.step:
        middle = missed + (agents - missed) // sizes.step // 2 * sizes.step
        agents, missed = (middle, missed) if search.evaluate(middle).is_met else (agents, middle)
    neighbour = search.evaluate(missed) if missed else None
    return Solution(agents, neighbour, tuple(search.evaluations.values()))


@dataclass(slots=True)
class _Search:
    laboratory: Laboratory
    scenario: BaseModel
    sizes: Sizes
    plan: DecidedPlan
    seed: int
    progress: Callable[[int, int, int], None]
    evaluations: dict[int, Evaluation] = field(default_factory=dict)

    def bracket(self) -> tuple[int, int]:
        """A size that is met, and a smaller one that is not (0: none is smaller)."""
        step = self.sizes.step
        at = max(step, -(-self.sizes.guess // step) * step)
        stride = step
        if self.evaluate(at).is_met:
            met = at
            while met > step:
                at = max(step, met - stride)
                if not self.evaluate(at).is_met:
                    return met, at
                met, stride = at, 2 * stride
            return met, 0
        while True:
            missed, at, stride = at, at + stride, 2 * stride
            if at > self.sizes.most:
                raise SolveError(f"no fleet up to {missed} agents meets the objectives: {self._why(missed)}")
            if self.evaluate(at).is_met:
                return at, missed

    def evaluate(self, agents: int) -> Evaluation:
        """Simulate a size, once."""
        if agents not in self.evaluations:
            question = Question(self.scenario, self.seed, {self.sizes.key: agents})
            series = self.laboratory.replicate(
                question, self.plan, lambda done, started: self.progress(agents, done, started)
            )
            if series.partial:
                raise KeyboardInterrupt
            judgements = () if series.growth.is_unstable else tuple(series.judge(self.plan.objectives))
            self.evaluations[agents] = Evaluation(agents, series, judgements)
        return self.evaluations[agents]

    def _why(self, agents: int) -> str:
        evaluation = self.evaluations[agents]
        if evaluation.is_unstable:
            return str(evaluation.series.growth)
        return "; ".join(str(found) for found in evaluation.judgements if found.verdict != Verdict.MET)
