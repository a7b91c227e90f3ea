"""Jobs as a submitter sees them: plain values, no protobuf.

Durations are seconds, points in time are `datetime`s with a time zone, job ids are UUID texts.
"""

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, TypedDict

from mesh_client.errors import MeshClientError


class JobState(StrEnum):
    """Where a job stands. `held` waits for a person; the last four are final."""

    SCHEDULED = "scheduled"
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    HELD = "held"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DEAD = "dead"


FINAL_STATES: Final = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.DEAD})


@dataclass(slots=True, frozen=True)
class JobSpec:
    """What to run. Everything but the operation may be left out."""

    operation: str
    payload: bytes = b""
    _: KW_ONLY
    json: object = None
    """Instead of `payload`: encoded as JSON, content type application/json."""
    content_type: str = ""
    priority: int = 0
    """1 (first) to 5 (last); 0: the broker's default, 3."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels that the agent must have."""
    fairness_key: str = ""
    delay_s: float | None = None
    start_at: datetime | None = None
    schedule_to_start_s: float | None = None
    run_timeout_s: float | None = None
    total_timeout_s: float | None = None
    idempotency_key: str = ""
    """A key of the submitter's business, unique in the group, besides the job id."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    job_id: str | bytes | None = None
    """A UUID; by default a new one of version 7. Submitting it again makes no second job."""


class SpecOptions(TypedDict, total=False):
    """The fields of `JobSpec` besides operation and payload, as keyword arguments."""

    json: object
    content_type: str
    priority: int
    labels: Mapping[str, str]
    fairness_key: str
    delay_s: float | None
    start_at: datetime | None
    schedule_to_start_s: float | None
    run_timeout_s: float | None
    total_timeout_s: float | None
    idempotency_key: str
    metadata: Mapping[str, str]
    job_id: str | bytes | None


@dataclass(slots=True, frozen=True)
class SubmittedJob:
    """The answer to one submission: durable, unless `error` says why it was refused (then `job_key` is 0).

    `duplicate`: the job had been accepted before, by somebody else or earlier; repeats of a retry do not count.
    """

    job_id: str
    job_key: int = 0
    duplicate: bool = False
    error: MeshClientError | None = None

    def accepted(self) -> "SubmittedJob":
        """Itself. Raises the error of a refused submission."""
        if self.error is not None:
            raise self.error
        return self


@dataclass(slots=True, frozen=True)
class Failure:
    """Why a job failed, or its latest attempt did."""

    code: str
    message: str
    retryable: bool


@dataclass(slots=True, frozen=True)
class JobResult:
    """What a job produced."""

    content: bytes
    content_type: str = ""

    def json(self) -> object:
        """The content, decoded from JSON. Raises ValueError if it is none."""
        import json

        return json.loads(self.content)


@dataclass(slots=True, frozen=True)
class AttemptView:
    """One attempt of a job. `ending` is a word such as `succeeded`, `failed`, `lost`; "" while it is live."""

    attempt: int
    agent: str
    assigned_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    ending: str
    code: str


@dataclass(slots=True, frozen=True)
class TransitionView:
    """One step of a job. `from_state` is None for its acceptance; `actor` and `comment` if a person did it."""

    at: datetime | None
    from_state: JobState | None
    to_state: JobState
    reason: str
    attempt: int
    agent: str
    actor: str
    comment: str


@dataclass(slots=True, frozen=True)
class JobView:
    """A job as the broker knew it when it answered.

    `result`, `checkpoint`, `attempts`, `transitions` and `requeued_as` only from `get` and `wait`.
    """

    job_id: str
    job_key: int
    organization: str
    group: str
    environment: str
    operation: str
    state: JobState
    attempt: int
    agent: str
    priority: int
    labels: Mapping[str, str]
    fairness_key: str
    accepted_at: datetime | None
    not_before: datetime | None
    assigned_at: datetime | None
    started_at: datetime | None
    finished_at: datetime | None
    failure: Failure | None
    failures: int
    crashes: int
    bounces: int
    cancel_requested: bool
    result: JobResult | None
    requeued_from: str
    checkpoint: bytes
    idempotency_key: str
    payload_bytes: int = 0
    attempts: tuple[AttemptView, ...] = ()
    transitions: tuple[TransitionView, ...] = ()
    requeued_as: str = ""

    def without_history(self) -> "JobView":
        """What lists and watches tell of it, and its result."""
        return replace(self, checkpoint=b"", attempts=(), transitions=(), requeued_as="")

    @property
    def is_final(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.state in FINAL_STATES


@dataclass(slots=True, frozen=True)
class JobChange:
    """One message of a watch: jobs that changed, each in its latest state.

    `resume_token` continues after it; `gap`: states between were left out, the latest are right.
    """

    jobs: tuple[JobView, ...]
    resume_token: str
    gap: bool


@dataclass(slots=True, frozen=True)
class AgentVerdict:
    """Whether one agent may take a job, and why not."""

    agent: str
    eligible: bool
    reason: str


@dataclass(slots=True, frozen=True)
class Explanation:
    """Why a job is where it is, and what would move it."""

    summary: str
    next_step: str
    agents: tuple[AgentVerdict, ...]


class JobChoice(TypedDict, total=False):
    """Which jobs of the organization: all that is given must hold. Times are from `since` on, before `until`."""

    state: str | None
    group: str | None
    environment: str | None
    operation: str | None
    agent: str | None
    code: str | None
    fairness_key: str | None
    idempotency_key: str | None
    accepted_since: datetime | None
    accepted_until: datetime | None
    finished_since: datetime | None
    finished_until: datetime | None
    filter: str
    """More conditions, as the API takes them: `field = value` joined by AND."""


@dataclass(slots=True, frozen=True)
class RefusedJob:
    """A job with which something could not be done, and why."""

    job_id: str
    error: MeshClientError


@dataclass(slots=True, frozen=True)
class BulkSlice:
    """What one slice of a bulk call did; it is durable. The next one begins at `resume_token`, "" after the last.

    Of `matched` jobs `changed` were cancelled or requeued, `stopping` still run and were told to stop, `passed_over`
    had ended or been requeued before, and `refused` say why not.
    """

    matched: int
    changed: int
    stopping: int
    passed_over: int
    refused: tuple[RefusedJob, ...]
    resume_token: str
