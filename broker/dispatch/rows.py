"""The durable projection: rows of the tables in the order of their columns, and what one batch writes."""

from dataclasses import dataclass, field
from typing import NamedTuple

from broker.dispatch.model import AgentNo, GroupNo, JobKey, OperationPolicy


class JobRow(NamedTuple):
    """A job as it is stored: the durable projection of `Job`, in the order of the table's columns.

    0 stands for "none" in numbers, "" in texts. Payload, result and their content types are columns beside it that
    the dispatcher never sees.
    """

    job_key: JobKey
    job_id: bytes
    group_no: GroupNo
    environment_no: int
    operation: str
    policy_no: int
    labels_no: int
    level: int
    fairness: str
    limit_key: str
    digest: bytes
    payload_bytes: int
    accepted_us: int
    not_before_us: int
    schedule_by_us: int
    run_timeout_us: int
    total_by_us: int
    requeued_from: JobKey
    state: str
    phase: str
    order_us: int
    attempt: int
    agent_no: AgentNo
    assigned_us: int
    started_us: int
    finished_us: int
    code: str
    message: str
    failures: int
    crashes: int
    crashes_alone: int
    bounces: int
    cancel_requested: int
    stop_reason: str


class JobUpdate(NamedTuple):
    """What of a stored job can change, then its key: bound to one UPDATE in this order."""

    state: str
    phase: str
    order_us: int
    not_before_us: int
    attempt: int
    agent_no: AgentNo
    assigned_us: int
    started_us: int
    finished_us: int
    code: str
    message: str
    failures: int
    crashes: int
    crashes_alone: int
    bounces: int
    cancel_requested: int
    stop_reason: str
    job_key: JobKey


class AttemptRow(NamedTuple):
    """The end of an attempt that was not a job's first and good one."""

    job_key: JobKey
    attempt: int
    agent_no: AgentNo
    assigned_us: int
    started_us: int
    ended_us: int
    ending: str
    code: str


class TransitionRow(NamedTuple):
    """A change whose facts are not columns of the job already: lost, bounced, held, cancel, operator acts."""

    group_no: GroupNo
    job_key: JobKey
    attempt: int
    at_us: int
    from_state: str
    to_state: str
    reason: str
    agent_no: AgentNo
    actor: str


class LabelSetRow(NamedTuple):
    """What a class of jobs asks of an agent, numbered in its group. `labels` are sorted `key=value` texts."""

    group_no: GroupNo
    labels_no: int
    operation: str
    labels: tuple[str, ...]


class KeyRow(NamedTuple):
    """A business idempotency key, unique in its group until it expires."""

    group_no: GroupNo
    key: str
    job_key: JobKey
    digest: bytes
    expires_us: int


class AgentRow(NamedTuple):
    """An agent as the dispatcher stores it."""

    agent_no: AgentNo
    group_no: GroupNo
    agent_id: str
    admin: str
    admin_us: int
    admin_actor: str
    admin_reason: str
    admin_due_us: int
    drain_ends: str
    drain_then: str
    link: str
    rank: int
    stray_until_us: int
    created_us: int
    last_connected_us: int
    incarnation: bytes
    labels: tuple[str, ...] = ()


class RequestRow(NamedTuple):
    """What a request that made something was answered with: its id and content, and the number of what it made.

    `kind` is the table of that; `group_no` is 0 but for agents. The id is unique in its organisation (0: the mesh).
    """

    org_no: int
    request_id: str
    digest: bytes
    kind: str
    group_no: GroupNo
    number: int
    expires_us: int


@dataclass(slots=True)
class Writes:
    """What one batch of one group writes, in one transaction. `bodies` are opaque to the dispatcher: the payload of an
    inserted job, the result of an updated one, by job key.
    """

    inserts: list[JobRow] = field(default_factory=list)
    updates: list[JobUpdate] = field(default_factory=list)
    attempts: list[AttemptRow] = field(default_factory=list)
    transitions: list[TransitionRow] = field(default_factory=list)
    label_sets: list[LabelSetRow] = field(default_factory=list)
    policies: list[OperationPolicy] = field(default_factory=list)
    keys: list[KeyRow] = field(default_factory=list)
    agents: list[AgentRow] = field(default_factory=list)
    requests: list[RequestRow] = field(default_factory=list)
    checkpoints: dict[JobKey, object] = field(default_factory=dict)
    payloads: dict[JobKey, object] = field(default_factory=dict)
    results: dict[JobKey, object] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(
            self.inserts
            or self.updates
            or self.attempts
            or self.transitions
            or self.agents
            or self.label_sets
            or self.policies
            or self.keys
            or self.checkpoints
        )
