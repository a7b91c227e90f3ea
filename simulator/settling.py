"""How long a scenario that never changes takes to forget its empty start: pilot replications say, by MSER-5.

Every command that averages looks (`run`, `sweep`, `compare`, `solve`), so that all of them say the same of a scenario.
One that has a beginning and an end by nature, or says how long it settles, is left as it is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from simulator.experiments import Laboratory, Plan, Progress, Question
from simulator.incidents import Scripted
from simulator.scenario import Scenario
from simulator.statistics import warm_up

PILOTS: Final = 5
STEADY: Final = ("poisson", "even", "batch", "bursty", "closed")
"""Arrivals that are the same at any time."""
NEVER_SETTLES: Final = (
    "Not precise enough for a verdict: the run never settles within its first half; "
    "make `horizon.run` longer, or say with `horizon.settle` how long it takes."
)


@dataclass(slots=True, frozen=True)
class WarmUp:
    """What the pilots say: so many seconds are left out of the figures; without `has_settled` none would be enough."""

    seconds: float
    pilots: int
    has_settled: bool


def is_steady(scenario: Scenario) -> bool:
    """Whether it is the same at any time, its empty start aside."""
    scripted = any(isinstance(fault, Scripted) and fault.at < scenario.end_s for fault in scenario.faults)
    return not scripted and all(work.arrivals.kind in STEADY for work in scenario.work.values())


def look(laboratory: Laboratory, question: Question, plan: Plan, progress: Progress) -> WarmUp | None:
    """How long the pilots take to settle, by the number of jobs in the system over time, averaged over the pilots.

    None where nothing is to be left out: the scenario changes by itself, says how long it settles, or is no scenario.

    Raises:
        ChangeError: a change names nothing, or gives a value that does not fit.
        KeyboardInterrupt: interrupted.
    """
    if not isinstance(question.scenario, Scenario):
        return None
    scenario = question.scenario.changed(question.changes)
    if scenario.horizon.settle or not is_steady(scenario):
        return None
    pilots = min(PILOTS, plan.replications or PILOTS)
    series = laboratory.in_depth().replicate(Question(scenario, question.seed), Plan(pilots), progress)
    if series.partial:
        raise KeyboardInterrupt
    courses = [outcome.detail.timeline["system"] for outcome in series.outcomes if outcome.detail is not None]
    mean = [sum(values) / len(values) for values in zip(*courses, strict=True)]
    cut = warm_up(mean)
    seconds = scenario.end_s * min(cut, len(mean) // 2) / len(mean)
    return WarmUp(seconds, pilots, cut < len(mean))


def left_out(question: Question, found: WarmUp | None) -> Mapping[str, object]:
    """The changes of a question, and those that leave out its warm-up."""
    if found is None or not isinstance(question.scenario, Scenario):
        return question.changes
    run = question.scenario.changed(question.changes).horizon.run
    cut = {"horizon.settle": f"{found.seconds!r} s", "horizon.run": f"{run - found.seconds!r} s"}
    return {**question.changes, **cut}
