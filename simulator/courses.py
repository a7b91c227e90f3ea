"""What became of each job of a run, real, recorded or simulated: the same facts, so that the same code makes figures.

All times are seconds since the run began, -1 for what never was, and are those at which the broker worked what they
tell of.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from broker.dispatch.messages import Notice, Transition
from broker.dispatch.model import FINAL_STATES, GroupNo, JobKey, JobState
from simulator.fleet import Fleet
from simulator.histogram import Histogram
from simulator.streams import SECOND_US
from simulator.summary import latency_figures
from simulator.world import World

LATENCIES = ("mean", "p50", "p95", "p99")
WAITS = ("mean", "p99")


@dataclass(slots=True)
class Attempt:
    """One attempt of a job."""

    agent: str
    assigned_s: float
    started_s: float = -1.0
    ended_s: float = -1.0


@dataclass(slots=True)
class JobCourse:
    """A job. It was due at `due_s`; `duration_s` is its own time, as far as that is known."""

    work: str
    due_s: float
    duration_s: float = -1.0
    accepted_s: float = -1.0
    finished_s: float = -1.0
    state: str = ""
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """Whether it succeeded."""
        return self.state == "succeeded"

    def move(self, at_s: float, to_state: JobState, agent: str) -> None:
        """It changed state."""
        last = self.attempts[-1] if self.attempts else None
        if to_state is JobState.ASSIGNED:
            self.attempts.append(Attempt(agent, at_s))
        elif to_state is JobState.RUNNING and last is not None:
            last.started_s = at_s
        elif last is not None and last.ended_s < 0:
            last.ended_s = at_s
        if to_state in FINAL_STATES:
            self.finished_s, self.state = at_s, to_state.value


def of_world(world: World) -> list[JobCourse]:
    """Have the world, which has not run yet, fill this list while it runs, in the order of acceptance."""
    found: list[JobCourse] = []
    live: dict[tuple[GroupNo, JobKey], JobCourse] = {}

    def hear(fleet: Fleet, notices: Sequence[Notice]) -> None:
        for notice in notices:
            if not isinstance(notice, Transition):
                continue
            place, at_s = (fleet.no, notice.job_key), notice.at_us / SECOND_US
            course = live.get(place)
            if course is None:
                job = world.recorder.jobs[notice.job_key]
                due_s, duration_s = job.arrived_us / SECOND_US, job.duration_us / SECOND_US
                course = live[place] = JobCourse(job.work.name, due_s, duration_s, at_s)
                found.append(course)
            course.move(at_s, notice.to_state, f"{fleet.name}-{notice.agent}")
            if course.state:
                del live[place]

    world.driver.when_noticed = hear
    return found


def figures_of(courses: Sequence[JobCourse], work: str, begin_s: float, end_s: float) -> dict[str, tuple[float, int]]:
    """(value, how many it rests on) of one class of work, under the names that simulations have for them.

    Latencies and waits are those of jobs that were due from `begin_s` on and before `end_s`, in seconds; throughput is
    of jobs that ended well in that time, a second.
    """
    mine = [job for job in courses if job.work == work]
    inside = [job for job in mine if begin_s <= job.due_s < end_s]
    good = [job for job in inside if job.is_good]
    waited = [max(0.0, job.attempts[0].assigned_s - job.due_s) for job in inside if job.attempts]
    done = sum(job.is_good and begin_s <= job.finished_s < end_s for job in mine)
    latency = latency_figures("latency", histogram([job.finished_s - job.due_s for job in good]))
    wait = latency_figures("wait", histogram(waited))
    return {
        "throughput": (done / (end_s - begin_s), done),
        **{f"latency.{name}": (latency[f"latency.{name}"], len(good)) for name in LATENCIES},
        **{f"wait.{name}": (wait[f"wait.{name}"], len(waited)) for name in WAITS},
    }


def histogram(values: Sequence[float]) -> Histogram:
    """Values in seconds, to read quantiles from."""
    seen = Histogram()
    seen.add(np.asarray(values, np.float64))
    return seen
