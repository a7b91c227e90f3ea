"""Replications of a scenario: how many, on which days, and what may be said of them.

Replication 3 of seed 7 is the same day for every scenario, fleet and policy (common random numbers), so scenarios are
compared day by day. Results are filed as they come: what was interrupted goes on where it stopped, and Ctrl-C keeps
what there is and says that it is partial.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from math import nan
from typing import Any, Final, NamedTuple, Protocol, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from broker.errors import MeshError
from simulator.backends import Backend, Serial
from simulator.cache import ResultCache, key_of
from simulator.detail import Detail, detail_of
from simulator.measured import measured
from simulator.objectives import Judgement, Objective, check_names, undecided
from simulator.statistics import LEVEL, Growth, Interval, StoppingRule, growth_of, interval

Given = TypeVar("Given")

ROUND_OF_UNKNOWN: Final = 2
"""Replications in the first round: enough to see that a name is wrong."""
UNSTABLE_FROM: Final = 3
"""Replications before a series is ended because its backlog grows: two that agree may have met the same burst."""


class UnstableError(MeshError):
    """The backlog grows for as long as one looks: no mean, no percentile says anything about it."""

    reason = "UNSTABLE"


class Run(Protocol):
    """What is used here of what `simulator.world.simulate` returns."""

    @property
    def digest(self) -> str: ...
    @property
    def figures(self) -> Mapping[str, float]: ...
    @property
    def jobs(self) -> int: ...
    @property
    def simulated_s(self) -> float: ...
    @property
    def growth_per_s(self) -> float: ...


class Simulate(Protocol):
    """A world: `simulator.world.simulate`. A module's own function, so that other processes can import it."""

    # Any: each world takes its own kind of scenario, and gets the one that it was made for.
    def __call__(self, scenario: Any, /, *, seed: int, replication: int, changes: Mapping[str, object]) -> Run: ...


@dataclass(slots=True, frozen=True)
class Outcome:
    """What is kept of one replication."""

    digest: str
    figures: dict[str, float]
    jobs: int
    simulated_s: float
    growth_per_s: float
    detail: Detail | None = None
    """None where a world has none, or nobody asked for it."""


_OUTCOME: Final = TypeAdapter(Outcome)


@dataclass(slots=True, frozen=True)
class Question:
    """One scenario with changes (`groups.erp.agents.count: 20`), on the days of one seed."""

    scenario: BaseModel
    seed: int = 1
    changes: Mapping[str, object] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Plan:
    """How many replications: as many as said, or (0) as many as `rule` wants for the `objectives`."""

    replications: int = 0
    objectives: Sequence[Objective] = ()
    rule: StoppingRule = field(default_factory=lambda: StoppingRule(0.05))
    stops_unstable: bool = True
    """Whether a backlog that is seen to grow ends the series, when the number of replications is open."""

    def is_enough(self, outcomes: Sequence[Outcome]) -> bool:
        """Whether these outcomes, in the order of their replications, will do."""
        if self.replications:
            return len(outcomes) >= self.replications
        if len(outcomes) < self.rule.at_least:
            return False
        return self.rule.is_enough(
            [
                ([outcome.figures[objective.figure] for outcome in outcomes], objective.bound)
                for objective in self.objectives
            ]
        )

    def next_round(self, done: int, at_once: int) -> int:
        """How many to start now that `done` are there."""
        if done == 0:
            return min(self.replications or ROUND_OF_UNKNOWN, max(ROUND_OF_UNKNOWN, at_once))
        if self.replications:
            return self.replications - done
        first = self.rule.at_least + (self.rule.stays if self.objectives else 0)
        return min(max(first - done, at_once), self.rule.at_most - done)


@dataclass(slots=True, frozen=True)
class Series:
    """The replications of one question. `partial` says that somebody interrupted them; `cached` were not run anew.

    Without `has_settled` what is averaged is the start as well, and no objective is decided by it.
    """

    question: Question
    outcomes: tuple[Outcome, ...]
    partial: bool = False
    cached: int = 0
    has_settled: bool = True

    @property
    def growth(self) -> Growth:
        """How fast the backlog grew."""
        return _growth(self.outcomes)

    @property
    def jobs(self) -> int:
        """Jobs simulated in all replications."""
        return sum(outcome.jobs for outcome in self.outcomes)

    def values(self, figure: str) -> list[float]:
        """The values of a figure, one for each replication.

        Raises:
            KeyError: there is no such figure.
        """
        return [outcome.figures[figure] for outcome in self.outcomes]

    def interval(self, figure: str, level: float = LEVEL) -> Interval:
        """The interval of a figure over the replications that measured it, stable or not."""
        return interval_of(figure, [outcome.figures for outcome in self.outcomes], level)

    def intervals(self, level: float = LEVEL) -> dict[str, Interval]:
        """The interval of every figure that all replications have.

        Raises:
            UnstableError: the backlog grows, so there is nothing to average.
        """
        self.refuse_unstable()
        shared = [name for name in self.outcomes[0].figures if all(name in other.figures for other in self.outcomes)]
        return {name: self.interval(name, level) for name in shared}

    def judge(self, objectives: Sequence[Objective], level: float = LEVEL) -> list[Judgement]:
        """Each objective beside its figure.

        Raises:
            UnstableError: the backlog grows.
            ObjectiveError: an objective names nothing.
        """
        self.refuse_unstable()
        check_names(objectives, self.outcomes[0].figures)
        runs = [outcome.figures for outcome in self.outcomes]
        found = [objective.judge(measured(objective.figure, runs), level) for objective in objectives]
        return found if self.has_settled else undecided(found)

    def refuse_unstable(self) -> None:
        """Raise UnstableError if the backlog grows."""
        growth = self.growth
        if growth.is_unstable:
            raise UnstableError(str(growth))


def interval_of(figure: str, runs: Sequence[Mapping[str, float]], level: float = LEVEL) -> Interval:
    """The interval of a figure over the runs that measured it; where none did it is of no number, and its `n` is 0."""
    values = measured(figure, runs)
    return interval(values, level) if values else Interval(nan, nan, 0, level)


def _growth(outcomes: Sequence[Outcome]) -> Growth:
    return growth_of([(outcome.growth_per_s, outcome.jobs, outcome.simulated_s) for outcome in outcomes])


class _Task(NamedTuple):
    simulate: Simulate
    question: Question
    replication: int
    in_depth: bool


def _play(task: _Task) -> Outcome:
    question = task.question
    run = task.simulate(question.scenario, seed=question.seed, replication=task.replication, changes=question.changes)
    detail = detail_of(run) if task.in_depth else None
    return Outcome(run.digest, dict(run.figures), run.jobs, run.simulated_s, run.growth_per_s, detail)


@contextmanager
def _ending(generator: Generator[Given, None, None]) -> Iterator[Generator[Given, None, None]]:
    """Close it in the end. Ctrl-C is told to it wherever it came, so that it stops what it has begun."""
    with closing(generator):
        try:
            yield generator
        except KeyboardInterrupt as interrupt:
            generator.throw(interrupt)
            raise


Progress = Callable[[int, int], None]
"""Called after each replication with how many are done and how many are started or done."""


class Laboratory:
    """Runs replications of a world on a backend, and remembers them in a cache if it has one.

    With `in_depth` outcomes have their detail: some ten kilobytes each, for what is drawn of one question.
    """

    def __init__(
        self,
        simulate: Simulate,
        backend: Backend | None = None,
        cache: ResultCache | None = None,
        *,
        in_depth: bool = False,
    ) -> None:
        self._simulate = simulate
        self._backend = backend or Serial()
        self._cache = cache
        self._in_depth = in_depth

    def in_depth(self) -> "Laboratory":
        """The same place, for replications of the real world with their detail."""
        from simulator.world import simulate

        return Laboratory(simulate, self._backend, self._cache, in_depth=True)

    def replicate(self, question: Question, plan: Plan, progress: Progress = lambda done, started: None) -> Series:
        """Replications 0, 1, 2 ... until the plan has enough, or the backlog is seen to grow without end.

        The answer depends on neither the backend nor the cache. Ctrl-C gives a partial series.

        Raises:
            ObjectiveError: an objective of the plan names nothing; known after the first replication.
            KeyboardInterrupt: interrupted before one replication was finished.
        """
        outcomes: list[Outcome] = []
        cached = 0
        try:
            while not self._is_over(plan, outcomes):
                wanted = range(len(outcomes), len(outcomes) + plan.next_round(len(outcomes), self._backend.at_once))
                with _ending(self._round(question, wanted)) as results:
                    for outcome, was_cached in results:
                        if not outcomes:
                            check_names(plan.objectives, outcome.figures)
                        outcomes.append(outcome)
                        cached += was_cached
                        progress(len(outcomes), wanted.stop)
                        if self._is_over(plan, outcomes):
                            break
        except KeyboardInterrupt:
            if not outcomes:
                raise
            return Series(question, tuple(outcomes), partial=True, cached=cached)
        return Series(question, tuple(outcomes), cached=cached)

    def _is_over(self, plan: Plan, outcomes: Sequence[Outcome]) -> bool:
        if plan.is_enough(outcomes):
            return True
        if plan.replications or not plan.stops_unstable or len(outcomes) < UNSTABLE_FROM:
            return False
        return _growth(outcomes).is_unstable

    def _round(self, question: Question, wanted: range) -> Generator[tuple[Outcome, bool], None, None]:
        """Outcomes in order, and whether each came out of the cache. The rest is filed as it comes."""
        known = {number: found for number in wanted if (found := self._known(question, number)) is not None}
        missing = [number for number in wanted if number not in known]
        tasks = [_Task(self._simulate, question, number, self._in_depth) for number in missing]
        with _ending(self._backend.play(_play, tasks)) as played:
            for number in wanted:
                if number in known:
                    yield known[number], True
                else:
                    outcome = next(played)
                    self._file(question, number, outcome)
                    yield outcome, False

    def _known(self, question: Question, number: int) -> Outcome | None:
        document = self._cache.get(self._key(question, number)) if self._cache else None
        try:
            return _OUTCOME.validate_python(document) if document else None
        except ValidationError:
            return None  # not a document of ours

    def _file(self, question: Question, number: int, outcome: Outcome) -> None:
        if self._cache:
            with suppress(OSError):  # a full or read-only disk costs time later, not the answer now
                self._cache.put(self._key(question, number), asdict(outcome))

    def _key(self, question: Question, number: int) -> str:
        simulate = f"{getattr(self._simulate, '__module__', '')}.{getattr(self._simulate, '__qualname__', '')}"
        asked = f"{simulate}\0{'in depth' * self._in_depth}\0{question.scenario.model_dump_json()}"
        return key_of(asked, question.changes, question.seed, number)
