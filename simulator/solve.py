"""The smallest fleet that meets the objectives.

Starts where Erlang's C formula would, steps up or down until one size is met and a smaller one is not, and halves the
gap in between. The answer is a size that was simulated and met, whose neighbour was simulated and not met; both are in
the result. Sizes are multiples of the zones (`equal`) or anything (`any`).

A size has to be judged, not measured: its replications end as soon as every objective is clearly met or missed. Chance
that is known is taken out of the figures first (`simulator.controls`), where the world says what it was. A size whose
slots are no more than the work that arrives has no steady state, however long one looks: two replications are its
record, not its judge.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import floor
from typing import Final, NamedTuple

from pydantic import BaseModel

from broker.errors import ConfigError
from simulator import controls
from simulator.drawn import rate_of, zones_gone
from simulator.erlang import agents_for, servers_for
from simulator.experiments import ROUND_OF_UNKNOWN, Laboratory, Outcome, Plan, Question, Series
from simulator.objectives import RELATIONS, Judgement, Objective, Verdict, undecided
from simulator.scenario import Scenario
from simulator.settling import NEVER_SETTLES, left_out, look
from simulator.statistics import Interval, StoppingRule, controlled
from simulator.streams import mean_s

AGENTS_MAX: Final = 10_000
CONTROLS: Final = ("control.neighbour.tail.p99", "control.one-server")
"""The first of these that there is takes chance out of a figure: one, because replications are few."""


class SolveError(ConfigError):
    """There is no answer; the text says why."""

    reason = "NO_ANSWER"


class Sizes(NamedTuple):
    """What is varied: `key` of the scenario, in steps, from a first guess; up to `full` there is no spare slot."""

    key: str
    guess: int
    step: int = 1
    most: int = AGENTS_MAX
    full: int = 0


def sizes_of(scenario: Scenario, name: str, objectives: Sequence[Objective], *, equal: bool) -> Sizes:
    """What is varied, and Erlang's guess: as many slots as the arrivals need, and the zones that are gone throughout.

    Raises:
        ConfigError: the group has several pools, so that it is not said which is to grow.
    """
    group = scenario.groups[name]
    if len(group.agents) != 1:
        raise ConfigError(f"group `{name}` has {len(group.agents)} pools; `solve` sizes a group of equal agents")
    pool = group.agents[0]
    works = [
        (rate_of(work.arrivals) or 0.0, mean_s(work.duration) / pool.speed)
        for work in scenario.work.values()
        if work.group == name
    ]
    rate, load = sum(rate for rate, _ in works), sum(rate * mean for rate, mean in works)
    mean = load / rate if rate else 1.0
    limit = next((one for one in objectives if one.figure.endswith("latency.p99") and one.relation[0] == "<"), None)
    zones = len(set(pool.spread))
    lost = min(len(zones_gone(scenario) & set(pool.spread)), zones - 1)

    def agents(servers: int) -> int:
        return agents_for(servers, pool.slots, zones, lost, equal=equal)

    guess = agents(servers_for(rate, mean, limit.bound if limit else 5 * mean, 0.99))
    return Sizes(f"groups.{name}.agents.count", guess, zones if equal else 1, full=agents(floor(load + 1e-9) + 1) - 1)


@dataclass(slots=True, frozen=True)
class Decided(StoppingRule):
    """Enough is when every objective is clearly met or missed, and stays so: a size has to be judged, not measured."""

    precision: float = 0.0
    at_least: int = 3
    at_most: int = 40
    stays: int = 1


@dataclass(slots=True, frozen=True)
class DecidedPlan(Plan):
    """Replications until `Decided`; no more than the first two of a size that is not judged by them."""

    rule: StoppingRule = field(default_factory=Decided)
    expected: Mapping[str, float] = field(default_factory=dict)
    """Controls that outcomes may have, and what they should be."""
    is_judged: bool = True

    def is_enough(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether the verdicts are clear, and were after each of the last few replications."""
        n = len(outcomes)
        if not self.is_judged:
            return n >= ROUND_OF_UNKNOWN
        if n < self.rule.at_least + self.rule.stays:
            return False
        return n >= self.rule.at_most or all(
            self._is_decided(outcomes[: n - back]) for back in range(self.rule.stays + 1)
        )

    def _is_decided(self, outcomes: Sequence[Outcome]) -> bool:
        verdicts = {judgement.verdict for judgement in self.judge(outcomes)}
        return Verdict.MISSED in verdicts or Verdict.NOT_PRECISE not in verdicts

    def judge(self, outcomes: Sequence[Outcome]) -> list[Judgement]:
        """Each objective beside its figure, freed of the chance that is known."""
        return [self._judged(objective, outcomes) for objective in self.objectives]

    def _judged(self, objective: Objective, outcomes: Sequence[Outcome]) -> Judgement:
        values = [outcome.figures[objective.figure] for outcome in outcomes]
        name = next((name for name in CONTROLS if name in self.expected and name in outcomes[0].figures), None)
        if name is None or objective.relation == "==":
            return objective.judge(values)
        column = [outcome.figures[name] for outcome in outcomes]
        seen = controlled(values, [column], [self.expected[name]])
        holds = RELATIONS[objective.relation]
        ends = {holds(seen.low, objective.bound), holds(seen.high, objective.bound)}
        verdict = Verdict.NOT_PRECISE if len(ends) == 2 else Verdict.MET if ends == {True} else Verdict.MISSED
        return Judgement(objective, seen, verdict)


@dataclass(slots=True, frozen=True)
class Evaluation:
    """One size: what was seen, and whether it will do."""

    agents: int
    series: Series
    judgements: tuple[Judgement, ...]
    is_full: bool = False
    """Whether the work that arrives leaves no slot spare."""

    @property
    def is_unstable(self) -> bool:
        """Whether there is no steady state, and so are no figures."""
        return not self.judgements

    @property
    def instability(self) -> str:
        """Why there is none."""
        return "UNSTABLE: the work that arrives leaves no slot spare" if self.is_full else str(self.series.growth)

    @property
    def why(self) -> str:
        """Why it cannot be judged; empty when it can."""
        if self.is_unstable:
            return self.instability
        return "" if self.series.has_settled else NEVER_SETTLES

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
    known: dict[int, "Evaluation"] | None = None,
    progress: Callable[[int, int, int], None] = lambda agents, done, started: None,
) -> Solution:
    """Find the smallest size; `progress` hears the size, and replications done and started of it.

    `known` are sizes that were evaluated before, with the same scenario and seed; new ones are added.

    Raises:
        SolveError: there is no objective, or no size up to the bound meets them.
        ObjectiveError: an objective names nothing.
        KeyboardInterrupt: an interrupted search has no answer; what it simulated is filed.
    """
    if not objectives:
        raise SolveError("the scenario has no objectives: there is nothing that a fleet could be too small for")
    plan = DecidedPlan(objectives=tuple(objectives), rule=rule or Decided())
    search = _Search(laboratory, scenario, sizes, plan, seed, progress, {} if known is None else known)
    agents, missed = search.bracket()
    while agents - missed > sizes.step:
        middle = missed + (agents - missed) // sizes.step // 2 * sizes.step
        agents, missed = (middle, missed) if search.evaluate(middle).is_met else (agents, middle)
    neighbour = search.evaluate(missed) if missed else None
    return Solution(agents, neighbour, tuple(search.looked_at.values()))


@dataclass(slots=True)
class _Search:
    laboratory: Laboratory
    scenario: BaseModel
    sizes: Sizes
    plan: DecidedPlan
    seed: int
    progress: Callable[[int, int, int], None]
    evaluations: dict[int, Evaluation]
    looked_at: dict[int, Evaluation] = field(default_factory=dict)

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
            self.evaluations[agents] = self._evaluated(agents)
        self.looked_at[agents] = self.evaluations[agents]
        return self.evaluations[agents]

    def _evaluated(self, agents: int) -> Evaluation:
        def progress(done: int, started: int) -> None:
            self.progress(agents, done, started)

        is_full = agents <= self.sizes.full
        question = Question(self.scenario, self.seed, {self.sizes.key: agents})
        found = None if is_full else look(self.laboratory, question, self.plan, progress)
        has_settled = found is None or found.has_settled
        changes = left_out(question, found)
        plan = replace(self.plan, expected=self._expected(changes), is_judged=has_settled and not is_full)
        series = self.laboratory.replicate(Question(self.scenario, self.seed, changes), plan, progress)
        if series.partial:
            raise KeyboardInterrupt
        series = replace(series, has_settled=has_settled)
        is_unstable = is_full or series.growth.is_unstable
        judged = [] if is_unstable else plan.judge(series.outcomes)
        return Evaluation(agents, series, tuple(judged if has_settled else undecided(judged)), is_full)

    def _expected(self, changes: Mapping[str, object]) -> dict[str, float]:
        return controls.expected(self.scenario.changed(changes)) if isinstance(self.scenario, Scenario) else {}

    def _why(self, agents: int) -> str:
        evaluation = self.evaluations[agents]
        return evaluation.why or "; ".join(
            str(found) for found in evaluation.judgements if found.verdict != Verdict.MET
        )
