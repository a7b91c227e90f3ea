"""Between protobuf and plain values: the only module that knows both."""

import json
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from mesh_client.errors import MalformedError, error_of_status
from mesh_client.jobs import (
    AgentVerdict,
    AttemptView,
    BulkSlice,
    Explanation,
    Failure,
    JobChange,
    JobChoice,
    JobResult,
    JobSpec,
    JobState,
    JobView,
    RefusedJob,
    SubmittedJob,
    TransitionView,
)
from mesh_client.names import id_bytes, id_text, new_id, part_after, quoted
from mesh_client.resources import (
    AgentExplanation,
    AgentView,
    DrainView,
    EnvironmentView,
    GroupPolicy,
    GroupView,
    OrganizationView,
    PolicyValues,
    Removal,
)
from protos.mesh.v1 import admin_service_pb2 as admin
from protos.mesh.v1 import agent_service_pb2, job_pb2, job_service_pb2

JSON_TYPE = "application/json"


def spec_message(spec: JobSpec) -> job_service_pb2.JobSpec:
    """A submission on the wire. One without a job id gets a new one. Raises MalformedError."""
    message = job_service_pb2.JobSpec(
        job_id=new_id() if spec.job_id is None else id_bytes(spec.job_id),
        operation=spec.operation,
        payload=spec.payload,
        content_type=spec.content_type,
        priority=spec.priority,
        labels=spec.labels,
        fairness_key=spec.fairness_key,
        idempotency_key=spec.idempotency_key,
        metadata=spec.metadata,
    )
    if spec.json is not None:
        _put_json(message, spec)
    if spec.delay_s is not None:
        message.delay.CopyFrom(duration("delay_s", spec.delay_s))
    if spec.start_at is not None:
        message.start_at.CopyFrom(_timestamp(spec.start_at))
    if spec.schedule_to_start_s is not None:
        message.schedule_to_start.CopyFrom(duration("schedule_to_start_s", spec.schedule_to_start_s))
    if spec.run_timeout_s is not None:
        message.run_timeout.CopyFrom(duration("run_timeout_s", spec.run_timeout_s))
    if spec.total_timeout_s is not None:
        message.total_timeout.CopyFrom(duration("total_timeout_s", spec.total_timeout_s))
    return message


def submitted_job(result: job_service_pb2.SubmitResult, sent: job_service_pb2.JobSpec, is_own_id: bool) -> SubmittedJob:
    """The answer to one submission. An id that this client made is a duplicate of a retry only, which is none."""
    job_id = id_text(result.job_id or sent.job_id)
    if result.HasField("error"):
        return SubmittedJob(job_id, error=error_of_status(result.error))
    duplicate = result.duplicate and not (is_own_id and result.job_id == sent.job_id)
    return SubmittedJob(job_id, result.job_key, duplicate)


def job_view(job: job_pb2.Job) -> JobView:
    """A job as the broker knows it."""
    return JobView(
        job_id=job.job_id,
        job_key=job.job_key,
        organization=part_after(job.name, "organizations"),
        group=part_after(job.group, "groups"),
        environment=part_after(job.environment, "environments"),
        operation=job.operation,
        state=_state(job.state),
        attempt=job.attempt,
        agent=job.agent,
        priority=job.priority,
        labels=dict(job.labels),
        fairness_key=job.fairness_key,
        accepted_at=_time(job, "accepted_at"),
        not_before=_time(job, "not_before"),
        assigned_at=_time(job, "assigned_at"),
        started_at=_time(job, "started_at"),
        finished_at=_time(job, "finished_at"),
        failure=_failure(job),
        failures=job.failures,
        crashes=job.crashes,
        bounces=job.bounces,
        cancel_requested=job.cancel_requested,
        result=JobResult(job.result.content, job.result.content_type) if job.HasField("result") else None,
        requeued_from=job.requeued_from,
        checkpoint=job.checkpoint,
        idempotency_key=job.idempotency_key,
        payload_bytes=job.payload_bytes,
        attempts=tuple(map(_attempt, job.attempts)) if job.attempts else (),
        transitions=tuple(map(_transition, job.transitions)) if job.transitions else (),
        requeued_as=job.requeued_as,
    )


def _attempt(attempt: job_pb2.JobAttempt) -> AttemptView:
    return AttemptView(
        attempt=attempt.attempt,
        agent=attempt.agent,
        assigned_at=_time(attempt, "assigned_at"),
        started_at=_time(attempt, "started_at"),
        finished_at=_time(attempt, "finished_at"),
        ending=attempt.ending,
        code=attempt.code,
    )


def _transition(step: job_pb2.JobTransition) -> TransitionView:
    return TransitionView(
        at=_time(step, "at"),
        from_state=_state(step.from_state) if step.from_state else None,
        to_state=_state(step.to_state),
        reason=step.reason,
        attempt=step.attempt,
        agent=step.agent,
        actor=step.actor,
        comment=step.comment,
    )


def cancelled_slice(response: job_service_pb2.CancelJobsResponse) -> BulkSlice:
    """What one slice of a cancel did."""
    return BulkSlice(
        response.matched, response.cancelled, response.stopping, response.passed_over, (), response.next_page_token
    )


def requeued_slice(response: job_service_pb2.RequeueJobsResponse) -> BulkSlice:
    """What one slice of a requeue did."""
    refused = tuple(RefusedJob(one.job_id, error_of_status(one.error)) for one in response.refused)
    return BulkSlice(response.matched, response.requeued, 0, response.passed_over, refused, response.next_page_token)


def choice_filter(choice: JobChoice) -> str:
    """The filter of the API that says the same. Raises MalformedError for a time without a zone."""
    conditions: list[str] = []
    for field, value in choice.items():
        if value is None or field == "filter":
            continue
        if isinstance(value, datetime):
            at, _, bound = field.rpartition("_")
            conditions.append(
                f'{at}_at {">=" if bound == "since" else "<"} "{_timestamp(value, field).ToJsonString()}"'
            )
        else:
            conditions.append(f"{field} = {quoted(str(value))}")
    return " AND ".join([*conditions, *filter(None, [choice.get("filter")])])


def job_change(response: job_service_pb2.WatchJobsResponse) -> JobChange:
    """One message of a watch."""
    return JobChange(tuple(map(job_view, response.jobs)), response.resume_token, response.gap)


def explanation(response: job_service_pb2.ExplainJobResponse) -> Explanation:
    """Why a job is where it is."""
    verdicts = tuple(AgentVerdict(verdict.agent, verdict.eligible, verdict.reason) for verdict in response.agents)
    return Explanation(response.summary, response.next_step, verdicts)


def agent_explanation(response: admin.ExplainAgentResponse) -> AgentExplanation:
    """Why an agent is given work or not."""
    obstacles = tuple((one.reason, one.message) for one in response.obstacles)
    return AgentExplanation(response.summary, response.next_step, response.placeable, obstacles)


def organization_view(organization: admin.Organization) -> OrganizationView:
    """An organization."""
    return OrganizationView(
        organization=part_after(organization.name, "organizations"),
        display_name=organization.display_name,
        description=organization.description,
        created_at=_time(organization, "created_at"),
        etag=organization.etag,
        groups_total=organization.groups_total,
        groups_max=organization.limits.groups_max,
        agents_total=organization.agents_total,
        agents_max=organization.limits.agents_max,
        contact=organization.limits.contact,
    )


def removal(response: admin.DeleteOrganizationResponse) -> Removal:
    """What went with something that was removed."""
    return Removal(
        groups=tuple(part_after(name, "groups") for name in response.groups),
        environments=tuple(part_after(name, "environments") for name in response.environments),
        agents=tuple(f"{part_after(name, 'groups')}/{part_after(name, 'agents')}" for name in response.agents),
        jobs=response.jobs,
    )


def environment_view(environment: admin.Environment) -> EnvironmentView:
    """An environment."""
    return EnvironmentView(
        environment=part_after(environment.name, "environments"),
        display_name=environment.display_name,
        description=environment.description,
        target_group=part_after(environment.target_group, "groups"),
        groups=tuple(part_after(group, "groups") for group in environment.groups),
        created_at=_time(environment, "created_at"),
        etag=environment.etag,
    )


def group_view(group: admin.Group) -> GroupView:
    """A group with its derived status."""
    return GroupView(
        group=part_after(group.name, "groups"),
        display_name=group.display_name,
        description=group.description,
        kind=_word(admin.GroupKind.Name(group.kind), "GROUP_KIND_"),
        central_logging=group.central_logging,
        status=_word(admin.GroupStatus.Name(group.status), "GROUP_STATUS_"),
        agents_active=group.agents_active,
        agents_total=group.agents_total,
        environments=tuple(part_after(environment, "environments") for environment in group.environments),
        created_at=_time(group, "created_at"),
        etag=group.etag,
        mode=_word(admin.GroupMode.Name(group.mode), "GROUP_MODE_"),
        inactive_jobs=_word(admin.InactiveJobs.Name(group.inactive_jobs), "INACTIVE_JOBS_"),
        jobs_waiting=group.jobs_waiting,
        jobs_running=group.jobs_running,
        warnings=tuple((warning.code, warning.message) for warning in group.warnings),
        policy=_group_policy(group.policy),
    )


PLACINGS: Final = {
    "default": admin.GROUP_PLACING_UNSPECIFIED,
    "least_loaded": admin.GROUP_PLACING_LEAST_LOADED,
    "round_robin": admin.GROUP_PLACING_ROUND_ROBIN,
    "random": admin.GROUP_PLACING_RANDOM,
    "power_of_d": admin.GROUP_PLACING_POWER_OF_D,
}
NUMBER_MAX: Final = (1 << 32) - 1
"""What fits into every number of a policy; the broker has bounds of its own."""
PREFETCH_MAX: Final = 16
_POLICY_NUMBERS: Final = ("placing_choices", "attempts_max", "queue_jobs_max", "queue_bytes_max")
_POLICY_TIMES: Final = ("backoff_first", "backoff_max", "cancel_grace")


def group_policy(values: PolicyValues) -> admin.GroupPolicy:
    """A policy for the wire, without what is the broker's setting. Raises MalformedError."""
    placing = values.get("placing") or "default"
    if placing not in PLACINGS:
        raise MalformedError(f"placing {placing!r}: give one of {', '.join(PLACINGS)}")
    wire = admin.GroupPolicy(placing=PLACINGS[placing])
    given = dict(values)
    for name in _POLICY_NUMBERS:
        number = given.get(name) or 0
        if not isinstance(number, int) or not 0 <= number <= NUMBER_MAX:
            raise MalformedError(f"{name} {number}: give a whole number from 0 to {NUMBER_MAX}")
        if number:
            setattr(wire, name, number)
    for name in _POLICY_TIMES:
        time_s = given.get(f"{name}_s")
        if isinstance(time_s, int | float) and time_s:
            getattr(wire, name).CopyFrom(duration(f"{name}_s", time_s))
    prefetch = given.get("prefetch")
    if prefetch not in (None, "default"):
        if not isinstance(prefetch, int | float) or not 0 <= prefetch <= PREFETCH_MAX:
            shown = f"{prefetch:g}" if isinstance(prefetch, int | float) else repr(prefetch)
            raise MalformedError(f"prefetch {shown}: give a number from 0 to {PREFETCH_MAX}, or default")
        wire.prefetch = prefetch
    return wire


def policy_changes(values: PolicyValues) -> dict[str, object]:
    """What of a policy is given, by its path in an update."""
    names = {name: name for name in ("placing", "prefetch", *_POLICY_NUMBERS)} | {
        f"{name}_s": name for name in _POLICY_TIMES
    }
    return {f"policy.{path}": values.get(name) for name, path in names.items()}


def _group_policy(wire: admin.GroupPolicy) -> GroupPolicy:
    return GroupPolicy(
        placing=_word(admin.GroupPlacing.Name(wire.placing), "GROUP_PLACING_") if wire.placing else None,
        prefetch=wire.prefetch if wire.HasField("prefetch") else None,
        **{name: getattr(wire, name) or None for name in _POLICY_NUMBERS},
        **{f"{name}_s": getattr(wire, name).ToMicroseconds() / 1e6 or None for name in _POLICY_TIMES},
    )


def agent_view(agent: admin.Agent) -> AgentView:
    """An agent as it was last heard."""
    return AgentView(
        agent=part_after(agent.name, "agents"),
        group=part_after(agent.name, "groups"),
        display_name=agent.display_name,
        status=_word(admin.AgentStatus.Name(agent.status), "AGENT_STATUS_"),
        version=agent.version,
        host=agent.host,
        pid=agent.pid,
        user=agent.user,
        os=agent.os,
        ip=agent.ip,
        peer=agent.peer,
        operations=tuple(agent.operations),
        labels=dict(agent.labels),
        slots=agent.slots,
        capacity=agent.capacity,
        live=agent.live,
        connected_at=_time(agent, "connected_at"),
        started_at=_time(agent, "started_at"),
        last_heard_at=_time(agent, "last_heard_at"),
        created_at=_time(agent, "created_at"),
        drain=_drain_view(agent.drain) if agent.HasField("drain") else None,
        disabled_reason=agent.disabled_reason,
        etag=agent.etag,
        description=agent.description,
        rank=agent.rank,
        time_zone=agent.time_zone,
        status_synonyms=tuple(agent.status_synonyms),
        operator_labels=dict(agent.operator_labels),
        stuck=agent.stuck,
    )


def _drain_view(drain: admin.AgentDrain) -> DrainView:
    return DrainView(
        mode=_word(agent_service_pb2.DrainMode.Name(drain.mode), "DRAIN_MODE_"),
        then=_word(agent_service_pb2.DrainThen.Name(drain.then), "DRAIN_THEN_"),
        deadline=_time(drain, "deadline"),
        reason=drain.reason,
        operator=drain.operator,
        started_at=_time(drain, "started_at"),
        remaining=drain.remaining,
    )


def _put_json(message: job_service_pb2.JobSpec, spec: JobSpec) -> None:
    if spec.payload:
        raise MalformedError("give a job either payload or json, not both", reason="PAYLOAD_TWICE")
    try:
        message.payload = json.dumps(spec.json, separators=(",", ":"), ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise MalformedError(f"the payload cannot be written as JSON: {error}", reason="PAYLOAD_JSON") from error
    message.content_type = spec.content_type or JSON_TYPE


def duration(field: str, seconds: float) -> Duration:
    """A span of time on the wire. Raises MalformedError, which names the field, if it is no number or too long."""
    message = Duration()
    try:
        message.FromTimedelta(timedelta(seconds=seconds))
    except (ValueError, OverflowError) as error:
        raise MalformedError(f"{field}: {seconds:g} is not a number of seconds that can be waited") from error
    return message


def _timestamp(at: datetime, field: str = "start_at") -> Timestamp:
    if at.tzinfo is None:
        text = f"{field}: {at.isoformat()} has no time zone; add one, for example datetime.UTC"
        raise MalformedError(text, reason=field.upper())
    timestamp = Timestamp()
    timestamp.FromDatetime(at.astimezone(UTC))
    return timestamp


def _time(message: Message, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    timestamp: Timestamp = getattr(message, field)
    return timestamp.ToDatetime(UTC)


def _failure(job: job_pb2.Job) -> Failure | None:
    if not job.HasField("failure"):
        return None
    return Failure(job.failure.code, job.failure.message, job.failure.retryable)


def _state(state: job_pb2.JobState.ValueType) -> JobState:
    return JobState(_word(job_pb2.JobState.Name(state), "JOB_STATE_"))


def _word(name: str, prefix: str) -> str:
    return name.removeprefix(prefix).lower()
