"""Between the wire and the session: the only place of the agent that knows both.

What a broker sends is checked as far as the agent's safety needs it; `MalformedFrameError` ends the stream.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from google.protobuf.duration_pb2 import Duration

from agent_stub.context import JobContext
from agent_stub.operations import Operations
from agent_stub.outcomes import RunLimits
from agent_stub.session import (
    OWN_PREFETCH,
    Assign,
    Cancel,
    Capacity,
    Frame,
    Hello,
    Key,
    Outcome,
    OutcomeStatus,
    Progress,
    Rejected,
    Welcome,
)
from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import job_pb2

SECOND_US: Final = 1_000_000
IDLE_HEARTBEAT_FACTOR: Final = 2.5
KEPT_FIRST: Final = frozenset({pb.ON_LOSS_FAIL, pb.ON_LOSS_HOLD})
"""What becomes of a lost job whose outcome must be on disk before it is sent: nobody runs it again."""


class MalformedFrameError(Exception):
    """The broker sent what no broker of this version sends; the stream cannot be trusted any more."""


# Broker to agent -----------------------------------------------------------------------------------------------------


def keys_of(attempts: pb.AttemptList) -> Iterable[Key]:
    """The (job_key, attempt) pairs of a list.

    Raises:
        MalformedFrameError: the two lists differ in length.
    """
    if len(attempts.job_keys) != len(attempts.attempts):
        raise MalformedFrameError(f"{len(attempts.job_keys)} job keys with {len(attempts.attempts)} attempts")
    return zip(attempts.job_keys, attempts.attempts, strict=True)


def assign_of(assign: pb.Assign, operations: Operations) -> Assign:
    """An assignment for the session; the frame's part itself goes along for the runner."""
    known = operations.get(assign.operation)
    return Assign(
        assign.job_key,
        assign.attempt,
        assign.operation,
        assign.exclusive or (known is not None and known.is_exclusive),
        us_of(assign.run_timeout) if assign.HasField("run_timeout") else 0,
        # A total time that is over is a deadline now, not the absence of one.
        max(us_of(assign.total_remaining), 1) if assign.HasField("total_remaining") else 0,
        assign,
        assign.on_loss in KEPT_FIRST,
    )


def job_of(assign: Assign) -> JobContext:
    """What a handler is given."""
    body = assign.body
    assert isinstance(body, pb.Assign)
    limits_us = [limit for limit in (assign.run_timeout_us, assign.total_remaining_us) if limit]
    return JobContext(
        job_id=_id_text(body.job_id),
        job_key=assign.job_key,
        attempt=assign.attempt,
        operation=assign.operation,
        payload=body.payload,
        content_type=body.content_type,
        metadata=dict(body.metadata) if body.metadata else {},
        checkpoint=body.checkpoint,
        deadline_s=time.monotonic() + min(limits_us) / SECOND_US if limits_us else None,
    )


def _id_text(job_id: bytes) -> str:
    """The usual text of 16 bytes, without the cost of a UUID object; other lengths as they are, in hexadecimal."""
    digits = job_id.hex()
    if len(job_id) != 16:
        return digits
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def cancel_of(cancel: pb.Cancel) -> Cancel:
    """A cancel for the session; a reason that this version does not know is still a cancel."""
    known = cancel.reason in pb.CancelReason.values()
    name = pb.CancelReason.Name(cancel.reason).removeprefix("CANCEL_REASON_").lower() if known else "unknown"
    return Cancel(cancel.job_key, cancel.attempt, name, us_of(cancel.grace))


def welcome_of(welcome: pb.Welcome) -> Welcome:
    """A Welcome for the session; what is missing shows there."""
    heartbeat_us = us_of(welcome.heartbeat_interval)
    return Welcome(
        session_id=welcome.session_id,
        epoch=welcome.epoch,
        lease_us=us_of(welcome.lease),
        lease_margin_us=us_of(welcome.lease_margin),
        heartbeat_us=heartbeat_us,
        idle_heartbeat_us=us_of(welcome.idle_heartbeat_interval) or int(heartbeat_us * IDLE_HEARTBEAT_FACTOR),
        verdicts=list(welcome.verdicts),
        frame_bytes_max=welcome.limits.frame_bytes_max,
        mesh_id=welcome.mesh_id,
        prefetch=prefetch_of(welcome.group_settings),
    )


def prefetch_of(settings: pb.GroupSettings) -> float:
    """What the group says of prefetch; below 0: nothing that is a number of attempts."""
    said = settings.prefetch
    return said if settings.HasField("prefetch") and said >= 0 else OWN_PREFETCH


def limits_of(limits: pb.Limits) -> RunLimits:
    """The broker's limits for outcomes; what it does not state keeps its default."""
    default = RunLimits()
    return RunLimits(
        limits.result_bytes_max or default.result_bytes_max,
        limits.failure_message_bytes_max or default.failure_message_bytes_max,
    )


def us_of(duration: Duration) -> int:
    """Whole microseconds; never negative."""
    return max(duration.seconds * SECOND_US + duration.nanos // 1_000, 0)


# Agent to broker -----------------------------------------------------------------------------------------------------


def agent_frame(frame: Frame, about: pb.Hello) -> pb.AgentFrame:
    """A frame for the wire; `about` says in a Hello who and where the agent is."""
    wire = pb.AgentFrame()
    for outcome in frame.outcomes:
        _put_outcome(wire.outcomes.add(), outcome)
    if frame.accepted:
        wire.accepted.CopyFrom(attempts_to(frame.accepted))
    if frame.started:
        wire.started.CopyFrom(attempts_to(frame.started))
    if frame.rejected:
        wire.rejected.extend([_rejected_to(rejected) for rejected in frame.rejected])
    if frame.progress:
        wire.progress.extend([_progress_to(progress) for progress in frame.progress])
    _add_control(wire, frame, about)
    return wire


def hello_to(hello: Hello, about: pb.Hello) -> pb.Hello:
    """A Hello: what the session holds, and who the agent is."""
    wire = pb.Hello()
    wire.CopyFrom(about)
    wire.connect_seq = hello.connect_seq
    wire.slots = hello.slots
    wire.capacity.CopyFrom(_capacity_to(hello.capacity))
    wire.held.CopyFrom(attempts_to(hello.held))
    if hello.finished:
        wire.finished.CopyFrom(attempts_to(hello.finished))
    for outcome in hello.outcomes:
        _put_outcome(wire.outcomes.add(), outcome)
    wire.previous_attempts = hello.previous_attempts
    wire.mesh_id = hello.mesh_id
    return wire


def outcome_to(outcome: Outcome) -> pb.Outcome:
    """An outcome for the wire."""
    wire = pb.Outcome()
    _put_outcome(wire, outcome)
    return wire


def outcome_of(wire: pb.Outcome) -> Outcome:
    """An outcome that was written for the wire, read again."""
    failure, result = wire.failure, wire.result
    return Outcome(
        wire.job_key,
        wire.attempt,
        OutcomeStatus(wire.status),
        failure.code,
        failure.message,
        failure.retryable,
        result.content,
        result.content_type,
        us_of(wire.run_time),
    )


def _put_outcome(wire: pb.Outcome, outcome: Outcome) -> None:
    """Fill a message in its place: one that is made apart is copied into the frame."""
    wire.job_key = outcome.job_key
    wire.attempt = outcome.attempt
    # IntEnum to int: the enum class would be looked up for each.
    wire.status = _STATUS[outcome.status]
    seconds, rest_us = divmod(outcome.run_time_us, SECOND_US)
    run_time = wire.run_time
    run_time.SetInParent()
    if seconds:
        run_time.seconds = seconds
    run_time.nanos = rest_us * 1_000
    if outcome.status is OutcomeStatus.FAILED:
        wire.failure.code = outcome.code
        wire.failure.message = outcome.text
        wire.failure.retryable = outcome.retryable
    elif outcome.content or outcome.content_type:
        wire.result.content = outcome.content
        wire.result.content_type = outcome.content_type


def attempts_to(keys: Iterable[Key]) -> pb.AttemptList:
    """(job_key, attempt) pairs as two parallel lists."""
    pairs = list(keys)
    return pb.AttemptList(job_keys=[key for key, _ in pairs], attempts=[attempt for _, attempt in pairs])


def _add_control(wire: pb.AgentFrame, frame: Frame, about: pb.Hello) -> None:
    if frame.hello is not None:
        wire.hello.CopyFrom(hello_to(frame.hello, about))
    if frame.heartbeat is not None:
        wire.heartbeat.seq = frame.heartbeat.seq
        wire.heartbeat.held = frame.heartbeat.held
    if frame.capacity is not None:
        wire.capacity.CopyFrom(_capacity_to(frame.capacity))
    if frame.drain_request is not None:
        wire.drain_request.reason = frame.drain_request
        wire.drain_request.SetInParent()
    if frame.drain_status is not None:
        wire.drain_status.remaining.CopyFrom(attempts_to(frame.drain_status))
    if frame.goodbye is not None:
        wire.goodbye.reason = frame.goodbye
        wire.goodbye.SetInParent()


def _capacity_to(capacity: Capacity) -> pb.Capacity:
    return pb.Capacity(seq=capacity.seq, attempts=capacity.attempts)


def _rejected_to(rejected: Rejected) -> pb.Rejected:
    reason = pb.RejectedReason.ValueType(int(rejected.reason))
    return pb.Rejected(job_key=rejected.job_key, attempt=rejected.attempt, reason=reason, message=rejected.text)


def _progress_to(progress: Progress) -> pb.Progress:
    return pb.Progress(
        job_key=progress.job_key,
        attempt=progress.attempt,
        fraction=progress.fraction,
        message=progress.text,
        checkpoint=progress.checkpoint,
    )


_STATUS: Final = {
    OutcomeStatus.SUCCEEDED: job_pb2.OUTCOME_STATUS_SUCCEEDED,
    OutcomeStatus.FAILED: job_pb2.OUTCOME_STATUS_FAILED,
    OutcomeStatus.CANCELLED: job_pb2.OUTCOME_STATUS_CANCELLED,
    OutcomeStatus.FENCED: job_pb2.OUTCOME_STATUS_FENCED,
}
