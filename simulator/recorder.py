"""What is seen of a run: counts, latencies by phase, levels over time, fail-over, and whether it all adds up.

Observations are numbers in one list, folded into histograms by the ten thousand; nothing is kept for each job that
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
import numpy.typing as npt

from broker.dispatch import reasons
from broker.dispatch.messages import AgentNoticed, Notice, Transition
from broker.dispatch.model import FINAL_STATES, AgentNo, GroupNo, JobKey, JobState, Link
from simulator.clock import Clock
from simulator.fleet import NEVER_US, Fleet
from simulator.gauges import Tally
from simulator.histogram import Histogram
from simulator.levels import Level, Spells
from simulator.marks import Mark, mark_of
from simulator.streams import SECOND_US
from simulator.windows import LatencyWindows, Shares, ShareWindows
from simulator.workload import SimJob, Workload

if TYPE_CHECKING:
    from simulator.agents import SimAgent

FOLD: Final = 16_384
"""Observations that wait to be folded into histograms."""
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
_CODES: Final = {state: number for number, state in enumerate(JobState)}
_SUCCEEDED: Final = _CODES[JobState.SUCCEEDED]
# Of members that are asked for several times a job: through its class each look-up costs 0.1 us up to Python 3.11.
_ASSIGNED: Final = JobState.ASSIGNED
_DONE: Final = JobState.SUCCEEDED
_WAITING: Final = frozenset({JobState.SCHEDULED, JobState.QUEUED, JobState.HELD})
_LOSSES: Final = frozenset({reasons.AGENT_LOST, "not_listed", "accept_timeout"})
"""Why a job waits again when it is its agent that was lost. All else may happen on an agent that is well, too."""
ENDINGS: Final = (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD, "expired")
"""How jobs end. One that expired has failed, too."""
_EXPIRED: Final = len(ENDINGS) - 1


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
    `windows` has quantiles of latency by window of arrival, `shares` what each agent of a group was given. `tallies`
    are histograms as the broker counts them, by the end of each window (`erp.wait`): for each, how many did not exceed
    each bound of `broker.series.JOB_SECONDS`, how many there are, and their sum in seconds.
    """

    digest: str
    figures: dict[str, float]
    samples: dict[str, Histogram]
    phases: tuple[Phase, ...]
    jobs: int
    simulated_s: float
    growth_per_s: float
    timeline: dict[str, list[float]]
    tallies: dict[str, list[list[float]]] = field(default_factory=dict)
    windows: dict[str, list[float | None]] = field(default_factory=dict)
    shares: dict[str, Shares] = field(default_factory=dict)


class WorkLog:
    """What is seen of one class of work: by phase of arrival, the settling time first (phase 0)."""

    def __init__(self, group: GroupNo, edges_us: Sequence[int], end_us: int) -> None:
        self.group = group
        self._edges = np.asarray(edges_us, np.float64)
        self._seen: list[int] = []  # five numbers a job, as `add` has them
        phases = len(edges_us)
        self.arrivals = [0] * phases
        self.latency = [Histogram() for _ in range(phases)]
        self.wait = [Histogram() for _ in range(phases)]
        self.counts: list[dict[str, int]] = [{} for _ in range(phases)]
        self.done = 0  # that ended well inside the window, whenever they arrived
        self._ended = [0] * len(ENDINGS)  # as they stand there
        self.windows = LatencyWindows(end_us)

    def count(self, what: str, phase: int, more: int = 1) -> None:
        """Count something of a phase."""
        counts = self.counts[phase]
        counts[what] = counts.get(what, 0) + more

    def add(self, arrived_us: int, latency_us: int, wait_us: int, ending: int, tries: int) -> None:
        """A job is over: its latency (negative: it did not succeed) and wait (negative: never assigned), how it ended
        (its place in `ENDINGS`), and how often it was assigned.
        """
        self._seen += (arrived_us, latency_us, wait_us, ending, tries)
        self._ended[ending] += 1
        if len(self._seen) >= 5 * FOLD:
            self.fold()

    def ended(self, state: str) -> int:
        """How many jobs have ended in this state until now, whenever they arrived."""
        expired = self._ended[_EXPIRED] if state == JobState.FAILED else 0
        return self._ended[ENDINGS.index(state)] + expired

    def fold(self) -> None:
        """Fold what waits into histograms and counts."""
        seen = np.array(self._seen, np.float64).reshape(-1, 5)
        self._seen.clear()
        arrived, latency = seen[:, 0], seen[:, 1]
        self.windows.add(arrived[latency >= 0], latency[latency >= 0] / SECOND_US)
        phases = np.searchsorted(self._edges, arrived, side="right") - 1
        for phase in np.unique(phases).tolist():
            self._fold(phase, seen[phases == phase])
        for phase, count in enumerate(self.arrivals):
            if count:
                self.counts[phase]["arrived"] = count

    def _fold(self, phase: int, seen: npt.NDArray[np.float64]) -> None:
        latency, wait, tries = seen[:, 1], seen[:, 2], seen[:, 4]
        self.latency[phase].add(latency[latency >= 0] / SECOND_US)
        self.wait[phase].add(wait[wait >= 0] / SECOND_US)
        self.count("delayed", phase, int((wait != 0).sum()))
        for ending, count in zip(ENDINGS, np.bincount(seen[:, 3].astype(np.int64)).tolist(), strict=False):
            if count:
                self.count(ending, phase, count)
        if "expired" in self.counts[phase]:
            self.counts[phase]["failed"] = self.counts[phase].get("failed", 0) + int((seen[:, 3] == _EXPIRED).sum())
        self.count("attempts", phase, int(tries.sum()))
        self.count("retried", phase, int((tries > 1).sum()))
        self.count("over3", phase, int((tries > 3).sum()))


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
        self.noticed_us: dict[AgentNo, int] = {}
        self.shares = ShareWindows(self)
        self.spells = Spells(fleet.group.need or 1)
        self.given = 0
        self.overlapped = 0
        self.returns: list[tuple[int, str]] = []
        """(when, why) jobs of agents went back to wait."""
        self.waits, self.runs, self.latencies = Tally(), Tally(), Tally()


class Recorder:
    """Hears everything. `edges_us` are the beginnings of the phases; the first is 0, the window is all but that."""

    # With more than thirty attributes instances share no dictionary keys, and each look-up takes longer.
    __slots__ = (
        *("_clock", "_edges_us", "_effects", "_hash", "_on_us", "_phase", "_phase_ends_us", "arrivals", "begin_us"),
        *("connects", "decide_s", "detect_s", "end_us", "finished", "fleets", "herd_us", "in_flight_us", "jobs"),
        *("loop_busy_us", "marks", "overlapped", "ran_us", "reassign_s", "refusals", "restart_s", "slot_us"),
        *("sojourns_us", "system", "unanswered", "waiting", "wasted_us", "when_final", "work"),
    )

    def __init__(
        self, clock: Clock, fleets: Sequence[Fleet], loads: Sequence[Workload], edges_us: Sequence[int], end_us: int
    ) -> None:
        self._clock = clock
        self._edges_us = list(edges_us)
        self.begin_us = edges_us[1]
        self.end_us = end_us
        self.jobs: dict[JobKey, SimJob] = {}
        self.fleets = {fleet.no: FleetLog(fleet) for fleet in fleets}
        self.work = {load.number: WorkLog(load.group, edges_us, end_us) for load in loads}
        # Of a single group the whole is its own: one level is kept, not two that are equal.
        self.waiting = next(iter(self.fleets.values())).waiting if len(fleets) == 1 else Level()
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
        self.marks: list[Mark] = []
        """Where the phases of the window begin, and where it ends."""
        self.wasted_us = 0
        self.ran_us = 0
        self.connects: list[int] = []
        self.herd_us = -1
        """When agents that lost their streams all at once could come back."""
        self.detect_s, self.decide_s = array("d"), array("d")
        self.reassign_s, self.restart_s = array("d"), array("d")
        self._phase = 0
        self._phase_ends_us = 0
        self._effects: list[int] = []  # four numbers each
        self._hash = hashlib.blake2b(digest_size=16)
        self._on_us: dict[AgentKey, int] = {}
        self.slot_us: dict[AgentKey, int] = {}

    # --- jobs -------------------------------------------------------------------------------------------------------

    def _phase_now(self, now_us: int) -> int:
        self._phase = self._phase_of(now_us)
        self._phase_ends_us = [*self._edges_us, NEVER_US][self._phase + 1]
        return self._phase

    def _phase_of(self, at_us: int) -> int:
        return bisect_right(self._edges_us, at_us) - 1

    def arrived(self, job: SimJob) -> None:
        """Somebody submits it."""
        now_us = self._clock.now_us
        self.arrivals += 1
        self.unanswered += 1
        self.system.add(now_us, 1)
        phase = self._phase
        if now_us >= self._phase_ends_us:
            phase = self._phase_now(now_us)
        self.work[job.work.number].arrivals[phase] += 1

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

    def on_notices(self, group: GroupNo, notices: Sequence[Notice]) -> None:
        """What has become durable."""
        log, now_us = self.fleets[group], self._clock.now_us
        effects = self._effects
        for notice in notices:
            if type(notice) is Transition:
                state = notice.to_state
                effects += (notice.at_us, notice.job_key, notice.attempt << 8 | _CODES[state], notice.agent)
                waits, waited = state in _WAITING, notice.from_state in _WAITING
                if waits is not waited:
                    change = 1 if waits else -1
                    log.waiting.add(now_us, change)
                    if self.waiting is not log.waiting:
                        self.waiting.add(now_us, change)
                if state is _ASSIGNED:
                    self._on_assigned(log, notice, now_us)
                elif state in FINAL_STATES:
                    self._on_final(log, self.jobs.pop(notice.job_key), notice, now_us)
                elif waits and notice.attempt and not waited:
                    self._on_returned(log, notice, now_us)
            elif type(notice) is AgentNoticed:
                self._on_agent(log, notice.agent, notice.link == Link.LIVE, now_us)
        if len(effects) >= FOLD:
            self._fold_effects()

    def _on_assigned(self, log: FleetLog, notice: Transition, now_us: int) -> None:
        job = self.jobs[notice.job_key]
        job.tries += 1
        log.given += 1
        if job.started_us < 0:
            job.started_us = now_us
            log.waits.values_us.append(now_us - job.arrived_us)
        if job.lost_us >= 0:
            self.reassign_s.append((now_us - job.lost_us) / SECOND_US)
        if self.begin_us <= now_us < self.end_us:
            log.assigned[notice.agent] = log.assigned.get(notice.agent, 0) + 1

    def _on_returned(self, log: FleetLog, notice: Transition, now_us: int) -> None:
        """It waits again, perhaps because its agent was lost."""
        log.returns.append((now_us, notice.reason))
        if notice.started_us:
            log.runs.values_us.append(now_us - notice.started_us)
        if notice.reason not in _LOSSES or notice.agent not in log.lost_us:
            return
        job = self.jobs[notice.job_key]
        job.lost_us = log.lost_us[notice.agent]
        self.detect_s.append((log.noticed_us.get(notice.agent, now_us) - job.lost_us) / SECOND_US)
        self.decide_s.append((now_us - job.lost_us) / SECOND_US)

    def _on_final(self, log: FleetLog, job: SimJob, notice: Transition, now_us: int) -> None:
        self.finished += 1
        if notice.started_us:
            log.runs.values_us.append(now_us - notice.started_us)
        load, arrived_us = self.work[job.work.number], job.arrived_us
        wait_us = job.started_us - arrived_us if job.started_us >= 0 else -1
        if notice.to_state is _DONE:
            load.add(arrived_us, now_us - arrived_us, wait_us, 0, job.tries)
            log.latencies.values_us.append(now_us - arrived_us)
            if self.begin_us <= now_us < self.end_us:
                load.done += 1
            self.wasted_us += job.ran_us - job.last_us
        else:
            is_expired = notice.reason == reasons.NOT_STARTED_IN_TIME
            ending = _EXPIRED if is_expired else _CODES[notice.to_state] - _SUCCEEDED
            load.add(arrived_us, -1, wait_us, ending, job.tries)
            self.wasted_us += job.ran_us
        self._is_over(job)

    def _fold_effects(self) -> None:
        self._hash.update(array("q", self._effects).tobytes())
        self._effects.clear()

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
            self.fleets[job.work.group].overlapped += 1
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
        self._effects += (now_us, -1, int(is_live), agent)
        if is_live:
            log.live.add(agent)
            log.lost_us.pop(agent, None)
            log.noticed_us.pop(agent, None)
        else:
            log.live.discard(agent)
            if agent in log.lost_us:
                log.noticed_us.setdefault(agent, now_us)
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
        self.slot_us[key] = self.slots_us_until(agent, self._clock.now_us)
        del self._on_us[key]

    def agent_lost(self, agent: "SimAgent") -> None:
        """A process has died or stands still, or nobody can hear it. One that the broker misses already stays lost."""
        log = self.fleets[agent.fleet.no]
        if agent.no not in log.noticed_us:
            log.lost_us[agent.no] = self._clock.now_us

    def agent_found(self, agent: "SimAgent") -> None:
        """It goes on, or can be heard again. If the broker has not noticed by now, nothing was lost."""
        log = self.fleets[agent.fleet.no]
        if agent.no not in log.noticed_us:
            log.lost_us.pop(agent.no, None)

    def connected(self, agent: "SimAgent") -> None:
        """A session has come about, as the agent sees it."""
        self.connects.append(self._clock.now_us)

    def reconnects_s(self) -> list[float]:
        """How long after the latest herd was let in each session came about."""
        if self.herd_us < 0:
            return []
        return [(at_us - self.herd_us) / SECOND_US for at_us in self.connects if at_us >= self.herd_us]

    def reconnect_peak(self, from_us: int, until_us: int | None = None) -> int:
        """The most sessions that came about in one second of a stretch of the run, or of all after `from_us`."""
        inside = [at_us for at_us in self.connects if from_us <= at_us and (until_us is None or at_us < until_us)]
        seconds = np.asarray(inside, np.int64) // SECOND_US
        return int(np.bincount(seconds - seconds.min()).max()) if len(seconds) else 0

    def broker_down(self) -> None:
        """Nobody is connected any more."""
        for log in self.fleets.values():
            log.live.clear()
            self._count_up(log, self._clock.now_us)

    # --- the end ----------------------------------------------------------------------------------------------------

    def mark(self, commits: int) -> None:
        """A phase of the window begins, or the window ends, now; so many commits have begun since the start."""
        now_us = self._clock.now_us
        for level in self.levels():
            level.mark(now_us)
        if now_us == self.begin_us:
            for log in self.fleets.values():
                log.spells.begin(now_us)
        self.marks.append(mark_of(self, now_us, commits))

    def count_begun(self) -> None:
        """Count the jobs that are under way at the very end and were assigned before: their wait is over."""
        for job in self.jobs.values():
            if job.started_us >= 0:
                self.work[job.work.number].count("begun", self._phase_of(job.arrived_us))

    def look(self) -> None:
        """A window of the pictures ends now."""
        for log in self.fleets.values():
            log.shares.look(self._clock.now_us)
            for tally in (log.waits, log.runs, log.latencies):
                tally.look()

    def slots_us_until(self, agent: "SimAgent", now_us: int) -> int:
        """Slots of an agent times how long its processes were there inside the window, until now."""
        key = (agent.fleet.no, agent.no)
        since_us = self._on_us.get(key, now_us)
        inside_us = max(0, min(now_us, self.end_us) - max(since_us, self.begin_us))
        return self.slot_us.get(key, 0) + inside_us * agent.pool.slots

    def levels(self) -> list[Level]:
        """All levels."""
        logs = self.fleets.values()
        own = [self.system] if len(logs) == 1 else [self.waiting, self.system]
        return own + [level for log in logs for level in (log.waiting, log.running, log.up)]

    def digest(self) -> str:
        """Of all transitions and notices so far, with their times."""
        self._fold_effects()
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
