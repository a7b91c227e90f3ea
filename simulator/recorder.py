"""What is seen of a run: counts, latencies by phase, levels over time, fail-over, and whether it all adds up.

Observations are numbers in `array('d')`, folded into histograms by the ten thousand; nothing is kept for each job that
is over. Job figures are those of jobs that arrived in the window (after settling, before the end), in the phase in
which they arrived; levels are averaged over the window. All times are seconds in what leaves, microseconds inside.
"""

import hashlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from broker.dispatch import reasons
from broker.dispatch.messages import AssignJob, Notice, Send, Transition
from broker.dispatch.model import AgentNo, JobKey, JobState, Link
from simulator.clock import Clock
from simulator.fleet import Fleet
from simulator.histogram import Histogram
from simulator.levels import Level, Spells
from simulator.streams import SECOND_US
from simulator.workload import SimJob, Workload

if TYPE_CHECKING:
    from simulator.agents import SimAgent

FOLD: Final = 16_384
"""Observations that wait to be folded into histograms."""
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
_CODES: Final = {state: number for number, state in enumerate(JobState)}
_ASSIGNED: Final = _CODES[JobState.ASSIGNED]
_SUCCEEDED: Final = _CODES[JobState.SUCCEEDED]
_WAITING: Final = tuple(state in (JobState.SCHEDULED, JobState.QUEUED, JobState.HELD) for state in JobState)


class SelfTestError(AssertionError):
    """The run does not add up: a fault of the simulator, never of the scenario."""


@dataclass(slots=True, frozen=True)
class Phase:
    """A part of the window, between two scripted faults' beginnings and ends."""

    name: str
    from_s: float
    to_s: float
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True, frozen=True)
class Run:
    """One replication, seen. `figures` have flat names (`orders.latency.p99`): seconds, shares, counts.

    `samples` are the distributions behind them, to be merged over replications. `timeline` has one list for each
    series, all as long as `timeline["t"]`. `growth_per_s` is the slope of the number of jobs in the system.
    """

    digest: str
    figures: dict[str, float]
    samples: dict[str, Histogram]
    phases: tuple[Phase, ...]
    jobs: int
    simulated_s: float
    growth_per_s: float
    timeline: dict[str, list[float]]


class WorkLog:
    """What is seen of one class of work: by phase of arrival, the settling time first (phase 0)."""

    def __init__(self, edges_us: Sequence[int]) -> None:
        self._edges = np.asarray(edges_us, np.float64)
        self._arrived = array("d")
        self._latency = array("d")
        self._wait = array("d")
        phases = len(edges_us)
        self.latency = [Histogram() for _ in range(phases)]
        self.wait = [Histogram() for _ in range(phases)]
        self.counts: list[dict[str, int]] = [{} for _ in range(phases)]
        self.done = 0  # that ended well inside the window, whenever they arrived

    def count(self, what: str, phase: int, more: int = 1) -> None:
        """Count something of a phase."""
        counts = self.counts[phase]
        counts[what] = counts.get(what, 0) + more

    def add(self, arrived_us: int, latency_us: int, wait_us: int) -> None:
        """A job is over: its latency (negative: it did not succeed) and wait (negative: never assigned)."""
        self._arrived.append(arrived_us)
        self._latency.append(latency_us)
        self._wait.append(wait_us)
        if len(self._arrived) >= FOLD:
            self.fold()

    def fold(self) -> None:
        """Fold what waits into the histograms."""
        phases = np.searchsorted(self._edges, np.frombuffer(self._arrived), side="right") - 1
        latency, wait = np.frombuffer(self._latency), np.frombuffer(self._wait)
        for phase in np.unique(phases).tolist():
            inside = phases == phase
            self.latency[phase].add(latency[inside & (latency >= 0)] / SECOND_US)
            waited = inside & (wait >= 0)
            self.wait[phase].add(wait[waited] / SECOND_US)
            self.count("delayed", phase, int((wait[waited] > 0).sum()) + int((inside & (wait < 0)).sum()))
        del latency, wait, phases
        self._arrived, self._latency, self._wait = array("d"), array("d"), array("d")


class FleetLog:
    """What is seen of one group."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.waiting = Level()
        self.running = Level()
        self.up = Level()
        self.live: set[AgentNo] = set()
        self.assigned: dict[AgentNo, int] = {}
        self.lost_us: dict[AgentNo, int] = {}
        self.spells = Spells(fleet.group.need or 1)


class Recorder:
    """Hears everything. `edges_us` are the beginnings of the phases; the first is 0, the window is all but that."""

    def __init__(
        self, clock: Clock, fleets: Sequence[Fleet], loads: Sequence[Workload], edges_us: Sequence[int], end_us: int
    ) -> None:
        self._clock = clock
        self._edges_us = list(edges_us)
        self.begin_us = edges_us[1]
        self.end_us = end_us
        self.jobs: dict[JobKey, SimJob] = {}
        self.fleets = {fleet.no: FleetLog(fleet) for fleet in fleets}
        self.work = {load.number: WorkLog(edges_us) for load in loads}
        self.waiting = Level()
        self.system = Level()
        self.when_final: Callable[[SimJob], None] | None = None
        """Called when a job is over that a client waits for."""
        self.arrivals = 0
        self.unanswered = 0
        self.refusals = 0
        self.finished = 0
        self.sojourns_us = 0
        self.in_flight_us = 0
        self.overlapped = 0
        self.loop_busy_us = 0
        self._loop_marks: list[tuple[int, int]] = []
        self.wasted_us = 0
        self.ran_us = 0
        self.connects: list[int] = []
        self.herd_us = -1
        """When agents that lost their streams all at once could come back."""
        self.detect_s, self.reassign_s, self.restart_s = array("d"), array("d"), array("d")
        self._phase = 0
        self._effects = array("q")
        self._hash = hashlib.blake2b(digest_size=16)
        self._on_us: dict[AgentKey, int] = {}
        self.slot_us: dict[AgentKey, int] = {}

    # --- jobs -------------------------------------------------------------------------------------------------------

    def _phase_now(self, now_us: int) -> int:
        edges = self._edges_us
        while self._phase + 1 < len(edges) and edges[self._phase + 1] <= now_us:
            self._phase += 1
        return self._phase

    def _phase_of(self, at_us: int) -> int:
        return bisect_right(self._edges_us, at_us) - 1

    def arrived(self, job: SimJob) -> None:
        """Somebody submits it."""
        now_us = self._clock.now_us
        self.arrivals += 1
        self.unanswered += 1
        self.system.add(now_us, 1)
        self.work[job.work.number].count("arrived", self._phase_now(now_us))

    def accepted(self, job: SimJob, key: JobKey) -> None:
        """It is durable."""
        self.unanswered -= 1
        self.jobs[key] = job

    def refused(self, job: SimJob) -> None:
        """The group takes no more."""
        self.unanswered -= 1
        self.refusals += 1
        self.work[job.work.number].count("refused", self._phase_of(job.arrived_us))
        self._is_over(job)

    def with_jobs(self, sends: Sequence[Send]) -> list[tuple[Send, SimJob | None]]:
        """Orders with the jobs that they assign."""
        jobs = self.jobs
        return [(send, jobs[send.job_key] if type(send) is AssignJob else None) for send in sends]

    def on_notices(self, fleet: Fleet, notices: Sequence[Notice]) -> None:
        """What has become durable."""
        if not notices:
            return
        log = self.fleets[fleet.no]
        now_us = self._clock.now_us
        effects = self._effects
        for notice in notices:
            if type(notice) is Transition:
                to = _CODES[notice.to_state]
                effects.extend((notice.at_us, notice.job_key, notice.attempt << 8 | to, notice.agent))
                self._on_transition(log, notice, to, now_us)
            elif not isinstance(notice, Transition):
                self._on_agent(log, notice.agent, notice.link == Link.LIVE, now_us)
        if len(effects) >= FOLD:
            self._hash.update(effects.tobytes())
            del effects[:]

    def _on_transition(self, log: FleetLog, notice: Transition, to: int, now_us: int) -> None:
        waited = notice.from_state is not None and _WAITING[_CODES[notice.from_state]]
        if waited is not _WAITING[to]:
            change = -1 if waited else 1
            log.waiting.add(now_us, change)
            self.waiting.add(now_us, change)
        if to == _ASSIGNED:
            job = self.jobs[notice.job_key]
            job.tries += 1
            if job.started_us < 0:
                job.started_us = now_us
            if job.lost_us >= 0:
                self.reassign_s.append((now_us - job.lost_us) / SECOND_US)
            if self.begin_us <= now_us < self.end_us:
                log.assigned[notice.agent] = log.assigned.get(notice.agent, 0) + 1
        elif to >= _SUCCEEDED:
            self._on_final(self.jobs.pop(notice.job_key), notice, to, now_us)
        elif not waited and notice.from_state is not None and notice.agent in log.lost_us and _WAITING[to]:
            job = self.jobs[notice.job_key]
            job.lost_us = log.lost_us[notice.agent]
            self.detect_s.append((now_us - job.lost_us) / SECOND_US)

    def _on_final(self, job: SimJob, notice: Transition, to: int, now_us: int) -> None:
        self.finished += 1
        load, arrived_us = self.work[job.work.number], job.arrived_us
        is_good = to == _SUCCEEDED
        wait_us = job.started_us - arrived_us if job.started_us >= 0 else -1
        load.add(arrived_us, now_us - arrived_us if is_good else -1, wait_us)
        phase = self._phase_of(arrived_us)
        load.count(notice.to_state, phase)
        load.count("attempts", phase, job.tries)
        if notice.reason == reasons.NOT_STARTED_IN_TIME:
            load.count("expired", phase)
        if is_good and self.begin_us <= now_us < self.end_us:
            load.done += 1
        if job.tries > 1:
            load.count("retried", phase)
        if job.tries > 3:
            load.count("over3", phase)
        self.wasted_us += job.ran_us - (job.last_us if is_good else 0)
        self._is_over(job)

    def _is_over(self, job: SimJob) -> None:
        now_us = self._clock.now_us
        job.is_final = True
        self.sojourns_us += now_us - job.arrived_us
        self.system.add(now_us, -1)
        if job.is_client and self.when_final is not None:
            self.when_final(job)

    def started(self, job: SimJob) -> None:
        """An attempt of it begins to run on an agent."""
        now_us = self._clock.now_us
        if job.running:
            self.overlapped += 1
        job.running += 1
        if job.lost_us >= 0:
            self.restart_s.append((now_us - job.lost_us) / SECOND_US)
            job.lost_us = -1
        self.fleets[job.work.group].running.add(now_us, 1)

    def ran(self, job: SimJob, started_us: int) -> int:
        """An attempt has ended that began then; how long it ran inside the window."""
        now_us = self._clock.now_us
        job.running -= 1
        job.last_us = now_us - started_us
        job.ran_us += job.last_us
        self.ran_us += job.last_us
        if job.is_final:
            self.wasted_us += job.last_us
        self.fleets[job.work.group].running.add(now_us, -1)
        return max(0, min(now_us, self.end_us) - max(started_us, self.begin_us))

    # --- agents -----------------------------------------------------------------------------------------------------

    def _on_agent(self, log: FleetLog, agent: AgentNo, is_live: bool, now_us: int) -> None:
        self._effects.extend((now_us, -1, int(is_live), agent))
        if is_live:
            log.live.add(agent)
            log.lost_us.pop(agent, None)
        else:
            log.live.discard(agent)
        self._count_up(log, now_us)

    def _count_up(self, log: FleetLog, now_us: int) -> None:
        up = len(log.live)
        log.up.add(now_us, up - log.up.value)
        log.spells.hear(now_us, up)

    def agent_on(self, agent: "SimAgent") -> None:
        """A process has started."""
        self._on_us[agent.fleet.no, agent.no] = self._clock.now_us

    def agent_off(self, agent: "SimAgent") -> None:
        """A process has ended."""
        key = (agent.fleet.no, agent.no)
        since_us = self._on_us.pop(key)
        inside_us = max(0, min(self._clock.now_us, self.end_us) - max(since_us, self.begin_us))
        self.slot_us[key] = self.slot_us.get(key, 0) + inside_us * agent.pool.slots

    def agent_lost(self, agent: "SimAgent") -> None:
        """A process has died or stands still, or nobody can hear it."""
        self.fleets[agent.fleet.no].lost_us[agent.no] = self._clock.now_us

    def connected(self, agent: "SimAgent") -> None:
        """A session has come about, as the agent sees it."""
        self.connects.append(self._clock.now_us)

    def reconnects_s(self) -> list[float]:
        """How long after the latest herd was let in each session came about."""
        if self.herd_us < 0:
            return []
        return [(at_us - self.herd_us) / SECOND_US for at_us in self.connects if at_us >= self.herd_us]

    def reconnect_peak(self) -> int:
        """The most sessions that came about in one second of the window."""
        seconds = np.asarray([at_us for at_us in self.connects if at_us >= self.begin_us], np.int64) // SECOND_US
        return int(np.bincount(seconds - seconds.min()).max()) if len(seconds) else 0

    def broker_down(self) -> None:
        """Nobody is connected any more."""
        for log in self.fleets.values():
            log.live.clear()
            self._count_up(log, self._clock.now_us)

    # --- the end ----------------------------------------------------------------------------------------------------

    def mark(self, commits: int) -> None:
        """The window begins or ends now; so many commits have begun since the start."""
        now_us = self._clock.now_us
        for level in self.levels():
            level.mark(now_us)
        self._loop_marks.append((self.loop_busy_us, commits))
        if now_us == self.begin_us:
            for log in self.fleets.values():
                log.spells.begin(now_us)

    @property
    def loop_in_window(self) -> tuple[int, int]:
        """Microseconds that the broker's loop worked inside the window, and commits that began there."""
        (busy_before_us, before), (busy_us, after) = self._loop_marks[0], self._loop_marks[-1]
        return busy_us - busy_before_us, after - before

    def levels(self) -> list[Level]:
        """All levels."""
        logs = self.fleets.values()
        own = [self.waiting, self.system]
        return own + [level for log in logs for level in (log.waiting, log.running, log.up)]

    def digest(self) -> str:
        """Of all transitions and notices so far, with their times."""
        self._hash.update(self._effects.tobytes())
        del self._effects[:]
        return self._hash.hexdigest()

    def check(self, live: Mapping[JobKey, object]) -> int:
        """Whether all adds up: conservation and Little's law, exactly; the number of lost jobs.

        Raises SelfTestError.
        """
        now_us = self._clock.now_us
        accepted = self.arrivals - self.refusals - self.unanswered
        lost = accepted - self.finished - len(live)
        if len(self.jobs) != accepted - self.finished:
            raise SelfTestError(f"{accepted} jobs accepted, {self.finished} finished, {len(self.jobs)} under way")
        self.in_flight_us = sum(now_us - job.arrived_us for job in self.jobs.values())
        self.system.add(now_us, 0)
        if not self.unanswered and self.system.area != self.sojourns_us + self.in_flight_us:
            raise SelfTestError(f"Little: {self.system.area} job us in the system, {self.sojourns_us} us of sojourns")
        return lost


AgentKey = tuple[int, AgentNo]
