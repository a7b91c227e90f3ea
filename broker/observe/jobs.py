"""What happened to the jobs of one group since the broker started: counted from the notices of each batch.

This is the only place that looks at every transition, so the common ones (accepted, assigned, started, succeeded) take
a branch each and nothing else; the rest, a few in a thousand, may take their time.
"""

from collections import Counter
from collections.abc import Container, Iterable, Sequence
from typing import Final

from broker import series
from broker.dispatch import reasons
from broker.dispatch.ledger import Ledger
from broker.dispatch.liveness import STUCK
from broker.dispatch.messages import AgentNoticed, Notice, Transition
from broker.dispatch.model import FINAL_STATES, AgentNo, JobKey, JobState
from broker.observe.distribution import MICRO, Distribution
from broker.observe.evenness import Evenness

RETURN_REASONS: Final = (reasons.AGENT_LOST, "agent_left", "accept_timeout", "failed", reasons.RUN_TIMEOUT)
"""Counted from 0 on, so that the first one is seen as a rise; the others appear when they happen."""
AGENT_LEFT: Final = "agent_left"
_IN_HAND: Final = frozenset({JobState.ASSIGNED, JobState.RUNNING})
_QUEUED, _ASSIGNED, _RUNNING, _SUCCEEDED = JobState.QUEUED, JobState.ASSIGNED, JobState.RUNNING, JobState.SUCCEEDED


class JobCounts:
    """The counts of one group. `waiting` has the jobs that are scheduled or held, kept from transition to transition;
    what a recovery found is counted once, from its books.
    """

    def __init__(self, ledger: Ledger | None) -> None:
        self.submitted = 0
        self.finished: Counter[JobState] = Counter(dict.fromkeys(sorted(FINAL_STATES), 0))
        self.assigned_total = 0
        self.assigned: Counter[AgentNo] = Counter()
        self.returned: Counter[str] = Counter(dict.fromkeys(RETURN_REASONS, 0))
        self.overlapped = 0
        self.waiting: Counter[JobState] = Counter({JobState.SCHEDULED: 0, JobState.HELD: 0})
        self.wait = Distribution(series.WAIT_SECONDS, MICRO)
        self.run = Distribution(series.RUN_SECONDS, MICRO)
        self.latency = Distribution(series.LATENCY_SECONDS, MICRO)
        self.evenness = Evenness()
        self._unconfirmed: set[JobKey] = set()  # waiting, and nobody has said that their last attempt ended
        if ledger is not None:
            states = Counter(job.state for job in ledger.jobs.values())
            self.waiting.update({state: states[state] for state in self.waiting})

    def add(self, notices: Sequence[Notice], ledger: Ledger | None) -> None:
        """Count the notices of one batch. `ledger` has the books as they are after it."""
        submitted = 0
        agents: list[AgentNo] = []
        waits: list[int] = []
        runs: list[int] = []
        latencies: list[int] = []
        rest: list[Notice] = []
        for notice in notices:
            if type(notice) is not Transition:
                rest.append(notice)
                continue
            after = notice.to_state
            if after is _ASSIGNED and notice.attempt == 1:
                agents.append(notice.agent)
                waits.append(notice.at_us - notice.ready_us)
                continue
            before = notice.from_state
            if after is _RUNNING and before is _ASSIGNED:
                continue
            if after is _SUCCEEDED and (before is _RUNNING or before is _ASSIGNED):
                at_us = notice.at_us
                if notice.started_us:
                    runs.append(at_us - notice.started_us)
                latencies.append(at_us - notice.ready_us)
            elif before is None and after is _QUEUED:
                submitted += 1
            else:
                rest.append(notice)
        self.submitted += submitted
        if agents:
            self._add_assigned(agents)
            self.wait.add_all(waits)
        if latencies:
            self.finished[_SUCCEEDED] += len(latencies)
            self.run.add_all(runs)
            self.latency.add_all(latencies)
        if rest:
            self._add_rest(rest, ledger)

    def turn(self, known: Container[AgentNo]) -> None:
        """The next window of evenness begins; agents that are gone are forgotten."""
        self.assigned = Counter({agent: count for agent, count in self.assigned.items() if agent in known})
        self.evenness.turn()

    def _add_assigned(self, agents: Iterable[AgentNo]) -> None:
        assigned = Counter(agents)
        self.assigned_total += assigned.total()
        self.assigned.update(assigned)
        self.evenness.add(assigned)

    def _add_rest(self, rest: Iterable[Notice], ledger: Ledger | None) -> None:
        for notice in rest:
            if type(notice) is Transition:
                self._add_one(notice, ledger)
            elif type(notice) is AgentNoticed and notice.why != STUCK:
                self.evenness.restart()  # other agents share the work from now on

    def _add_one(self, notice: Transition, ledger: Ledger | None) -> None:
        """Count a transition that is not among the common ones, in its order."""
        before, after = notice.from_state, notice.to_state
        if before is None:
            self.submitted += 1
        elif before in self.waiting:
            self.waiting[before] -= 1
        if after in self.waiting:
            self.waiting[after] += 1
        if after is _ASSIGNED:
            self.overlapped += notice.job_key in self._unconfirmed
            self._add_assigned((notice.agent,))
        self._unconfirmed.discard(notice.job_key)
        if after in FINAL_STATES:
            self.finished[after] += 1
            if after is _SUCCEEDED:
                self.latency.add(notice.at_us - notice.ready_us)
        if before in _IN_HAND and after is not _RUNNING:
            self._add_end(notice, ledger)

    def _add_end(self, notice: Transition, ledger: Ledger | None) -> None:
        """Count the end of an attempt, by its outcome or without one."""
        if notice.started_us and notice.reason in ("succeeded", "failed", reasons.ATTEMPTS_USED):
            self.run.add(notice.at_us - notice.started_us)
        if notice.to_state not in FINAL_STATES:
            self.returned[notice.reason] += 1
            if ledger is not None and _may_still_run(notice, ledger):
                self._unconfirmed.add(notice.job_key)


def _may_still_run(notice: Transition, ledger: Ledger) -> bool:
    """Whether nobody has said that the attempt which the job left behind has ended.

    Its agent is gone without a Goodbye, or still holds it as detached. An exclusive one is fenced before it goes back.
    """
    job = ledger.jobs.get(notice.job_key)
    agent = ledger.agents.get(notice.agent)
    if job is None or agent is None or job.policy.exclusive or notice.reason == AGENT_LEFT:
        return False
    return not agent.is_present or (notice.job_key, notice.attempt) in agent.detached
