"""What goes into a dispatcher and what comes out: events are facts, effects are orders.

Events are in the past tense and effects imperative. `ticket` is the driver's number for whoever waits for a reply.
`body` values are opaque: a dispatcher hands them on to the write they belong to and never looks inside.
All times are engine time in microseconds, all durations too; 0 means "not given".
"""

from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeVar, dataclass_transform

from broker.dispatch.model import (
    NO_JOB,
    OWN_PREFETCH,
    AgentNo,
    DrainEnd,
    DrainThen,
    GroupNo,
    JobKey,
    JobState,
    OnLoss,
    OperationPolicy,
    OutcomeStatus,
    Placing,
    SessionId,
    Spread,
)
from broker.dispatch.rows import RequestRow, Writes

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def message(cls: type[T]) -> type[T]:
    """Frozen to the type checker, plain slots at run time: a quarter of the cost of `frozen=True`."""
    return dataclass(slots=True)(cls)


class KnownJob(NamedTuple):
    """A job that the store has already under the same id or key."""

    job_key: JobKey
    digest: bytes


class AttemptId(NamedTuple):
    """One attempt of one job: what every message about a job carries."""

    job_key: JobKey
    attempt: int


# --- events ---------------------------------------------------------------------------------------------------------


@message
class JobSubmitted:
    """Somebody wants this job run. `labels` are sorted `key=value` texts, `level` is 1 (first) to 5 (last).

    `known` is what the store has under the same id or key, looked up by the driver before the step.
    """

    ticket: int
    job_id: bytes
    operation: str
    policy: OperationPolicy
    digest: bytes
    labels: tuple[str, ...] = ()
    level: int = 3
    fairness: str = ""
    limit_key: str = ""
    environment_no: int = 0
    delay_us: int = 0
    schedule_to_start_us: int = 0
    run_timeout_us: int = 0
    total_timeout_us: int = 0
    payload_bytes: int = 0
    idempotency_key: str = ""
    requeued_from: JobKey = NO_JOB
    known: KnownJob | None = None
    body: object = None


@message
class AgentAdded:
    """An operator (or `--dev`) added an agent to the group; it has never connected.

    `rank` and `labels` are as in `RankSet` and `LabelsSet`. `request` is written with the agent.
    """

    ticket: int
    agent: AgentNo
    agent_id: str
    rank: int = 0
    labels: tuple[str, ...] = ()
    request: RequestRow | None = None


@message
class AttemptAccepted:
    """The agent has taken the attempt."""

    agent: AgentNo
    session: SessionId
    job_key: JobKey
    attempt: int


@message
class AttemptStarted:
    """The attempt runs."""

    agent: AgentNo
    session: SessionId
    job_key: JobKey
    attempt: int


class RejectCause:
    """Why an agent refuses an attempt: no room, cannot run the operation, or leaving."""

    BUSY: Final = "busy"
    UNFIT: Final = "unfit"
    LEAVING: Final = "leaving"


@message
class AttemptRejected:
    """The agent does not take the attempt; `cause` is one of `RejectCause`."""

    agent: AgentNo
    session: SessionId
    job_key: JobKey
    attempt: int
    cause: str
    text: str = ""


@message
class AttemptFinished:
    """The agent reports how the attempt ended. `body` is the result."""

    agent: AgentNo
    session: SessionId
    job_key: JobKey
    attempt: int
    status: OutcomeStatus
    code: str = ""
    text: str = ""
    retryable: bool = True
    body: object = None


@message
class AttemptProgressed:
    """The agent reports a checkpoint for the attempt (`body`), kept for the next one."""

    agent: AgentNo
    session: SessionId
    job_key: JobKey
    attempt: int
    body: object = None


@message
class AgentConnected:
    """An agent said Hello on a new stream (or again, after Resync, on the same)."""

    agent: AgentNo
    session: SessionId
    incarnation: bytes
    connect_seq: int
    slots: int
    capacity: int
    capacity_seq: int
    operations: frozenset[str]
    labels: frozenset[str]
    held: tuple[AttemptId, ...] = ()
    outcomes: tuple[AttemptFinished, ...] = ()
    finished: tuple[AttemptId, ...] = ()
    """Those of `held` that have succeeded or failed: the outcome follows."""


@message
class CapacityStated:
    """The agent states the most attempts it will hold from now on."""

    agent: AgentNo
    session: SessionId
    capacity: int
    seq: int


@message
class AgentsHeard:
    """Frames arrived: (agent, its session, arrival time), once a batch."""

    heard: tuple[tuple[AgentNo, SessionId, int], ...]


@message
class AgentLeft:
    """Goodbye: the agent leaves in good order and holds nothing."""

    agent: AgentNo
    session: SessionId


@message
class AgentLeaving:
    """The agent wants to leave (SIGTERM): nothing new until its next Hello. A drain of its session only."""

    agent: AgentNo
    session: SessionId


@message
class SessionClosed:
    """A stream ended, for whatever reason; its end says nothing more."""

    agent: AgentNo
    session: SessionId


@message
class CancelRequested:
    """Somebody wants the job stopped."""

    ticket: int
    job_key: JobKey
    actor: str = ""


class HeldDecision:
    """What a person decides about a held job."""

    RETRY: Final = "retry"
    FAIL: Final = "fail"
    SUCCEED: Final = "succeed"


@message
class HeldResolved:
    """A person has decided about a held job; `decision` is a `HeldDecision`, `comment` is the message of a failure."""

    ticket: int
    job_key: JobKey
    decision: str
    actor: str = ""
    comment: str = ""


@message
class DrainRequested:
    """An operator wants the agent drained. `deadline_us` is a duration from now (0: none)."""

    ticket: int
    agent: AgentNo
    ends: DrainEnd
    then: DrainThen = DrainThen.FINISH
    deadline_us: int = 0
    actor: str = ""
    reason: str = ""


@message
class DrainCancelled:
    """An operator takes the drain back."""

    ticket: int
    agent: AgentNo
    actor: str = ""


@message
class ResumeRequested:
    """An operator ends the pause."""

    ticket: int
    agent: AgentNo
    actor: str = ""


@message
class DisableRequested:
    """An operator switches the agent off: when it is idle, or `now`."""

    ticket: int
    agent: AgentNo
    now: bool = False
    actor: str = ""
    reason: str = ""


@message
class EnableRequested:
    """An operator switches the agent on again."""

    ticket: int
    agent: AgentNo
    actor: str = ""


@message
class RemoveRequested:
    """An operator removes the agent from the group for good."""

    ticket: int
    agent: AgentNo
    actor: str = ""


@message
class RankSet:
    """An operator gives the agent its rank among the agents of the group (0 is first)."""

    ticket: int
    agent: AgentNo
    rank: int
    actor: str = ""


@message
class LabelsSet:
    """An operator gives the agent these labels in the place of those before: sorted `key=value` texts.

    They win over what the agent claims under the same key.
    """

    ticket: int
    agent: AgentNo
    labels: tuple[str, ...]
    actor: str = ""


@message
class GroupConfigured:
    """How the group places work from now on, whether it takes jobs while none of its agents is active, and its bounds.

    Not durable here: the driver keeps it with the group and passes it in again after a start. Bounds that are 0 stay as
    they are.
    """

    ticket: int
    spread: Spread
    refuses_inactive: bool
    placing: Placing = Placing.LEAST_LOADED
    placing_choices: int = 2
    prefetch: float = OWN_PREFETCH
    queue_jobs_max: int = 0
    queue_bytes_max: int = 0


@message
class GroupRemoveRequested:
    """The group is to go, with its agents and its jobs. The driver has made that durable, and asks again at a start."""

    ticket: int
    actor: str = ""


@message
class TimerFired:
    """The deadline that the dispatcher asked for may have come: always the last event of a batch.

    `lag_us` is how long the driver did not step although it should have: liveness deadlines move by it.
    """

    lag_us: int = 0


Event = (
    JobSubmitted
    | AgentAdded
    | AttemptAccepted
    | AttemptStarted
    | AttemptRejected
    | AttemptFinished
    | AttemptProgressed
    | AgentConnected
    | CapacityStated
    | AgentsHeard
    | AgentLeft
    | AgentLeaving
    | SessionClosed
    | CancelRequested
    | HeldResolved
    | DrainRequested
    | DrainCancelled
    | ResumeRequested
    | DisableRequested
    | EnableRequested
    | RemoveRequested
    | RankSet
    | LabelsSet
    | GroupConfigured
    | GroupRemoveRequested
    | TimerFired
)


# --- effects: replies -----------------------------------------------------------------------------------------------


@message
class JobAccepted:
    """The job is durable; `duplicate` when it was accepted before."""

    ticket: int
    job_key: JobKey
    duplicate: bool = False


@message
class RequestRefused:
    """Nothing was changed. `reason` is a row of `broker.dispatch.reasons`."""

    ticket: int
    reason: str
    text: str
    job_key: JobKey = JobKey(0)


@message
class RequestDone:
    """An operator's request is carried out, or under way; `state` is what it led to."""

    ticket: int
    state: str = ""


@message
class GroupRemoval:
    """The removal of a group has begun: so many live jobs are being cancelled and agents removed."""

    ticket: int
    jobs: int
    agents: int


Reply = JobAccepted | RequestRefused | RequestDone | GroupRemoval


# --- effects: sends -------------------------------------------------------------------------------------------------


@message
class AssignJob:
    """Give the attempt to the agent. `total_by_us` is engine time."""

    session: SessionId
    job_key: JobKey
    attempt: int
    job_id: bytes
    operation: str
    run_timeout_us: int
    total_by_us: int
    exclusive: bool
    on_loss: OnLoss = OnLoss.RETRY


class StopReason:
    """Why an attempt is to stop: stored with the job while it stops, and shown."""

    REQUESTED: Final = "requested"
    RUN_TIMEOUT: Final = "run_timeout"
    TOTAL_TIMEOUT: Final = "total_timeout"
    ACCEPT_TIMEOUT: Final = "accept_timeout"
    SUPERSEDED: Final = "superseded"
    DRAIN_REQUEUE: Final = "drain_requeue"
    DRAIN_KILL: Final = "drain_kill"
    DISABLED: Final = "agent_disabled"
    REMOVED: Final = "agent_removed"
    GROUP_REMOVED: Final = "group_removed"


@message
class CancelAttempt:
    """Tell the agent to stop the attempt; `reason` is one of `StopReason`."""

    session: SessionId
    job_key: JobKey
    attempt: int
    reason: str
    grace_us: int


@message
class AcceptOutcome:
    """The outcome counted and is durable: the agent may forget it."""

    session: SessionId
    job_key: JobKey
    attempt: int


@message
class RefuseOutcome:
    """The outcome did not count; the agent may forget it too."""

    session: SessionId
    job_key: JobKey
    attempt: int
    reason: str


@message
class WelcomeAgent:
    """The session has begun; `keep` says for each held attempt of the Hello whether it goes on.

    `prefetch` is the group's (`DispatchPolicy`).
    """

    session: SessionId
    keep: tuple[bool, ...]
    prefetch: float = OWN_PREFETCH


@message
class SetPrefetch:
    """The group gives so many attempts ahead for each slot from now on; below 0: as many as the agent says itself."""

    session: SessionId
    prefetch: float


@message
class RejectAgent:
    """The session does not come about; `code` is the wire's name, `retry_after_us` 0 means do not retry."""

    session: SessionId
    code: str
    text: str
    retry_after_us: int = 0


@message
class EndSession:
    """End the stream at once; `reason` is `superseded`, `taken_over`, `silent`, `disabled` or `removed`.

    The engine says `not_owner` and `failed` by itself.
    """

    session: SessionId
    reason: str


@message
class DrainAgent:
    """Tell the agent that it is drained. `deadline_us` is what is left (0: no deadline)."""

    session: SessionId
    ends: DrainEnd
    then: DrainThen
    deadline_us: int
    actor: str
    reason: str


@message
class UndrainAgent:
    """The drain is taken back, or the pause ended: the agent works on as before."""

    session: SessionId
    actor: str


@message
class FinishDrain:
    """The agent holds nothing more: after `STOP` it leaves, after `PAUSE` it stays connected."""

    session: SessionId
    ends: DrainEnd


Send = (
    AssignJob
    | CancelAttempt
    | AcceptOutcome
    | RefuseOutcome
    | WelcomeAgent
    | SetPrefetch
    | RejectAgent
    | EndSession
    | DrainAgent
    | UndrainAgent
    | FinishDrain
)


# --- effects: notices -----------------------------------------------------------------------------------------------


@message
class Transition:
    """A job changed state: the single fact from which history, metrics and notifications are derived.

    `ready_us` is when the job could first be placed, `started_us` when the attempt was first heard to run (0: never).
    """

    group: GroupNo
    job_key: JobKey
    attempt: int
    at_us: int
    from_state: JobState | None
    to_state: JobState
    reason: str
    agent: AgentNo
    actor: str = ""
    accepted_us: int = 0
    ready_us: int = 0
    started_us: int = 0


@message
class AgentNoticed:
    """Something about an agent changed; `link` is a `Link`, `why` a word, `actor` the operator who did it."""

    group: GroupNo
    agent: AgentNo
    at_us: int
    link: str
    why: str
    actor: str = ""


Notice = Transition | AgentNoticed


@dataclass(slots=True)
class Effects:
    """What a driver must do, in this order: writes (one durable transaction), replies, sends, notices.

    Nothing below starts before what is above is done: durable before visible.
    """

    writes: Writes = field(default_factory=Writes)
    replies: list[Reply] = field(default_factory=list)
    sends: list[Send] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.writes or self.replies or self.sends or self.notices)
