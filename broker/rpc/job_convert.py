"""Jobs between protobuf and the domain: a submission on its way in, a record on its way out.

On the way in each job is touched once and cheaply (a few microseconds), because submissions are the widest stream of
the API. Digests decide whether the same job id or key came with the same content (promise P7), across versions: their
form is fixed here and must never change.
"""

import json
from hashlib import blake2b
from sys import intern
from typing import Final, Protocol

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from uuid_utils import uuid7

from broker.dispatch.messages import JobSubmitted
from broker.dispatch.model import AgentNo, GroupNo, JobState, OperationPolicy
from broker.errors import MalformedError
from broker.store.base import Body, JobRecord
from broker.store.timeline import attempts_of, transitions_of
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb

DIGEST_BYTES: Final = 16
DEFAULT_LEVEL: Final = 3
SECOND_US: Final = 1_000_000
TIME_MAX_US: Final = 10 * 366 * 86_400 * SECOND_US
"""The longest delay or limit: ten years. Beyond it sums leave what a store and a timestamp can hold."""
COMMENT: Final = ": "
"""Between who did something and what was said about it, in the actor of a transition."""
EMPTY_BODY: Final = Body(b"")
_STATES: Final = {state: job_pb2.JobState.Value(f"JOB_STATE_{state.upper()}") for state in JobState}
_FAILED: Final = frozenset({JobState.FAILED, JobState.DEAD})


class Names(Protocol):
    """What a record needs to be shown: numbers to names."""

    def group_name(self, group_no: GroupNo) -> str:
        """`organizations/o/groups/g`."""

    def environment_name(self, environment_no: int) -> str:
        """`organizations/o/environments/e`, or "" for 0."""

    def agent_id(self, group_no: GroupNo, agent_no: AgentNo) -> str:
        """The agent's id, or "" for 0."""


def submission_of(
    spec: pb.JobSpec, ticket: int, policy: OperationPolicy, environment_no: int, now_us: int, payload_bytes_max: int
) -> JobSubmitted:
    """One submission as an event with the engine's ticket. `now_us` turns `start_at` into a delay.

    Raises MalformedError for a payload beyond the limit, for times that are none, and for both `delay` and `start_at`.
    """
    payload = spec.payload
    if len(payload) > payload_bytes_max:
        raise MalformedError(
            f"the payload has {len(payload)} bytes, more than the {payload_bytes_max} allowed; pass a reference",
            reason="PAYLOAD_TOO_LARGE",
            field="payload",
        )
    operation = intern(spec.operation)
    content_type = spec.content_type
    level = spec.priority or DEFAULT_LEVEL
    fairness = spec.fairness_key
    job_id = spec.job_id or uuid7().bytes
    is_timed = (
        spec.HasField("delay")
        or spec.HasField("start_at")
        or spec.HasField("schedule_to_start")
        or spec.HasField("run_timeout")
        or spec.HasField("total_timeout")
    )
    labels, metadata = spec.labels, spec.metadata
    if not (labels or metadata or is_timed):
        body = Body(payload, content_type) if payload or content_type else EMPTY_BODY
        head = f"1\n{level}\n{len(fairness)}\n{len(content_type)}\n{operation}\n{fairness}{content_type}\n"
        digest = blake2b(head.encode() + payload, digest_size=DIGEST_BYTES).digest()
        return JobSubmitted(
            ticket,
            job_id,
            operation,
            policy,
            digest,
            level=level,
            fairness=fairness,
            environment_no=environment_no,
            payload_bytes=len(payload),
            idempotency_key=spec.idempotency_key,
            body=body,
        )
    return _rare_submission(spec, ticket, job_id, policy, environment_no, now_us)


def repeat_of(record: JobRecord, ticket: int, policy: OperationPolicy, job_id: bytes = b"") -> JobSubmitted:
    """A new job that repeats a finished one: the same content and limits under a new id, with nothing of its past.

    What had a delay starts at once, and a business key stays with the first job.
    """
    row = record.row
    return JobSubmitted(
        ticket,
        job_id or uuid7().bytes,
        intern(row.operation),
        policy,
        row.digest,
        labels=record.labels,
        level=row.level,
        fairness=row.fairness,
        limit_key=row.limit_key,
        environment_no=row.environment_no,
        schedule_to_start_us=row.schedule_by_us and row.schedule_by_us - row.order_us,
        run_timeout_us=row.run_timeout_us,
        total_timeout_us=row.total_by_us and row.total_by_us - row.accepted_us,
        payload_bytes=row.payload_bytes,
        requeued_from=row.job_key,
        body=record.payload or EMPTY_BODY,
    )


def _rare_submission(
    spec: pb.JobSpec, ticket: int, job_id: bytes, policy: OperationPolicy, environment_no: int, now_us: int
) -> JobSubmitted:
    """A submission with labels, metadata or times."""
    metadata = tuple(sorted(spec.metadata.items()))
    return JobSubmitted(
        ticket,
        job_id,
        intern(spec.operation),
        policy,
        _rare_digest(spec),
        labels=tuple(sorted(f"{key}={value}" for key, value in spec.labels.items())),
        level=spec.priority or DEFAULT_LEVEL,
        fairness=spec.fairness_key,
        environment_no=environment_no,
        delay_us=_delay_us(spec, now_us),
        schedule_to_start_us=_duration_us(spec, "schedule_to_start"),
        run_timeout_us=_duration_us(spec, "run_timeout"),
        total_timeout_us=_duration_us(spec, "total_timeout"),
        payload_bytes=len(spec.payload),
        idempotency_key=spec.idempotency_key,
        body=Body(spec.payload, spec.content_type, metadata),
    )


def _rare_digest(spec: pb.JobSpec) -> bytes:
    """All that is content in one fixed order. `start_at` counts as it was said, not as the delay it comes to."""
    content = [
        spec.operation,
        spec.content_type,
        spec.priority or DEFAULT_LEVEL,
        spec.fairness_key,
        sorted(spec.labels.items()),
        sorted(spec.metadata.items()),
        *(
            [moment.seconds, moment.nanos]
            for moment in (
                spec.delay,
                spec.start_at,
                spec.schedule_to_start,
                spec.run_timeout,
                spec.total_timeout,
            )
        ),
    ]
    head = json.dumps(content, separators=(",", ":"))
    return blake2b(f"2\n{head}\n".encode() + spec.payload, digest_size=DIGEST_BYTES).digest()


def _delay_us(spec: pb.JobSpec, now_us: int) -> int:
    if not spec.HasField("start_at"):
        return _duration_us(spec, "delay")
    if spec.HasField("delay"):
        raise MalformedError("delay and start_at are both given; give one", reason="START_TWICE", field="start_at")
    start_us = spec.start_at.seconds * SECOND_US + spec.start_at.nanos // 1_000
    if not 0 <= spec.start_at.nanos < 1_000 * SECOND_US or start_us - now_us > TIME_MAX_US:
        raise _wrong_time("start_at", spec.start_at)
    return max(0, start_us - now_us)


def _duration_us(spec: pb.JobSpec, field: str) -> int:
    """A duration of the submission, rounded up so that what is given never becomes 0, which is "not given"."""
    duration: Duration = getattr(spec, field)
    us = duration.seconds * SECOND_US - (-duration.nanos // 1_000)
    if duration.seconds < 0 or not 0 <= duration.nanos < 1_000 * SECOND_US or us > TIME_MAX_US:
        raise _wrong_time(field, duration)
    return us


def _wrong_time(field: str, given: Duration | Timestamp) -> MalformedError:
    return MalformedError(
        f"{field} of {given.seconds} s and {given.nanos} ns is none, or more than ten years away",
        reason="TIME_OUT_OF_RANGE",
        field=field,
    )


# --- on the way out -------------------------------------------------------------------------------------------------


def uuid_text(job_id: bytes) -> str:
    """The 36 characters of 16 bytes."""
    digits = job_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def job_of(record: JobRecord, names: Names) -> job_pb2.Job:
    """A job for readers; with its result and checkpoint if the record has them."""
    row = record.row
    group = names.group_name(row.group_no)
    organisation = group.split("/", 2)[1]
    text = uuid_text(row.job_id)
    job = job_pb2.Job(
        name=f"organizations/{organisation}/jobs/{text}",
        job_id=text,
        job_key=row.job_key,
        group=group,
        environment=names.environment_name(row.environment_no),
        operation=row.operation,
        state=_STATES[JobState(row.state)],
        attempt=row.attempt,
        agent=names.agent_id(row.group_no, row.agent_no),
        priority=row.level,
        labels=dict(label.split("=", 1) for label in record.labels),
        fairness_key=row.fairness,
        failures=row.failures,
        crashes=row.crashes,
        bounces=row.bounces,
        cancel_requested=bool(row.cancel_requested),
        checkpoint=record.checkpoint,
        idempotency_key=record.idempotency_key,
        payload_bytes=row.payload_bytes,
    )
    _put_times(job, record)
    if row.code or row.message or row.state in _FAILED:
        job.failure.code, job.failure.message = row.code, row.message
        # What is not final although its last attempt failed is going to be tried again.
        job.failure.retryable = row.state not in _FAILED
    if record.result is not None:
        job.result.content, job.result.content_type = record.result.content, record.result.content_type
    return job


def put_history(job: job_pb2.Job, record: JobRecord, names: Names) -> None:
    """Add what happened to the job: its attempts, its transitions, and the job that repeats it."""
    group_no = record.row.group_no
    if record.requeued_as:
        job.requeued_as = uuid_text(record.requeued_as)
    for attempt in attempts_of(record):
        agent = names.agent_id(group_no, attempt.agent_no)
        made = job.attempts.add(attempt=attempt.attempt, agent=agent, ending=attempt.ending, code=attempt.code)
        _put_moments(made, assigned_at=attempt.assigned_us, started_at=attempt.started_us, finished_at=attempt.ended_us)
    for step in transitions_of(record):
        actor, _, comment = step.actor.partition(COMMENT)
        told = job.transitions.add(
            from_state=_STATES[JobState(step.from_state)] if step.from_state else None,
            to_state=_STATES[JobState(step.to_state)],
            reason=step.reason,
            attempt=step.attempt,
            agent=names.agent_id(group_no, step.agent_no),
            actor=actor,
            comment=comment,
        )
        _put_moments(told, at=step.at_us)


def _put_times(job: job_pb2.Job, record: JobRecord) -> None:
    row = record.row
    _put_moment(job.accepted_at, row.accepted_us)
    _put_moments(
        job,
        not_before=row.not_before_us,
        assigned_at=row.assigned_us,
        started_at=row.started_us,
        finished_at=row.finished_us,
    )
    for field, length_us in (
        # Not from `not_before_us`: after a failure that is the time of the next try.
        ("schedule_to_start", row.schedule_by_us and row.schedule_by_us - row.order_us),
        ("run_timeout", row.run_timeout_us),
        ("total_timeout", row.total_by_us and row.total_by_us - row.accepted_us),
    ):
        if length_us:
            getattr(job, field).FromMicroseconds(length_us)


def _put_moments(message: Message, **at_us: int) -> None:
    for field, us in at_us.items():
        if us:
            _put_moment(getattr(message, field), us)


def _put_moment(moment: Timestamp, at_us: int) -> None:
    moment.FromMicroseconds(at_us)
