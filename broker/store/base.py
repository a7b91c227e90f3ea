"""What a store must do: the protocol that SQLite (and later PostgreSQL) fulfil, held to one conformance suite.

A store promises: what `commit` answered with COMMITTED survives `kill -9` and a power cut; a batch is there whole or
not at all; a batch of a stale epoch changes nothing. It never decides anything about jobs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from broker.dispatch.model import OWN_PREFETCH, AgentNo, GroupNo, JobKey, OperationPolicy
from broker.dispatch.rows import AgentRow, AttemptRow, JobRow, LabelSetRow, RequestRow, TransitionRow, Writes

TIME_END_US: Final = 1 << 62
"""After all times."""
REQUESTS_MAX: Final = 10_000
"""Of how many of the newest requests of an organisation it is remembered what they made."""


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
    """An organisation. `slug` is its id in resource names. One that is removed (`removed_us`) keeps its number."""

    org_no: int
    slug: str
    display_name: str
    created_us: int
    description: str = ""
    removed_us: int = 0


class GroupRules(NamedTuple):
    """How a group treats its jobs: `mode` is a `Spread`, `inactive_jobs` is `wait` or `refuse`, `placing` a `Placing`.

    What is 0 or "" from `placing` on is as the broker's settings have it; a `prefetch` below 0 is each agent's own.
    """

    mode: str = "balanced"
    inactive_jobs: str = "wait"
    placing: str = ""
    placing_choices: int = 0
    attempts_max: int = 0
    backoff_first_us: int = 0
    backoff_max_us: int = 0
    cancel_grace_us: int = 0
    queue_jobs_max: int = 0
    queue_bytes_max: int = 0
    prefetch: float = OWN_PREFETCH


PLAIN_RULES: Final = GroupRules()


class GroupRow(NamedTuple):
    """An agent group of an organisation; `kind` is `private` or `managed`.

    From `mode` to `prefetch` it is its `GroupRules`. One that is removed (`removed_us`) keeps its number.
    """

    group_no: GroupNo
    org_no: int
    slug: str
    display_name: str
    description: str
    kind: str
    central_logging: bool
    created_us: int
    mode: str = "balanced"
    inactive_jobs: str = "wait"
    placing: str = ""
    placing_choices: int = 0
    attempts_max: int = 0
    backoff_first_us: int = 0
    backoff_max_us: int = 0
    cancel_grace_us: int = 0
    queue_jobs_max: int = 0
    queue_bytes_max: int = 0
    prefetch: float = OWN_PREFETCH
    removed_us: int = 0

    @property
    def rules(self) -> GroupRules:
        """How it treats its jobs."""
        return GroupRules(*(getattr(self, name) for name in GroupRules._fields))


class AgentWordsRow(NamedTuple):
    """What people call an agent and say of it; where there is no row, it is called by its id."""

    group_no: GroupNo
    agent_no: AgentNo
    display_name: str
    description: str


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
    `attempts` by number. `requeued_as` is the id of the newest job that repeats it.
    """

    row: JobRow
    idempotency_key: str
    labels: tuple[str, ...] = ()
    payload: Body | None = None
    result: Body | None = None
    checkpoint: bytes = b""
    attempts: tuple[AttemptRow, ...] = ()
    transitions: tuple[TransitionRow, ...] = ()
    requeued_as: bytes = b""


class Place(NamedTuple):
    """A place in a list of jobs: the time that it is ordered by, ties by key."""

    at_us: int
    job_key: JobKey


class Span(NamedTuple):
    """Times from `since_us` on, before `until_us`."""

    since_us: int = 0
    until_us: int = TIME_END_US


EVER: Final = Span()


@dataclass(slots=True, frozen=True)
class JobQuery:
    """Which jobs to list, in which order, and how much to do for it.

    Over all `groups` in the order of acceptance (of their end if `is_by_finish`: finished jobs only), oldest first if
    `is_ascending`; from the place `start` on, which is that of a job of the page before or behind it. At most about
    `rows_max` rows are looked at: a page may be short, or empty, and go on. `agents` are those of each of the groups.
    """

    groups: tuple[GroupNo, ...]
    states: tuple[str, ...] = ()
    environment_no: int | None = None
    operation: str | None = None
    agents: Mapping[GroupNo, tuple[AgentNo, ...]] | None = None
    code: str | None = None
    fairness: str | None = None
    idempotency_key: str = ""
    accepted: Span = EVER
    finished: Span = EVER
    is_by_finish: bool = False
    is_ascending: bool = False
    start: Place | None = None
    limit: int = 50
    rows_max: int = 50_000


class JobPage(NamedTuple):
    """Jobs of a list, and where it goes on; None: this was the end."""

    records: list[JobRecord]
    next: Place | None


class JobCount(NamedTuple):
    """So many jobs were counted, and where to go on; None: these were all."""

    jobs: int
    next: Place | None


class Retired(NamedTuple):
    """What one slice of retention removed: jobs, business keys, and rows in all."""

    jobs: int = 0
    keys: int = 0
    rows: int = 0


class Purged(NamedTuple):
    """Who was removed long ago and is forgotten: groups, agents by group and number, organisations."""

    groups: tuple[GroupNo, ...] = ()
    agents: tuple[tuple[GroupNo, AgentNo], ...] = ()
    organisations: tuple[int, ...] = ()


class FileState(NamedTuple):
    """Bytes of the store's file, and how many of them are free for what comes."""

    bytes: int
    free_bytes: int


class Store(Protocol):
    """The durable side of one broker. All methods may be called from one event loop; none blocks it.

    Errors: `StoreBusyError` nothing changed, try again; `StoreFailedError` end the process; `StoreLockedError` only
    from `open`; `ConflictError` from the inserts of administrative rows when a name is taken.
    """

    kind: str
    synchronous: str
    mesh_id: str
    """Which mesh it is the memory of: made with it, for ever. Known once it is open."""

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
        """For each look-up the job of its group that has its id, else its live key, in one read.

        It sees what a commit writes that was asked for before, also if that still runs.
        """

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

    async def jobs(self, query: JobQuery) -> JobPage:
        """A page of jobs, without bytes and history."""

    async def count_jobs(self, query: JobQuery) -> JobCount:
        """How many jobs there are, group after group; the order of the query and its `limit` do not matter."""

    async def records(self, job_keys: Sequence[JobKey]) -> list[JobRecord]:
        """These jobs, by key, as far as they are kept, without bytes."""

    async def repeated(self, job_keys: Sequence[JobKey]) -> set[JobKey]:
        """Those of these jobs that another job repeats."""

    async def retire(self, finished_before_us: int, keys_before_us: int, rows_max: int) -> Retired:
        """Remove a slice of what is past its time, durably or not: jobs that finished before, keys that expired before.

        Never touches a job that is not final. A job goes with all its rows, or not at all: one that has more than
        `rows_max` goes alone.
        """

    async def purge(self, idle: Sequence[GroupNo], before_us: int, agents_max: int) -> Purged:
        """Forget who was removed before this time and is named by no kept job; of groups those that are `idle`."""

    async def file_state(self) -> FileState:
        """How large the store is."""

    async def organisations(self) -> list[OrganisationRow]:
        """All, those that are removed too."""

    async def groups(self) -> list[GroupRow]:
        """All, those that are removed too: their jobs still have to end, and stay in the history."""

    async def environments(self) -> list[EnvironmentRow]: ...

    async def agent_words(self) -> list[AgentWordsRow]: ...

    async def find_request(self, org_no: int, request_id: str, now_us: int) -> RequestRow | None:
        """What this request has made, if that is remembered still."""

    async def insert_organisation(
        self, slug: str, display_name: str, at_us: int, *, description: str = "", request: RequestRow | None = None
    ) -> OrganisationRow:
        """Make it and remember who asked, both or nothing; the store puts the number in. So do the others below."""

    async def insert_group(self, row: GroupRow, request: RequestRow | None = None) -> GroupRow:
        """Store the row under the next number; its own is ignored."""

    async def insert_environment(
        self,
        org_no: int,
        slug: str,
        display_name: str,
        description: str,
        target_group_no: GroupNo,
        group_nos: tuple[GroupNo, ...],
        at_us: int,
        request: RequestRow | None = None,
    ) -> EnvironmentRow: ...

    async def update_organisation(self, row: OrganisationRow) -> None:
        """Put the row in the place of the one with its number; so do the others below."""

    async def update_group(self, row: GroupRow) -> None: ...

    async def update_environment(self, row: EnvironmentRow) -> None: ...

    async def put_agent_words(self, row: AgentWordsRow) -> None: ...

    async def remove_environment(self, environment_no: int) -> None: ...

    async def remove_group(self, group_no: GroupNo, at_us: int) -> None:
        """Note that it is removed, and take it out of every environment."""

    async def remove_organisation(self, org_no: int, at_us: int) -> None:
        """The same for an organisation and all its groups; its environments go."""
