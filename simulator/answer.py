"""The answer to one scenario: as many replications as it takes, what they say together, and whether that is enough.

A scenario that never changes (no scripted faults, no day, no calendar) and does not say how long it settles is looked
at first, for how long it takes to forget its empty start (`simulator.settling`). One that has a beginning and an end
by nature settles as long as it says, and nothing of its window is left out.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from simulator.detail import Detail
from simulator.experiments import Laboratory, Plan, Progress, Question, Series, interval_of
from simulator.objectives import Exit, Judgement, exit_code, verdict_sentence
from simulator.scenario import Scenario
from simulator.settling import NEVER_SETTLES, WarmUp, left_out, look
from simulator.statistics import Interval


@dataclass(frozen=True)
class Answer:
    """The replications of a scenario, and what follows from them."""

    scenario: Scenario
    series: Series
    plan: Plan
    warm_up: WarmUp | None = None

    @property
    def instability(self) -> str:
        """Why nothing is averaged; empty when all is well."""
        growth = self.series.growth
        return str(growth) if growth.is_unstable else ""

    @property
    def has_settled(self) -> bool:
        """Whether its empty start was forgotten before figures were taken, as far as anybody looked."""
        return self.warm_up is None or self.warm_up.has_settled

    @cached_property
    def judgements(self) -> list[Judgement]:
        """Each objective beside its figure; none when the backlog grows."""
        return [] if self.instability else self.series.judge(self.plan.objectives)

    @cached_property
    def figures(self) -> Mapping[str, Interval]:
        """Every figure of the whole with its interval; none when the backlog grows."""
        return {} if self.instability else self.series.intervals()

    @property
    def details(self) -> list[Detail]:
        """One for each replication."""
        return [outcome.detail for outcome in self.series.outcomes if outcome.detail is not None]

    @cached_property
    def phases(self) -> Sequence[tuple[str, float, float, Mapping[str, Interval]]]:
        """(name, from, to in seconds, its figures with intervals); none when the backlog grows."""
        if self.instability or not self.details:
            return []
        rows: list[tuple[str, float, float, Mapping[str, Interval]]] = []
        for parts in zip(*(detail.phases for detail in self.details), strict=True):
            seen = {name: interval_of(name, [part.figures for part in parts]) for name in parts[0].figures}
            rows.append((parts[0].name, parts[0].from_s, parts[0].to_s, seen))
        return rows

    @property
    def digest(self) -> str:
        """Of the digests of all replications, in their order."""
        return hashlib.blake2b(
            "\n".join(outcome.digest for outcome in self.series.outcomes).encode(), digest_size=16
        ).hexdigest()

    @property
    def lost(self) -> int:
        """Jobs that vanished in any replication."""
        return round(sum(self.series.values("lost")))

    @property
    def verdict(self) -> str:
        """The answer in one sentence."""
        if not self.instability and not self.has_settled:
            return NEVER_SETTLES
        return verdict_sentence(self.judgements, self.instability, partial=self.series.partial)

    @property
    def code(self) -> Exit:
        """What the command returns."""
        code = exit_code(self.judgements, unstable=bool(self.instability), partial=self.series.partial)
        return code if self.instability or self.has_settled else Exit.NOT_PRECISE


def answer(laboratory: Laboratory, question: Question, plan: Plan, progress: Progress) -> Answer:
    """Find out. The scenario of the question is a `Scenario`, its changes are applied here.

    Raises:
        ChangeError: a change names nothing, or gives a value that does not fit.
        ObjectiveError: an objective names nothing.
        KeyboardInterrupt: interrupted before one replication was finished.
    """
    scenario = question.scenario
    assert isinstance(scenario, Scenario)
    found = look(laboratory, question, plan, progress)
    scenario = scenario.changed(left_out(question, found))
    series = laboratory.replicate(Question(scenario, question.seed), plan, progress)
    return Answer(scenario, replace(series, has_settled=found is None or found.has_settled), plan, found)
