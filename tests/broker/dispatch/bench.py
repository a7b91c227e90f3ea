"""A group on a bench: a driven dispatcher whose agents and jobs have short names.

Each call of a `GroupBench` is one batch at the bench's time. Attempts are `j1` (the latest of j1) or `j1#2`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self

from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AgentLeaving,
    AgentLeft,
    AgentsHeard,
    AttemptAccepted,
    AttemptFinished,
    AttemptId,
    AttemptProgressed,
    AttemptRejected,
    AttemptStarted,
    CancelRequested,
    CapacityStated,
    DisableRequested,
    DrainCancelled,
    DrainRequested,
    EnableRequested,
    Event,
    GroupConfigured,
    GroupRemoveRequested,
    HeldResolved,
    JobSubmitted,
    KnownJob,
    LabelsSet,
    RankSet,
    RejectCause,
    RemoveRequested,
    ResumeRequested,
    SessionClosed,
)
from broker.dispatch.model import (
    NO_SESSION,
    SECOND_US,
    Agent,
    AgentNo,
    DrainEnd,
    DrainThen,
    Job,
    JobKey,
    JobState,
    OnLoss,
    OperationPolicy,
    OutcomeStatus,
    Phase,
    Placing,
    SessionId,
    Spread,
)
from broker.dispatch.rows import JobRow
from tests.broker.dispatch import words
from tests.broker.dispatch.driver import Driver

OPERATION = "work"
Report = Callable[[AgentNo, SessionId, JobKey, int], Event]


class GroupBench(Driver):
    """One agent group. `policy` fields and the seed of the jitter may be given; times are in seconds."""

    def __init__(
        self,
        seed: int = 1,
        spread: str = Spread.BALANCED,
        placing: str = Placing.LEAST_LOADED,
        **policy: int,
    ) -> None:
        super().__init__(seed, spread, placing, **policy)
        self._policies: dict[OperationPolicy, int] = {}
        self._names: dict[JobKey, str] = {}
        self._keys: dict[str, JobKey] = {}
        self._agents: dict[str, AgentNo] = {}
        self._sessions: dict[SessionId, str] = {}
        self._hellos: dict[str, AgentConnected] = {}
        self._ticket = 0
        self._session_no = 0

    # --- agents -----------------------------------------------------------------------------------------------------

    def agents(self, *names: str, **hello: Any) -> Self:
        """Add agents and connect them."""
        for name in names:
            self.add(name).connect(name, **hello)
        return self

    def add(self, name: str, *, rank: int = 0, labels: Iterable[str] = ()) -> Self:
        """An operator adds an agent, which has never connected."""
        number = self._agents.setdefault(name, AgentNo(len(self._agents) + 1))
        return self.batch(AgentAdded(self._next_ticket(), number, name, rank, tuple(sorted(labels))))

    def connect(
        self,
        name: str,
        *,
        held: Iterable[str] = (),
        outcomes: Iterable[str] = (),
        finished: Iterable[str] = (),
        new: bool = False,
        old: bool = False,
        stale: bool = False,
        resync: bool = False,
        **hello: Any,
    ) -> Self:
        """Hello of the same process as before, of a `new` one, or of the one before it (`old`).

        It comes on a new stream (`resync`: on the same).

        `held` are attempts (`j1`: the latest, `j1#2`) that it still has, `finished` those of them whose outcomes are to
        follow, `outcomes` are `j1=succeeded` texts. What else is in `hello` (slots, capacity, operations, labels) stays
        as it was when it is not given. `stale`: an older stream of the process says its Hello late.
        """
        before = self._hellos.get(name)
        incarnation = f"{name}-1".encode() if before is None else before.incarnation
        sequence = 1 if before is None else before.connect_seq + 1
        if new and before is not None:
            number = int(before.incarnation.rsplit(b"-")[1]) + 1
            incarnation, sequence = f"{name}-{number}".encode(), 1
        if old and before is not None:
            number = int(before.incarnation.rsplit(b"-")[1]) - 1
            incarnation = f"{name}-{number}".encode()
        is_late = stale or (old and self.agent(name).is_present)
        session = self.agent(name).session if resync else self._next_session(name)
        event = AgentConnected(
            agent=self._agents[name],
            session=session,
            incarnation=incarnation,
            connect_seq=0 if stale else sequence,
            slots=hello.get("slots", before.slots if before else 1),
            capacity=hello.get("capacity", hello.get("slots", before.capacity if before else 1)),
            capacity_seq=before.capacity_seq + 1 if before else 1,
            operations=frozenset(hello.get("operations", before.operations if before else (OPERATION,))),
            labels=frozenset(hello.get("labels", before.labels if before else ())),
            held=tuple(self.attempt_of(text) for text in held),
            outcomes=tuple(self._outcome(name, session, text) for text in outcomes),
            finished=tuple(self.attempt_of(text) for text in finished),
        )
        if not is_late:
            self._hellos[name] = event
        self.muted.discard(name)
        return self.batch(event)

    def close(self, name: str, session: SessionId | None = None) -> Self:
        """The stream of the agent ends."""
        session = self.agent(name).session if session is None else session
        return self.batch(SessionClosed(self._agents[name], session))

    def lose(self, name: str) -> Self:
        """The stream of the agent ends and it does not come back in time."""
        return self.close(name).advance(self.policy.reconnect_grace_us / SECOND_US)

    def leave(self, name: str) -> Self:
        """Goodbye."""
        return self.batch(AgentLeft(self._agents[name], self.agent(name).session))

    def mute(self, name: str) -> Self:
        """From now on nothing is heard of the agent; its stream stays."""
        self.muted.add(name)
        return self

    def unmute(self, name: str) -> Self:
        """The agent is heard again, at once."""
        self.muted.discard(name)
        agent = self.agent(name)
        return self.batch(AgentsHeard(((agent.no, agent.session, self.now_us),)))

    def capacity(self, name: str, capacity: int, seq: int | None = None) -> Self:
        """The agent states a new capacity."""
        before = self._hellos[name]
        seq = before.capacity_seq + 1 if seq is None else seq
        self._hellos[name] = replace(before, capacity=capacity, capacity_seq=max(seq, before.capacity_seq))
        return self.batch(CapacityStated(self._agents[name], self.agent(name).session, capacity, seq))

    def leaving(self, name: str) -> Self:
        """SIGTERM on the agent's machine: it asks for nothing new."""
        return self.batch(AgentLeaving(self._agents[name], self.agent(name).session))

    # --- operators --------------------------------------------------------------------------------------------------

    def drain(self, name: str, *, ends: str = "stop", then: str = "finish", deadline_s: float = 0) -> Self:
        """An operator (ann) drains the agent."""
        ticket, number, deadline_us = self._next_ticket(), self._agents[name], round(deadline_s * SECOND_US)
        return self.batch(
            DrainRequested(ticket, number, DrainEnd(ends), DrainThen(then), deadline_us, "ann", "new disk")
        )

    def cancel_drain(self, name: str) -> Self:
        return self.batch(DrainCancelled(self._next_ticket(), self._agents[name], "ann"))

    def resume(self, name: str) -> Self:
        return self.batch(ResumeRequested(self._next_ticket(), self._agents[name], "ann"))

    def disable(self, name: str, *, now: bool = False) -> Self:
        return self.batch(DisableRequested(self._next_ticket(), self._agents[name], now, "ann", "new disk"))

    def enable(self, name: str) -> Self:
        return self.batch(EnableRequested(self._next_ticket(), self._agents[name], "ann"))

    def remove(self, name: str) -> Self:
        return self.batch(RemoveRequested(self._next_ticket(), self._agents[name], "ann"))

    def rank(self, name: str, rank: int) -> Self:
        return self.batch(RankSet(self._next_ticket(), self._agents[name], rank, "ann"))

    def label(self, name: str, *, labels: Iterable[str] = ()) -> Self:
        """An operator gives the agent these labels."""
        return self.batch(LabelsSet(self._next_ticket(), self._agents[name], tuple(sorted(labels)), "ann"))

    def configure(
        self,
        *,
        spread: str = Spread.BALANCED,
        refuses_inactive: bool = False,
        placing: str = "",
        prefetch: float | None = None,
        **bounds: int,
    ) -> Self:
        """An operator changes how the group works; the driver keeps it over a restart.

        `placing` and `prefetch` stay as they are if they are not given, and so do `bounds`: `placing_choices` and those
        of the queue.
        """
        way, rank = Placing(placing or self.policy.placing), Spread(spread)
        ahead = self.policy.prefetch if prefetch is None else prefetch
        self.policy = replace(
            self.policy, spread=rank, refuses_inactive=refuses_inactive, placing=way, prefetch=ahead, **bounds
        )
        event = GroupConfigured(self._next_ticket(), rank, refuses_inactive, way, prefetch=ahead, **bounds)
        return self.batch(event)

    def remove_group(self) -> Self:
        return self.batch(GroupRemoveRequested(self._next_ticket(), "ann"))

    def resolve(self, name: str, decision: str, comment: str = "") -> Self:
        """A person decides about a held job: retry, fail or succeed."""
        return self.batch(HeldResolved(self._next_ticket(), self._keys[name], decision, "ann", comment))

    # --- submitters -------------------------------------------------------------------------------------------------

    def submit(self, *names: str, **fields: Any) -> Self:
        """Submit jobs of these names, a batch each. See `submission` for the fields."""
        for name in names:
            event = self.submission(name, **fields)
            self.batch(event)
            self._learn(name, event)
        return self

    def submit_together(self, *names: str, **fields: Any) -> Self:
        """Submit all in one batch."""
        events = [self.submission(name, **fields) for name in names]
        self.batch(*events)
        for name, event in zip(names, events, strict=True):
            self._learn(name, event)
        return self

    def submission(self, name: str, **fields: Any) -> JobSubmitted:
        """The event. Fields are those of `JobSubmitted` and of `OperationPolicy`; durations (`_s`) are seconds.

        `id` is what the job's id is made of (its name), `content` what its digest is.
        """
        fields = {f"{key[:-2]}_us" if key.endswith("_s") else key: _us(key, value) for key, value in fields.items()}
        traits = {key: fields.pop(key) for key in list(fields) if key in OperationPolicy.__dataclass_fields__}
        policy = OperationPolicy(**{**traits, "on_loss": OnLoss(traits.get("on_loss", OnLoss.RETRY))})
        number = self._policies.setdefault(policy, len(self._policies) + 1)
        job_id = fields.pop("id", name).encode()
        return JobSubmitted(
            ticket=self._next_ticket(),
            job_id=job_id,
            operation=fields.pop("operation", OPERATION),
            policy=replace(policy, no=number),
            digest=fields.pop("content", "same").encode(),
            known=self._known(job_id, fields.get("idempotency_key", "")),
            **fields,
        )

    def _known(self, job_id: bytes, key: str) -> KnownJob | None:
        """What the store has under this id or key: the driver looks it up before the step."""
        rows = {**self.stored.jobs, **self.stored.finished}
        for row in rows.values():
            if row.job_id == job_id:
                return KnownJob(row.job_key, row.digest)
        found = self.stored.keys.get(key)
        return KnownJob(found.job_key, found.digest) if found else None

    def _learn(self, name: str, event: JobSubmitted) -> None:
        for row in (*self.last.writes.inserts,):
            if row.job_id == event.job_id:
                self._names[row.job_key] = name
                self._keys[name] = row.job_key

    def cancel(self, *names: str, actor: str = "") -> Self:
        """Somebody wants these jobs stopped."""
        for name in names:
            self.batch(CancelRequested(self._next_ticket(), self._keys[name], actor))
        return self

    # --- reports ----------------------------------------------------------------------------------------------------

    def accept(self, *attempts: str, agent: str = "") -> Self:
        """The agents have taken these attempts (`j1`: the latest, `j1#2`)."""
        return self._each(attempts, agent, AttemptAccepted)

    def start(self, *attempts: str, agent: str = "") -> Self:
        """They run."""
        return self._each(attempts, agent, AttemptStarted)

    def reject(self, *attempts: str, agent: str = "", cause: str = RejectCause.BUSY) -> Self:
        """The agents do not take them."""
        return self._each(attempts, agent, partial(AttemptRejected, cause=cause))

    def progress(self, *attempts: str, agent: str = "", body: object) -> Self:
        """A checkpoint."""
        return self._each(attempts, agent, partial(AttemptProgressed, body=body))

    def finish(self, *attempts: str, agent: str = "", body: object = None) -> Self:
        """They succeeded."""
        return self._each(attempts, agent, partial(AttemptFinished, status=OutcomeStatus.SUCCEEDED, body=body))

    def fail(self, *attempts: str, agent: str = "", retryable: bool = True, code: str = "boom") -> Self:
        """They failed."""
        status = OutcomeStatus.FAILED
        report = partial(AttemptFinished, status=status, code=code, text="it broke", retryable=retryable)
        return self._each(attempts, agent, report)

    def stopped(self, *attempts: str, agent: str = "") -> Self:
        """The agents confirm that they stopped them."""
        return self._each(attempts, agent, partial(AttemptFinished, status=OutcomeStatus.CANCELLED))

    def fenced(self, *attempts: str, agent: str = "") -> Self:
        """The agents stopped them at the end of their lease."""
        return self._each(attempts, agent, partial(AttemptFinished, status=OutcomeStatus.FENCED))

    def _each(self, attempts: Iterable[str], agent: str, report: Report) -> Self:
        for text in attempts:
            key, attempt = self.attempt_of(text)
            reporter = self.agent(agent or self.holder(text))
            self.batch(report(reporter.no, reporter.session, key, attempt))
        return self

    def _outcome(self, agent: str, session: SessionId, text: str) -> AttemptFinished:
        attempt, _, status = text.partition("=")
        key, number = self.attempt_of(attempt)
        return AttemptFinished(self._agents[agent], session, key, number, OutcomeStatus(status))

    def attempt_of(self, text: str) -> AttemptId:
        """`j1` is the latest attempt of j1, `j1#2` its second."""
        name, _, number = text.partition("#")
        row = self.row(name)
        return AttemptId(row.job_key, int(number) if number else row.attempt)

    def holder(self, text: str) -> str:
        """The agent that the job's latest attempt was given to."""
        return self.agent_name(self.row(text.partition("#")[0]).agent_no)

    # --- what is seen -----------------------------------------------------------------------------------------------

    def agent(self, name: str) -> Agent:
        return self.dispatcher.ledger.agents[self._agents[name]]

    def job(self, name: str) -> Job:
        """A live job."""
        return self.dispatcher.ledger.jobs[self._keys[name]]

    def row(self, name: str) -> JobRow:
        """The stored row of a job, live or finished."""
        key = self._keys[name]
        return self.stored.jobs.get(key) or self.stored.finished[key]

    def name(self, key: JobKey) -> str:
        return self._names.get(key, str(key))

    def agent_name(self, number: AgentNo) -> str:
        return next((name for name, one in self._agents.items() if one == number), "-")

    def session_name(self, session: SessionId) -> str:
        return self._sessions.get(session, f"session {session}") if session != NO_SESSION else "nobody"

    @property
    def job_names(self) -> Mapping[str, JobKey]:
        return self._keys

    @property
    def agent_names(self) -> Mapping[str, AgentNo]:
        return self._agents

    @property
    def assigned(self) -> dict[str, list[str]]:
        """Jobs with a live attempt, by agent."""
        return {
            agent.agent_id: [self.name(key) for key in agent.live]
            for agent in self.dispatcher.ledger.agents.values()
            if agent.live
        }

    @property
    def detached(self) -> dict[str, list[str]]:
        """Attempts whose job has moved on, by the agent that may still run them."""
        return {
            agent.agent_id: [f"{self.name(key)}#{attempt}" for key, attempt in agent.detached]
            for agent in self.dispatcher.ledger.agents.values()
            if agent.detached
        }

    @property
    def queued(self) -> list[str]:
        """Jobs that wait for an agent, the oldest first."""
        jobs = [job for job in self.dispatcher.ledger.jobs.values() if job.state is JobState.QUEUED]
        return [self.name(job.key) for job in sorted(jobs, key=lambda job: (job.order_us, job.key))]

    @property
    def states(self) -> dict[str, str]:
        """The state of every job, live as the dispatcher has it, finished as it is stored."""
        live = self.dispatcher.ledger.jobs
        return {
            name: str(live[key].state if key in live else self.stored.finished[key].state)
            for name, key in self._keys.items()
        }

    @property
    def phases(self) -> dict[str, Phase]:
        """The phase of each live job's latest attempt."""
        return {self.name(key): job.phase for key, job in self.dispatcher.ledger.jobs.items()}

    @property
    def sends(self) -> list[str]:
        """What the last call sent, as words."""
        return words.sends(self, self.last)

    @property
    def replies(self) -> list[str]:
        """What the last call replied, as words."""
        return words.replies(self, self.last)

    @property
    def placements(self) -> list[str]:
        """All placements so far, in order, as `j1#1 a`."""
        return [line for _, effects in self.history for line in words.placements(self, effects)]

    def _next_ticket(self) -> int:
        self._ticket += 1
        return self._ticket

    def _next_session(self, name: str) -> SessionId:
        self._session_no += 1
        session = SessionId(self._session_no)
        self._sessions[session] = name
        return session


def _us(key: str, value: Any) -> Any:
    return round(value * SECOND_US) if key.endswith("_s") else value
