"""An agent's frames as events, and orders as what the session reads: `broker.rpc.agent_convert` without the wire."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from agent_stub.session import Assign, Cancel, Frame, Hello, Outcome, RejectedReason, Verdict, Welcome
from agent_stub.session import OutcomeStatus as SessionStatus
from broker.dispatch.messages import (
    AgentConnected,
    AgentLeaving,
    AgentLeft,
    AssignJob,
    AttemptAccepted,
    AttemptFinished,
    AttemptId,
    AttemptRejected,
    AttemptStarted,
    CancelAttempt,
    CapacityStated,
    Event,
    RejectCause,
    WelcomeAgent,
)
from broker.dispatch.model import AgentNo, DispatchPolicy, JobKey, OutcomeStatus, SessionId
from simulator.network import Connection

if TYPE_CHECKING:
    from simulator.workload import SimJob

_STATUS: Final = {
    SessionStatus.SUCCEEDED: OutcomeStatus.SUCCEEDED,
    SessionStatus.FAILED: OutcomeStatus.FAILED,
    SessionStatus.CANCELLED: OutcomeStatus.CANCELLED,
    SessionStatus.FENCED: OutcomeStatus.FENCED,
}
# Of a member that is asked for several times a job: through its class each look-up costs 0.1 us up to Python 3.11.
_SUCCEEDED: Final = OutcomeStatus.SUCCEEDED
_CAUSES: Final = {
    RejectedReason.BUSY: RejectCause.BUSY,
    RejectedReason.UNFIT: RejectCause.UNFIT,
    RejectedReason.LEAVING: RejectCause.LEAVING,
}


def hello_of(connection: Connection, hello: Hello) -> AgentConnected:
    """Hello as an event."""
    agent = connection.agent
    return AgentConnected(
        agent.no,
        connection.session,
        agent.incarnation,
        hello.connect_seq,
        hello.slots,
        hello.capacity.attempts,
        hello.capacity.seq,
        agent.fleet.operations,
        agent.labels,
        tuple(AttemptId(JobKey(key), attempt) for key, attempt in hello.held),
        tuple(_outcome(agent.no, connection.session, outcome) for outcome in hello.outcomes),
        tuple(AttemptId(JobKey(key), attempt) for key, attempt in hello.finished),
    )


def events_of(connection: Connection, frame: Frame) -> list[Event]:
    """All that a frame says of work, in the order of its fields."""
    agent, session = connection.agent.no, connection.session
    events: list[Event] = []
    if frame.capacity is not None:
        events.append(CapacityStated(agent, session, frame.capacity.attempts, frame.capacity.seq))
    for key, attempt in frame.accepted:
        events.append(AttemptAccepted(agent, session, JobKey(key), attempt))
    for one in frame.rejected:
        cause = _CAUSES[one.reason]
        events.append(AttemptRejected(agent, session, JobKey(one.job_key), one.attempt, cause, one.text))
    for key, attempt in frame.started:
        events.append(AttemptStarted(agent, session, JobKey(key), attempt))
    events.extend([_outcome(agent, session, outcome) for outcome in frame.outcomes])
    if frame.drain_request is not None:
        events.append(AgentLeaving(agent, session))
    if frame.goodbye is not None:
        events.append(AgentLeft(agent, session))
    return events


def _outcome(agent: AgentNo, session: SessionId, outcome: Outcome) -> AttemptFinished:
    status = _STATUS[outcome.status]
    key = JobKey(outcome.job_key)
    if status is _SUCCEEDED:
        return AttemptFinished(agent, session, key, outcome.attempt, status)
    return AttemptFinished(agent, session, key, outcome.attempt, status, outcome.code, outcome.text, outcome.retryable)


def welcome_of(order: WelcomeAgent, epoch: int, policy: DispatchPolicy) -> Welcome:
    """Welcome as the session reads it."""
    verdicts: Sequence[int] = [Verdict.KEEP if one else Verdict.STOP for one in order.keep]
    return Welcome(
        order.session,
        epoch,
        policy.lease_us,
        policy.margin_us,
        policy.heartbeat_us,
        policy.idle_heartbeat_us,
        verdicts,
        prefetch=order.prefetch,
    )


def assign_of(order: AssignJob, job: "SimJob", now_us: int) -> Assign:
    """An assignment as the session reads it; its body is the job of the world."""
    left_us = max(0, order.total_by_us - now_us) if order.total_by_us else 0
    key, attempt = order.job_key, order.attempt
    return Assign(key, attempt, order.operation, order.exclusive, order.run_timeout_us, left_us, job)


def cancel_of(order: CancelAttempt) -> Cancel:
    """A cancel as the session reads it."""
    return Cancel(order.job_key, order.attempt, order.reason, order.grace_us)
