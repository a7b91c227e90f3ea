"""Frames of the agent stream to events, and orders to frames.

What an agent says is bounded here: lists that do not belong together raise MalformedError, texts are cut at their
limit, a result over its limit turns the outcome into a failure that says so.
"""

from typing import Final
from urllib.parse import unquote

from google.protobuf.duration_pb2 import Duration

from broker.control.presence import Machine
from broker.dispatch.messages import (
    AgentConnected,
    AgentLeaving,
    AgentLeft,
    AttemptAccepted,
    AttemptFinished,
    AttemptId,
    AttemptProgressed,
    AttemptRejected,
    AttemptStarted,
    CapacityStated,
    DrainAgent,
    Event,
    FinishDrain,
    RejectCause,
    SetPrefetch,
    StopReason,
    UndrainAgent,
    WelcomeAgent,
)
from broker.dispatch.model import (
    SECOND_US,
    AgentNo,
    DispatchPolicy,
    DrainEnd,
    DrainThen,
    JobKey,
    OnLoss,
    OutcomeStatus,
    SessionId,
)
from broker.errors import MalformedError
from broker.settings import LimitSettings
from broker.store.base import Body
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2

RESULT_TOO_LARGE: Final = "result_too_large"
CODE_CHARACTERS_MAX: Final = 128
CONTENT_TYPE_CHARACTERS_MAX: Final = 128
REPORTS_MAX: Final = 65_536
"""Attempts that a frame may speak of in one of its lists, as many as an agent may hold."""
YEAR_10000_S: Final = 253_402_300_800
"""What comes later is no time that protobuf can say."""

_STATUS: Final = {
    job_pb2.OUTCOME_STATUS_SUCCEEDED: OutcomeStatus.SUCCEEDED,
    job_pb2.OUTCOME_STATUS_FAILED: OutcomeStatus.FAILED,
    job_pb2.OUTCOME_STATUS_CANCELLED: OutcomeStatus.CANCELLED,
    job_pb2.OUTCOME_STATUS_FENCED: OutcomeStatus.FENCED,
}
_REJECTED: Final = {
    agent_pb.REJECTED_REASON_BUSY: RejectCause.BUSY,
    agent_pb.REJECTED_REASON_UNFIT: RejectCause.UNFIT,
    agent_pb.REJECTED_REASON_LEAVING: RejectCause.LEAVING,
}
CANCEL_REASONS: Final = {
    StopReason.REQUESTED: agent_pb.CANCEL_REASON_REQUESTED,
    StopReason.RUN_TIMEOUT: agent_pb.CANCEL_REASON_RUN_TIMEOUT,
    StopReason.TOTAL_TIMEOUT: agent_pb.CANCEL_REASON_TOTAL_TIMEOUT,
    StopReason.ACCEPT_TIMEOUT: agent_pb.CANCEL_REASON_ACCEPT_TIMEOUT,
    StopReason.SUPERSEDED: agent_pb.CANCEL_REASON_SUPERSEDED,
    StopReason.DRAIN_REQUEUE: agent_pb.CANCEL_REASON_DRAIN_REQUEUE,
    StopReason.DRAIN_KILL: agent_pb.CANCEL_REASON_DRAIN_KILL,
    StopReason.DISABLED: agent_pb.CANCEL_REASON_AGENT_DISABLED,
    StopReason.REMOVED: agent_pb.CANCEL_REASON_AGENT_REMOVED,
    StopReason.GROUP_REMOVED: agent_pb.CANCEL_REASON_GROUP_REMOVED,
}
ON_LOSS: Final = {
    OnLoss.RETRY: agent_pb.ON_LOSS_RETRY,
    OnLoss.FAIL: agent_pb.ON_LOSS_FAIL,
    OnLoss.HOLD: agent_pb.ON_LOSS_HOLD,
}
_DRAIN_MODES: Final = {
    DrainEnd.STOP: agent_pb.DRAIN_MODE_STOP,
    DrainEnd.PAUSE: agent_pb.DRAIN_MODE_PAUSE,
}
_DRAIN_THENS: Final = {
    DrainThen.FINISH: agent_pb.DRAIN_THEN_FINISH,
    DrainThen.REQUEUE: agent_pb.DRAIN_THEN_REQUEUE,
    DrainThen.KILL: agent_pb.DRAIN_THEN_KILL,
}


def duration_of(us: int) -> Duration:
    """Microseconds as the wire's duration."""
    return Duration(seconds=us // SECOND_US, nanos=us % SECOND_US * 1_000)


def attempts_of(attempts: agent_pb.AttemptList) -> list[tuple[int, int]]:
    """The pairs of two parallel lists. Raises MalformedError if their lengths differ."""
    if len(attempts.job_keys) != len(attempts.attempts):
        raise MalformedError(
            f"an attempt list has {len(attempts.job_keys)} job keys and {len(attempts.attempts)} attempts; "
            "both lists must be equally long"
        )
    return list(zip(attempts.job_keys, attempts.attempts, strict=True))


def machine_of(hello: agent_pb.Hello, peer: str) -> Machine:
    """What the agent says of its machine; `peer` is where the stream comes from, as gRPC says it."""
    started = hello.started_at
    is_time = 0 < started.seconds < YEAR_10000_S
    return Machine(
        hello.version,
        hello.host,
        hello.pid,
        hello.user,
        hello.os,
        hello.ip,
        unquote(peer.partition(":")[2]),
        hello.time_zone,
        started.seconds * SECOND_US if is_time else 0,
    )


class AgentFrames:
    """Reads the frames of one session."""

    __slots__ = ("_agent", "_limits", "_session")

    def __init__(self, agent: AgentNo, session: SessionId, limits: LimitSettings) -> None:
        self._agent = agent
        self._session = session
        self._limits = limits

    def hello(self, hello: agent_pb.Hello) -> AgentConnected:
        """Hello as an event. Raises MalformedError."""
        _check_size("hello.outcomes", len(hello.outcomes))
        return AgentConnected(
            self._agent,
            self._session,
            hello.incarnation_id,
            hello.connect_seq,
            hello.slots,
            hello.capacity.attempts,
            hello.capacity.seq,
            frozenset(hello.operations),
            frozenset(f"{key}={value}" for key, value in hello.labels.items()),
            tuple(AttemptId(JobKey(key), attempt) for key, attempt in attempts_of(hello.held)),
            tuple(self._outcome(outcome) for outcome in hello.outcomes),
            tuple(AttemptId(JobKey(key), attempt) for key, attempt in attempts_of(hello.finished)),
        )

    def events(self, frame: agent_pb.AgentFrame) -> list[Event]:
        """Everything about work that one frame says, in the order of its fields; Hello and Goodbye apart.

        Raises MalformedError.
        """
        for name, entries in (("rejected", frame.rejected), ("progress", frame.progress), ("outcomes", frame.outcomes)):
            _check_size(name, len(entries))
        agent, session = self._agent, self._session
        events: list[Event] = []
        if frame.HasField("capacity"):
            events.append(CapacityStated(agent, session, frame.capacity.attempts, frame.capacity.seq))
        if frame.HasField("accepted"):
            for key, attempt in attempts_of(frame.accepted):
                events.append(AttemptAccepted(agent, session, JobKey(key), attempt))
        for rejected in frame.rejected:
            cause = _REJECTED.get(rejected.reason, RejectCause.BUSY)
            key = JobKey(rejected.job_key)
            events.append(AttemptRejected(agent, session, key, rejected.attempt, cause, rejected.message))
        if frame.HasField("started"):
            for key, attempt in attempts_of(frame.started):
                events.append(AttemptStarted(agent, session, JobKey(key), attempt))
        for progress in frame.progress:
            if progress.checkpoint:
                key = JobKey(progress.job_key)
                events.append(AttemptProgressed(agent, session, key, progress.attempt, progress.checkpoint))
        events.extend(map(self._outcome, frame.outcomes))
        if frame.HasField("drain_request"):
            events.append(AgentLeaving(agent, session))
        return events

    def goodbye(self) -> AgentLeft:
        """Goodbye as an event."""
        return AgentLeft(self._agent, self._session)

    def _outcome(self, outcome: agent_pb.Outcome) -> AttemptFinished:
        key = JobKey(outcome.job_key)
        status = _STATUS.get(outcome.status)
        if status is None:
            raise MalformedError(f"the outcome of job {key} has no known status; send one of OutcomeStatus")
        if status is OutcomeStatus.SUCCEEDED:
            return self._success(key, outcome)
        failure = outcome.failure
        return AttemptFinished(
            self._agent,
            self._session,
            key,
            outcome.attempt,
            status,
            failure.code[:CODE_CHARACTERS_MAX],
            _cut(failure.message, self._limits.failure_message_bytes_max),
            failure.retryable,
        )

    def _success(self, key: JobKey, outcome: agent_pb.Outcome) -> AttemptFinished:
        agent, session = self._agent, self._session
        if not outcome.HasField("result"):
            return AttemptFinished(agent, session, key, outcome.attempt, OutcomeStatus.SUCCEEDED)
        content = outcome.result.content
        most = self._limits.result_bytes_max
        if len(content) > most:
            text = f"the result has {len(content)} bytes, the limit is {most}; write it where the data is instead"
            failed = OutcomeStatus.FAILED
            return AttemptFinished(agent, session, key, outcome.attempt, failed, RESULT_TOO_LARGE, text, False)
        body = Body(content, outcome.result.content_type[:CONTENT_TYPE_CHARACTERS_MAX])
        return AttemptFinished(agent, session, key, outcome.attempt, OutcomeStatus.SUCCEEDED, body=body)


def _check_size(name: str, size: int) -> None:
    if size > REPORTS_MAX:
        raise MalformedError(f"{name} has {size} entries; an agent holds at most {REPORTS_MAX} attempts")


def _cut(text: str, bytes_max: int) -> str:
    """The text in so many bytes of UTF-8, without a half character at its end."""
    return text if len(text) * 4 <= bytes_max else text.encode()[:bytes_max].decode(errors="ignore")


def welcome_of(
    order: WelcomeAgent, epoch: int, policy: DispatchPolicy, limits: LimitSettings, grace_us: int, mesh_id: str
) -> agent_pb.Welcome:
    """The first frame's content of a session that has begun."""
    return agent_pb.Welcome(
        session_id=order.session,
        epoch=epoch,
        mesh_id=mesh_id,
        recovery_grace=duration_of(policy.recovery_grace_us),
        heartbeat_interval=duration_of(policy.heartbeat_us),
        idle_heartbeat_interval=duration_of(policy.idle_heartbeat_us),
        lease=duration_of(policy.lease_us),
        lease_margin=duration_of(policy.margin_us),
        cancel_grace=duration_of(grace_us),
        group_settings=_group_settings(order.prefetch),
        verdicts=[agent_pb.VERDICT_KEEP if one else agent_pb.VERDICT_STOP for one in order.keep],
        limits=agent_pb.Limits(
            frame_bytes_max=limits.frame_bytes_max,
            payload_bytes_max=limits.payload_bytes_max,
            result_bytes_max=limits.result_bytes_max,
            failure_message_bytes_max=limits.failure_message_bytes_max,
        ),
    )


def group_settings_of(order: SetPrefetch) -> agent_pb.BrokerFrame:
    """What the group says of its agents from now on, as a frame."""
    return agent_pb.BrokerFrame(group_settings=_group_settings(order.prefetch))


def _group_settings(prefetch: float) -> agent_pb.GroupSettings:
    return agent_pb.GroupSettings(prefetch=prefetch if prefetch >= 0 else None)


def drain_of(order: DrainAgent) -> agent_pb.BrokerFrame:
    """A drain as a frame."""
    drain = agent_pb.Drain(
        mode=_DRAIN_MODES[order.ends], then=_DRAIN_THENS[order.then], reason=order.reason, operator=order.actor
    )
    if order.deadline_us:
        drain.deadline.CopyFrom(duration_of(order.deadline_us))
    return agent_pb.BrokerFrame(drain=drain)


def undrain_of(order: UndrainAgent) -> agent_pb.BrokerFrame:
    """The end of a drain or a pause as a frame."""
    return agent_pb.BrokerFrame(drain=agent_pb.Drain(cancel=True, operator=order.actor))


def drain_done_of(order: FinishDrain) -> agent_pb.BrokerFrame:
    """A complete drain as a frame."""
    return agent_pb.BrokerFrame(drain_done=agent_pb.DrainDone(mode=_DRAIN_MODES[order.ends]))
