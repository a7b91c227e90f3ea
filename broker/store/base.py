"""What a store must do: the protocol that SQLite (and later PostgreSQL) fulfil, held to one conformance suite.

A store promises: what `commit` answered with COMMITTED survives `kill -9` and a power cut; a batch is there whole or
not at all; a batch of a stale epoch changes nothing. It never decides anything about jobs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple, Protocol

from broker.dispatch.model import AgentNo, GroupNo, JobKey, OperationPolicy
from broker.dispatch.rows import AgentRow, AttemptRow, JobRow, LabelSetRow, TransitionRow, Writes


class Body(NamedTuple):
    """Bytes that belong to a job and that the dispatcher never sees: a payload or a result.

    `metadata` are sorted key and value pairs (payloads only).
    """

    content: bytes
    content_type: str = ""
    metadata: tuple[tuple[str, str], ...] = ()


class CommitStatus(StrEnum):
    """What is known about a commit; `docs/architecture.md`, "Commit outcomes"."""

    COMMITTED = "committed"
    ROLLED_BACK = "rolled_back"
    UNKNOWN = "unknown"
    STALE = "stale"


@dataclass(slots=True, frozen=True)
class CommitOutcome:
    """The answer to one commit. `stale_groups` with STALE; `why` and `retry_after_s` with ROLLED_BACK."""

    status: CommitStatus
    stale_groups: tuple[GroupNo, ...] = ()
    why: str = ""
    retry_after_s: float = 0.0


@dataclass(slots=True)
class CommitRequest:
    """One transaction: the writes of all groups of one batch.

    `seq` is the number of this commit of this broker: the store sets `broker_batch.seq` to it where it was `seq - 1`.
    `at_us` is engine time; the store keeps the highest it has committed.
    """

    seq: int
    at_us: int
    epochs: Mapping[GroupNo, int]
    writes: Mapping[GroupNo, Writes]


class Ownership(NamedTuple):
    """What a broker starts from, once it holds the store: see `Store.take_ownership`."""

    batch_seq: int
    last_committed_us: int
    epochs: Mapping[GroupNo, int]


class SubmissionLookup(NamedTuple):
    """What to look for before a submission is accepted: its job id, and its business key if it has one."""

    group_no: GroupNo
    job_id: bytes
    key: str


class KnownSubmission(NamedTuple):
    """A job that was accepted before under the same job id or key."""

    job_key: JobKey
    digest: bytes


class GroupState(NamedTuple):
    """The small things of a group that recovery reads before its jobs."""

    acceptance_no: int
    policies: Sequence[OperationPolicy]
    label_sets: Sequence[LabelSetRow]
    agents: Sequence[AgentRow]


class OrganisationRow(NamedTuple):
    """An organisation. `slug` is its id in resource names."""

    org_no: int
    slug: str
    display_name: str
    created_us: int


class GroupRow(NamedTuple):
    """An agent group of an organisation; `kind` is `private` or `managed`."""

    group_no: GroupNo
    org_no: int
    slug: str
    display_name: str
    description: str
    kind: str
    central_logging: bool
    created_us: int


class EnvironmentRow(NamedTuple):
    """An environment; jobs submitted to it go to `target_group_no` (0: none). `group_nos` are all that it names."""

    environment_no: int
    org_no: int
    slug: str
    display_name: str
    description: str
    target_group_no: GroupNo
    group_nos: tuple[GroupNo, ...]
    created_us: int


class JobRecord(NamedTuple):
    """A job for readers: its row, the submitter's key, and (from `job` only) its bytes and what happened to it.

    `labels` are the `key=value` texts that it asks of an agent. `transitions` are in the order of their commits,
    `attempts` by number.
    """

    row: JobRow
    idempotency_key: str
    labels: tuple[str, ...] = ()
    payload: Body | None = None
    result: Body | None = None
    checkpoint: bytes = b""
    attempts: tuple[AttemptRow, ...] = ()
    transitions: tuple[TransitionRow, ...] = ()


@dataclass(slots=True, frozen=True)
class JobQuery:
    """Which jobs to list: newest acceptance first inside `groups`, after the key `before_key` (0: from the newest)."""

    groups: tuple[GroupNo, ...]
    states: tuple[str, ...] = ()
    operation: str = ""
    agent_no: AgentNo | None = None
    before_key: Mapping[GroupNo, JobKey] = field(default_factory=dict)
    limit: int = 50


class Store(Protocol):
    """The durable side of one broker. All methods may be called from one event loop; none blocks it.

    Errors: `StoreBusyError` nothing changed, try again; `StoreFailedError` end the process; `StoreLockedError` only
    from `open`; `ConflictError` from the inserts of administrative rows when a name is taken.
    """

    kind: str
    synchronous: str

    async def open(self) -> None:
        """Take the lock, checkpoint what a crash left, check or migrate the schema."""

    async def close(self) -> None:
        """Finish what runs, release the lock. May be called twice."""

    async def take_ownership(self, broker_id: str, at_us: int) -> Ownership:
        """Raise the epoch of every group by one, durable on return."""

    async def adopt_group(self, group_no: GroupNo) -> int:
        """Raise the epoch of one group (new, or rebuilt) by one and return it, durable on return."""

    async def commit(self, request: CommitRequest) -> CommitOutcome:
        """One transaction for all groups. Never raises for what the table of commit outcomes names."""

    async def committed_seq(self, broker_id: str) -> int:
        """The number of the newest commit on disk: settles an UNKNOWN one."""

    async def find_submissions(self, lookups: Sequence[SubmissionLookup]) -> list[KnownSubmission | None]:
        """For each look-up the job of its group that has its id, else its live key, in one read."""

    async def group_state(self, group_no: GroupNo) -> GroupState:
        """What recovery needs of one group besides its jobs."""

    async def live_jobs(self, group_no: GroupNo, after: JobKey, limit: int) -> list[JobRow]:
        """Jobs that are not final, by key, a page at a time."""

    async def payloads(self, job_keys: Sequence[JobKey]) -> dict[JobKey, Body]:
        """Payloads from disk, large ones included."""

    async def checkpoints(self, job_keys: Sequence[JobKey]) -> dict[JobKey, bytes]:
        """Latest checkpoints of these jobs, where there are any."""

    async def job(self, group_nos: Sequence[GroupNo], job_id: bytes) -> JobRecord | None:
        """One job whole, if it belongs to one of the groups."""

    async def jobs(self, query: JobQuery) -> list[JobRecord]:
        """A page of jobs, without bytes."""

    async def records(self, job_keys: Sequence[JobKey]) -> list[JobRecord]:
        """These jobs, by key, as far as they are kept, without bytes."""

    async def organisations(self) -> list[OrganisationRow]: ...

    async def groups(self) -> list[GroupRow]: ...

    async def environments(self) -> list[EnvironmentRow]: ...

    async def insert_organisation(self, slug: str, display_name: str, at_us: int) -> OrganisationRow: ...

    async def insert_group(
        self, org_no: int, slug: str, display_name: str, description: str, kind: str, central_logging: bool, at_us: int
    ) -> GroupRow: ...

    async def insert_environment(
        self,
        org_no: int,
        slug: str,
        display_name: str,
        description: str,
        target_group_no: GroupNo,
        group_nos: tuple[GroupNo, ...],
        at_us: int,
    ) -> EnvironmentRow: ...
