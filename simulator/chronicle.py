"""What a journal tells: which jobs came when, how long they ran, how often they failed, and which agents were there.

It is heard while the journal is put through the dispatcher again (`simulator.replay`), so nothing is guessed: what was
accepted, assigned and ended is what the dispatcher says. Times are engine time in microseconds.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from broker.dispatch.batch import Batch
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AgentLeaving,
    AgentLeft,
    AttemptFinished,
    CancelRequested,
    Event,
    JobAccepted,
    JobSubmitted,
    LabelsSet,
    RejectAgent,
    RemoveRequested,
    SessionClosed,
    Transition,
)
from broker.dispatch.model import (
    Agent,
    AgentNo,
    DispatchPolicy,
    GroupNo,
    Job,
    JobKey,
    JobState,
    Link,
    OperationPolicy,
    OutcomeStatus,
    SessionId,
)
from simulator.acts import ACTS, PastAct, standing
from simulator.courses import JobCourse
from simulator.replay import Posted
from simulator.streams import SECOND_US

OPEN = -1
"""An end that has not come."""
NOT_PLAYED = (RemoveRequested, LabelsSet)
"""Acts that are not played again: an agent that is removed goes, and one that is labelled has what it had last."""


@dataclass(slots=True, frozen=True)
class Kind:
    """What jobs have in common that are simulated as one class of work."""

    group: GroupNo
    operation: str
    level: int
    labels: tuple[str, ...]
    policy: OperationPolicy
    run_timeout_us: int = 0
    total_timeout_us: int = 0


@dataclass(slots=True)
class PastJob:
    """A job of the journal. `ran_us` is how long its last attempt ran, `OPEN` when it never ended.

    `is_hopeless`: one of its attempts failed in a way that no other attempt would have mended.
    """

    kind: Kind
    submitted_us: int
    course: JobCourse
    start_within_us: int = 0
    ran_us: int = OPEN
    failed: int = 0
    is_hopeless: bool = False
    cancelled_us: int = OPEN
    began_us: int = 0
    fairness: str = ""


@dataclass(slots=True)
class PastProcess:
    """One process of an agent, from its first Hello until its stream was closed for good.

    `leaving_us` is when it said that it wants to leave; `is_orderly`: it left with a Goodbye, and lost nothing.
    """

    incarnation: bytes
    from_us: int
    to_us: int = OPEN
    leaving_us: int = OPEN
    is_orderly: bool = False


@dataclass(slots=True)
class PastAgent:
    """An agent of the journal, as it was last heard; its rank is the first. `session` is its latest stream."""

    slots: int = 1
    capacity: int = 1
    labels: frozenset[str] = frozenset()
    rank: int = 0
    session: SessionId | None = None
    processes: list[PastProcess] = field(default_factory=list)


class Chronicle:
    """Hears a replay. `jobs` are in the order of acceptance, `acts` what operators did, in order.

    `operators` counts those of their acts that are not played again.
    """

    def __init__(self) -> None:
        self.jobs: list[PastJob] = []
        self.agents: dict[tuple[GroupNo, AgentNo], PastAgent] = {}
        self.policies: dict[GroupNo, DispatchPolicy] = {}
        self.began_us = OPEN
        self.ended_us = 0
        self.carried = 0
        self.acts: list[PastAct] = []
        self.operators: Counter[str] = Counter()
        self._live: dict[tuple[GroupNo, JobKey], PastJob] = {}
        self._asked: dict[tuple[GroupNo, int], tuple[int, JobSubmitted]] = {}

    def on_group(self, group: GroupNo, dispatcher: Dispatcher) -> None:
        """Take in what a segment begins with, as far as it is not known."""
        self.policies[group] = dispatcher.ledger.policy
        for number, agent in dispatcher.ledger.agents.items():
            past = self._agent(group, number, agent)
            if agent.link in (Link.LIVE, Link.SUSPECT) and not past.processes:
                past.processes.append(PastProcess(agent.incarnation, max(0, self.began_us)))
        for key, job in dispatcher.ledger.jobs.items():
            if (group, key) not in self._live:
                self._carry(group, key, job)

    def _agent(self, group: GroupNo, number: AgentNo, agent: Agent) -> PastAgent:
        if (group, number) not in self.agents:
            self.agents[group, number] = PastAgent(rank=agent.rank)
            self.acts += [PastAct(self.began_us, group, act) for act in standing(agent)]
        found = self.agents[group, number]
        found.slots, found.capacity, found.labels = agent.slots, max(agent.capacity, agent.slots), agent.labels
        if agent.is_present:
            found.session = agent.session
        return found

    def _carry(self, group: GroupNo, key: JobKey, job: Job) -> None:
        """A job that lived before the journal begins: it comes at its beginning."""
        label_set = job.lane.level.label_set
        kind = Kind(
            group,
            label_set.operation,
            job.lane.level.number,
            tuple(sorted(label_set.labels)),
            job.policy,
            job.run_timeout_us,
        )
        at_us = max(0, self.began_us)
        course = JobCourse(label_set.operation, 0.0)
        self._add(group, key, PastJob(kind, at_us, course, fairness=job.lane.fairness))
        self.carried += 1

    def _add(self, group: GroupNo, key: JobKey, job: PastJob) -> None:
        self.jobs.append(job)
        self._live[group, key] = job

    def on_turn(self, at_us: int, events: Sequence[Posted], batch: Batch) -> None:
        """Take in what came, and what came of it."""
        if self.began_us == OPEN:
            self.began_us = at_us
            for job in self.jobs:
                job.submitted_us = at_us
            for agent in self.agents.values():
                for process in agent.processes:
                    process.from_us = at_us
        self.ended_us = at_us
        refused = {
            (group, send.session)
            for group, effects in batch.effects.items()
            for send in effects.sends
            if isinstance(send, RejectAgent)
        }
        for group, event in events:
            if not (isinstance(event, AgentConnected) and (group, event.session) in refused):
                self._on_event(at_us, group, event)
        for group, effects in batch.effects.items():
            for reply in effects.replies:
                if isinstance(reply, JobAccepted) and not reply.duplicate:
                    self._on_accepted(group, reply)
            for notice in effects.notices:
                if isinstance(notice, Transition):
                    self._on_transition(group, notice)

    def _on_event(self, at_us: int, group: GroupNo, event: Event) -> None:
        if isinstance(event, JobSubmitted):
            self._asked[group, event.ticket] = (at_us, event)
        elif isinstance(event, AttemptFinished):
            job = self._live.get((group, event.job_key))
            if job is not None and event.status is OutcomeStatus.FAILED:
                job.failed += 1
                job.is_hopeless = not event.retryable
        elif isinstance(event, CancelRequested):
            job = self._live.get((group, event.job_key))
            if job is not None:
                job.cancelled_us = at_us
        elif isinstance(event, AgentConnected):
            self._on_connected(at_us, group, event)
        elif isinstance(event, SessionClosed | AgentLeft | AgentLeaving):
            self._on_ended(at_us, group, event)
        elif isinstance(event, AgentAdded):
            self.agents.setdefault((group, event.agent), PastAgent(rank=event.rank))
        elif isinstance(event, ACTS):
            self.acts.append(PastAct(at_us, group, event))
        elif isinstance(event, NOT_PLAYED):
            self.operators[type(event).__name__] += 1

    def _on_connected(self, at_us: int, group: GroupNo, event: AgentConnected) -> None:
        agent = self.agents.setdefault((group, event.agent), PastAgent())
        agent.slots, agent.capacity, agent.labels = event.slots, event.capacity, event.labels
        agent.session = event.session
        if agent.processes and agent.processes[-1].incarnation == event.incarnation:
            agent.processes[-1].to_us = OPEN  # the same process is back: its stream was broken, not its life
            return
        if agent.processes and agent.processes[-1].to_us == OPEN:
            agent.processes[-1].to_us = at_us
        agent.processes.append(PastProcess(event.incarnation, at_us))

    def _on_ended(self, at_us: int, group: GroupNo, event: SessionClosed | AgentLeft | AgentLeaving) -> None:
        """A stream has ended, or will. An agent that is back on a newer one is not gone with it."""
        agent = self.agents.get((group, event.agent))
        if agent is None or not agent.processes or agent.session != event.session:
            return
        process = agent.processes[-1]
        if isinstance(event, AgentLeaving):
            process.leaving_us = at_us
            return
        process.to_us = at_us
        process.is_orderly |= isinstance(event, AgentLeft)

    def _on_accepted(self, group: GroupNo, reply: JobAccepted) -> None:
        at_us, event = self._asked.pop((group, reply.ticket), (OPEN, None))
        if event is None:
            return
        kind = Kind(
            group,
            event.operation,
            event.level,
            event.labels,
            event.policy,
            event.run_timeout_us,
            event.total_timeout_us,
        )
        due_us = at_us + event.delay_us
        course = JobCourse(event.operation, (due_us - self.began_us) / SECOND_US)
        job = PastJob(kind, due_us, course, event.schedule_to_start_us, fairness=event.fairness)
        self._add(group, reply.job_key, job)

    def _on_transition(self, group: GroupNo, notice: Transition) -> None:
        job = self._live.get((group, notice.job_key))
        if job is None:
            return
        job.course.move((notice.at_us - self.began_us) / SECOND_US, notice.to_state, f"{group}-{notice.agent}")
        if notice.to_state in (JobState.ASSIGNED, JobState.RUNNING):
            job.began_us = notice.at_us
        if job.course.state:
            if job.began_us and notice.to_state in (JobState.SUCCEEDED, JobState.FAILED):
                job.ran_us = max(1, notice.at_us - job.began_us)
            del self._live[group, notice.job_key]
