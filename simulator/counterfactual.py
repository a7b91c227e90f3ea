"""What would have been: the jobs of a journal, with as many agents more, played in the simulated world.

Every job comes when it came, takes as long as it took, and fails as often as it failed; agents are there when they were
there. Three sides are given: as it was; the simulation of that, which shows how far it can be trusted here; and the
simulation with the change. Jobs see the same day on both simulated sides.
"""

import re
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from broker.dispatch.messages import CancelRequested
from broker.dispatch.model import AgentNo, DispatchPolicy, GroupNo
from broker.errors import ConfigError
from simulator import courses
from simulator.acts import Acts, Again
from simulator.chronicle import OPEN, Chronicle, Kind, PastAgent, PastJob
from simulator.courses import JobCourse
from simulator.scenario import Scenario
from simulator.streams import SECOND_US
from simulator.units import duration_text, nearest
from simulator.workload import SimJob, Workload
from simulator.world import World

KEYS: Final = ("agents", "slots", "prefetch", "policy")
ACTOR: Final = "journal"
FINISH_S: Final = 3_600.0
CANCEL_TRIES: Final = 20
CANCEL_AGAIN_US: Final = 50_000
_NO_WORD: Final = re.compile(r"[^a-z0-9]+")
_CHANGE: Final = re.compile(r"(?:(?P<group>\d+)\.)?(?P<key>[a-z]+)=(?P<value>\S+)")

Tree = dict[str, Any]


class CounterfactualError(ConfigError):
    """A change that makes no sense, or a journal of which nothing can be played."""

    reason = "BAD_CHANGE"


@dataclass(slots=True, frozen=True)
class Change:
    """`agents=+2`, `agents=5`, `slots=8`, `prefetch=2`, `policy=round-robin`; `2.agents=-1` for group 2 alone."""

    key: str
    value: str
    group: GroupNo | None = None

    @classmethod
    def of(cls, text: str) -> "Change":
        """What a person wrote. Raises CounterfactualError."""
        match = _CHANGE.fullmatch(text)
        if match is None:
            raise CounterfactualError(f"`{text}` is not a change such as `agents=+2`, `slots=8` or `policy=random`")
        if match["key"] not in KEYS:
            raise CounterfactualError(f"`{match['key']}` cannot be changed in a journal; {nearest(match['key'], KEYS)}")
        if match["key"] != "policy" and not re.fullmatch(r"[-+]?\d{1,5}", match["value"]):
            raise CounterfactualError(f"`{text}`: a number is wanted, or +2, or -1")
        return cls(match["key"], match["value"], GroupNo(int(match["group"])) if match["group"] else None)

    def applied(self, number: int) -> int:
        """The number that comes of this one."""
        return number + int(self.value) if self.value[0] in "+-" else int(self.value)


@dataclass(slots=True, frozen=True)
class Sides:
    """What was, and what would have been. `figures` is (as it was, simulated, with the change) by name."""

    changes: tuple[str, ...]
    figures: dict[str, tuple[float, float, float]]
    notes: list[str] = field(default_factory=list)

    def as_json(self) -> Tree:
        """For a document."""
        return {
            "changes": list(self.changes),
            "figures": {
                name: {"was": round(was, 6), "simulated": round(simulated, 6), "would": round(would, 6)}
                for name, (was, simulated, would) in self.figures.items()
            },
            "notes": self.notes,
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{'':32} {'as it was':>12} {'simulated':>12} {'would be':>12}   with {' '.join(self.changes)}"
        for name, values in self.figures.items():
            yield f"{name:32} " + " ".join(f"{value:12.5g}" for value in values)
        yield from self.notes


def sides_of(chronicle: Chronicle, changes: Sequence[str]) -> Sides:
    """Play the journal as it was and with the changes. Raises CounterfactualError."""
    known = [Change.of(text) for text in changes]
    past = _Past(chronicle)
    for change in known:
        if change.group is not None and change.group not in past.groups:
            raise CounterfactualError(f"the journal has no jobs of a group {change.group}: it has {past.groups}")
    simulated, would = past.play([]), past.play(known)
    figures: dict[str, tuple[float, float, float]] = {}
    for work in past.works:
        was = [_named(job.course, work) for job in past.works[work]]
        figures |= {f"{work}.jobs": _three(len(was), len(was), len(was))}
        sides = [courses.figures_of(side, work, 0.0, past.run_s) for side in (was, simulated, would)]
        for name in sides[0]:
            figures[f"{work}.{name}"] = _three(*(side[name][0] for side in sides))
        for state in ("succeeded", "failed", "dead"):
            counts = [sum(job.work == work and job.state == state for job in side) for side in (was, simulated, would)]
            if any(counts):
                figures[f"{work}.{state}"] = _three(*counts)
    return Sides(tuple(changes), figures, past.notes)


def _three(was: float, simulated: float, would: float) -> tuple[float, float, float]:
    return float(was), float(simulated), float(would)


def _named(course: JobCourse, work: str) -> JobCourse:
    course.work = work
    return course


class _Past:
    """The journal as scenarios: one class of work for each kind of jobs, one pool for each agent."""

    def __init__(self, chronicle: Chronicle) -> None:
        if not chronicle.jobs:
            raise CounterfactualError("the journal has no jobs: there is nothing that could have been otherwise")
        self._chronicle = chronicle
        self.run_s = max(1.0, (chronicle.ended_us - chronicle.began_us) / SECOND_US)
        by_kind: dict[Kind, list[PastJob]] = defaultdict(list)
        for job in chronicle.jobs:
            by_kind[job.kind].append(job)
        self._kinds = dict(zip(_names(by_kind), by_kind, strict=True))
        self.works = {
            name: sorted(by_kind[kind], key=lambda job: job.submitted_us) for name, kind in self._kinds.items()
        }
        self.groups = sorted({kind.group for kind in by_kind})
        self.notes = list(self._notes())

    def _notes(self) -> Iterator[str]:
        chronicle = self._chronicle
        if chronicle.carried:
            yield f"{chronicle.carried} jobs lived before the journal begins: they come at its beginning"
        unknown = sum(job.ran_us == OPEN for job in chronicle.jobs)
        if unknown:
            yield f"{unknown} jobs did not run to their end in the journal: they take the median of the others"
        for act, count in sorted(chronicle.operators.items()):
            yield f"{act} came {count} times and is not played"

    def play(self, changes: Sequence[Change]) -> list[JobCourse]:
        """What becomes of all jobs. Raises CounterfactualError: the changes make no scenario."""
        try:
            scenario = Scenario.model_validate(self._tree(changes))
        except ValueError as error:
            raise CounterfactualError(f"{' '.join(f'{one.key}={one.value}' for one in changes)}: {error}") from error
        world = Rerun(scenario, self._chronicle.began_us, list(self.works.values()), self.run_s)
        acts = Acts(world)
        for group, one in enumerate(scenario.groups.values(), 1):
            for again in self._again(GroupNo(group), one.count):
                acts.plan(again)
        seen = courses.of_world(world)
        world.run()
        return seen

    def _tree(self, changes: Sequence[Change]) -> Tree:
        """One scenario for all groups; settings of the broker are those of the first."""
        groups = {
            _group_name(group): self._group(group, [one for one in changes if one.group in (None, group)])
            for group in self.groups
        }
        work = {
            name: {
                "group": _group_name(kind.group),
                "operation": kind.operation,
                "arrivals": {"even": "0/s"},
                "duration": "1 ms",
                "level": kind.level,
                "labels": list(kind.labels),
                "run-timeout": _seconds(kind.run_timeout_us),
                "deadline": _seconds(kind.total_timeout_us),
            }
            for name, kind in self._kinds.items()
        }
        return {
            "name": "as it was, with changes" if changes else "as it was",
            "horizon": {"run": duration_text(self.run_s), "finish": duration_text(FINISH_S)},
            "groups": groups,
            "work": work,
            "broker": _broker(self._chronicle.policies[self.groups[0]]),
            "faults": [fault for group in self.groups for fault in self._outages(group, groups[_group_name(group)])],
        }

    def _group(self, group: GroupNo, changes: Sequence[Change]) -> Tree:
        agents = self._agents(group).values()
        policy = self._chronicle.policies[group]
        pools = [_pool(agent) for agent in agents]
        said = {change.key: change for change in changes}
        wanted = said["agents"].applied(len(pools)) if "agents" in said else len(pools)
        if wanted < 1:
            raise CounterfactualError(f"group {group} had {len(pools)} agents: at least one must stay")
        slots = [pool["slots"] for pool in pools] or [4]
        pools = pools[:wanted]
        pools += [{"count": 1, "slots": round(statistics.median(slots))} for _ in range(wanted - len(pools))]
        for pool in pools:
            for key in ("slots", "prefetch"):
                if key in said:
                    pool[key] = said[key].applied(pool.get(key, 0))
        placing = policy.placing.value.replace("_", "-").replace("power-of-d", f"power-of-{policy.placing_choices}")
        return {
            "agents": pools,
            "policy": said["policy"].value if "policy" in said else placing,
            "spread": policy.spread.value,
            "queue": {"limit": min(policy.queue_jobs_max, 1_000_000), "ageing": _seconds(policy.ageing_us)},
        }

    def _agents(self, group: GroupNo) -> dict[AgentNo, PastAgent]:
        """Those that ever worked, by their numbers and in the order of these."""
        known = self._chronicle.agents
        return {
            number: known[of, number] for of, number in sorted(known) if of == group and known[of, number].processes
        }

    def _again(self, group: GroupNo, count: int) -> Iterator[Again]:
        """What is done again to the first `count` agents of a group of the world."""
        began_us, past = self._chronicle.began_us, self.groups[group - 1]
        agents = dict(list(self._agents(past).items())[:count])
        places = {number: AgentNo(place) for place, number in enumerate(agents, 1)}
        for one in self._chronicle.acts:
            if one.group == past and one.act.agent in places:
                yield Again(max(0, one.at_us - began_us), group, places[one.act.agent], one.act)
        for number, agent in agents.items():
            for process in agent.processes:
                yield Again(process.from_us - began_us, group, places[number])
                if process.is_orderly:
                    left_us = process.to_us if process.leaving_us == OPEN else process.leaving_us
                    yield Again(left_us - began_us, group, places[number], leaves=True)

    def _outages(self, group: GroupNo, tree: Tree) -> Iterator[Tree]:
        """When the agents that are still there were down, but for those that left in good order: they leave again."""
        began_us, ended_us = self._chronicle.began_us, self._chronicle.ended_us
        for number, agent in enumerate(list(self._agents(group).values())[: len(tree["agents"])], 1):
            since_us, is_orderly = began_us, False
            for process in agent.processes:
                if not is_orderly:
                    name = f"{_group_name(group)}/{number}"
                    yield from _outage(name, since_us, process.from_us, began_us, self.run_s)
                since_us = ended_us if process.to_us == OPEN else process.to_us
                is_orderly = process.is_orderly
            if since_us < ended_us and not is_orderly:
                back_us = ended_us + round(FINISH_S * SECOND_US)
                yield from _outage(f"{_group_name(group)}/{number}", since_us, back_us, began_us, self.run_s)


def _outage(agent: str, from_us: int, to_us: int, began_us: int, run_s: float) -> Iterator[Tree]:
    at_s, for_s = (from_us - began_us) / SECOND_US, (to_us - from_us) / SECOND_US
    if for_s > 0 and at_s < run_s:
        yield {"at": duration_text(at_s), "crash": agent, "for": duration_text(for_s)}


def _pool(agent: PastAgent) -> Tree:
    prefetch = max(0, agent.capacity // max(1, agent.slots) - 1)
    return {
        "count": 1,
        "slots": max(1, agent.slots),
        "prefetch": prefetch,
        "labels": sorted(agent.labels),
        "rank": agent.rank,
    }


def _broker(policy: DispatchPolicy) -> Tree:
    names = ("heartbeat", "idle_heartbeat", "suspect", "lease", "margin", "reconnect_grace", "recovery_grace")
    return {name.replace("_", "-"): _seconds(getattr(policy, f"{name}_us")) for name in (*names, "accept_timeout")}


def _seconds(us: int) -> str:
    return duration_text(us / SECOND_US)


def _group_name(group: GroupNo) -> str:
    return f"group-{group}"


def _names(kinds: Iterable[Kind]) -> Iterator[str]:
    """A name for each kind: its operation, and a number where several have the same."""
    seen: dict[str, int] = {}
    for kind in kinds:
        name = _NO_WORD.sub("-", kind.operation).strip("-")[:40] or "work"
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}"


# --- the world ------------------------------------------------------------------------------------------------------


class PastWorkload(Workload):
    """Work that was: jobs with the durations and failures that they had."""

    past: Sequence[PastJob]
    median_us: int

    @classmethod
    def from_past(cls, load: Workload, past: Sequence[PastJob]) -> "PastWorkload":
        """The work of a scenario with these jobs, in the order of their arrival."""
        made = cls(
            load.number, load.name, load.operation, load.work, load.group, past[0].kind.policy,
            load.durations, load.failures, load.patience, load.streams, load.labels,
            load.run_timeout_us, load.deadline_us,
        )  # fmt: skip
        made.is_shared = any(job.fairness for job in past)
        ran_us = [job.ran_us for job in past if job.ran_us != OPEN]
        made.past, made.median_us = past, round(statistics.median(ran_us)) if ran_us else 1
        return made

    def draw(self, arrived_us: int) -> SimJob:
        """The next job that came."""
        past = self.past[self.drawn]
        self.drawn += 1
        duration_us = self.median_us if past.ran_us == OPEN else past.ran_us
        job = SimJob(self, self.drawn, arrived_us, duration_us)
        job.start_within_us = past.start_within_us
        return job

    def fairness_of(self, job: SimJob) -> str:
        """The key that the job had."""
        return self.past[job.number - 1].fairness

    def fails(self, job: SimJob, attempt: int) -> bool:
        """Whether this attempt of the job fails: the first ones do, as often as it failed, and a hopeless job's all."""
        past = self.past[job.number - 1]
        return _is_hopeless(past) or (attempt <= past.failed and past.course.state in ("succeeded", "dead"))

    def may_retry(self, job: SimJob, attempt: int) -> bool:
        """Whether the job is tried again after this attempt: a hopeless one only as often as it was."""
        past = self.past[job.number - 1]
        return attempt < past.failed or not _is_hopeless(past)


def _is_hopeless(past: PastJob) -> bool:
    """Whether the job failed by itself; deadlines and lost agents let it fail in the simulated world, too."""
    return past.is_hopeless and past.course.state == "failed"


class Rerun(World):
    """A world in which the jobs of a journal arrive. `began_us` is where the journal begins."""

    def __init__(self, scenario: Scenario, began_us: int, past: Sequence[Sequence[PastJob]], run_s: float) -> None:
        super().__init__(scenario, 0, 0)
        self._began_us = began_us
        self._last_us = round(run_s * SECOND_US) - 1
        self.loads = [PastWorkload.from_past(load, jobs) for load, jobs in zip(self.loads, past, strict=True)]

    def _begin_work(self, load: Workload) -> None:
        assert isinstance(load, PastWorkload)
        self._await_next(load, (min(self._last_us, job.submitted_us - self._began_us) for job in load.past))
        for number, job in enumerate(load.past, 1):
            if job.cancelled_us != OPEN:
                self.clock.after(
                    job.cancelled_us - self._began_us, partial(self._on_cancel, load, number, CANCEL_TRIES)
                )

    def _on_cancel(self, load: Workload, number: int, tries: int, _: object) -> None:
        """Somebody cancels the job, if it still lives; one that is not accepted yet is asked for again."""
        for key, job in self.recorder.jobs.items():
            if job.work is load and job.number == number:
                self.driver.ask(load.group, partial(CancelRequested, job_key=key, actor=ACTOR))
                return
        if tries:
            self.clock.after(CANCEL_AGAIN_US, partial(self._on_cancel, load, number, tries - 1))
