"""What a dispatcher knows: jobs, attempts, agents and the policies that bind them.

All times are engine time in whole microseconds (`_us`, ADR 0005). Ids that people choose stay outside: inside, agents,
groups, label sets and policies are small integers, and a job is its `job_key` (group number and acceptance number).
A payload is never held here.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NewType

if TYPE_CHECKING:
    from broker.dispatch.lane import Lane
    from broker.dispatch.placement import AgentClass

JobKey = NewType("JobKey", int)
GroupNo = NewType("GroupNo", int)
AgentNo = NewType("AgentNo", int)
SessionId = NewType("SessionId", int)

NO_AGENT: Final = AgentNo(0)
NO_SESSION: Final = SessionId(0)
NO_JOB: Final = JobKey(0)

SECOND_US: Final = 1_000_000
OWN_PREFETCH: Final = -1.0
"""The prefetch of a group that says none: each agent's own."""
WAY_BYTES_S: Final = 1 << 16
"""Payloads on their way to an agent may take as long as this many bytes a second make them."""
ACCEPTANCE_BITS: Final = 40
"""Low bits of a job key that number the acceptances of a group; the high bits are the group."""


def job_key(group: GroupNo, acceptance_no: int) -> JobKey:
    """The key of the group's `acceptance_no`-th job: unique in the mesh, ordered by acceptance in its group."""
    return JobKey(group << ACCEPTANCE_BITS | acceptance_no)


def group_of(key: JobKey) -> GroupNo:
    """The group that a job key belongs to."""
    return GroupNo(key >> ACCEPTANCE_BITS)


class Word(StrEnum):
    """What is stored or shown as a word. In a dict it is found as fast as its text: `Enum` hashes by a function."""

    __hash__ = str.__hash__


class JobState(Word):
    """Where a job stands. The last four are final."""

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


class Phase(Word):
    """What the mesh knows of a job's latest attempt.

    The first four are live: they occupy capacity of their agent. `ADOPTABLE` was taken away, has no successor, and
    counts again if its agent comes back with it. `NONE` is closed or never made.
    """

    NONE = "none"
    SENT = "sent"
    ACCEPTED = "accepted"
    AWAY = "away"
    STOPPING = "stopping"
    ADOPTABLE = "adoptable"


LIVE_PHASES: Final = frozenset({Phase.SENT, Phase.ACCEPTED, Phase.AWAY, Phase.STOPPING})


class OnLoss(Word):
    """What happens to a job whose agent is lost: the job type's choice (promise P3)."""

    RETRY = "retry"
    FAIL = "fail"
    HOLD = "hold"


class OutcomeStatus(Word):
    """How an agent says that an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    FENCED = "fenced"


class Admin(Word):
    """What operators have said about an agent."""

    ENABLED = "enabled"
    DISABLED = "disabled"
    DRAINING = "draining"
    PAUSED = "paused"
    REMOVED = "removed"


class Link(Word):
    """What the broker observes of an agent. `LEFT`: it said Goodbye; `STOPPED`: it was drained to stop."""

    NEVER = "never"
    LIVE = "live"
    SUSPECT = "suspect"
    GONE = "gone"
    LEFT = "left"
    STOPPED = "stopped"


# Of members that are asked for several times a job: through its class each look-up costs 0.1 us up to Python 3.11.
_LIVE: Final = Link.LIVE
_ENABLED: Final = Admin.ENABLED


class DrainEnd(Word):
    """Where a drain ends: the process ends, or it stays connected and idle until it is resumed."""

    STOP = "stop"
    PAUSE = "pause"


class DrainThen(Word):
    """What happens at the deadline of a drain to what still runs."""

    FINISH = "finish"
    REQUEUE = "requeue"
    KILL = "kill"


@dataclass(slots=True, frozen=True)
class OperationPolicy:
    """How jobs of one operation are treated; resolved at acceptance and kept with the job by number.

    `failures_max` retryable failures, `crashes_max` crashes of its agent and `bounces_max` refused placements make a
    job dead. Retry delays double from `backoff_first_us` to `backoff_max_us`, with full jitter above the half.
    """

    no: int = 0
    exclusive: bool = False
    on_loss: OnLoss = OnLoss.RETRY
    failures_max: int = 3
    crashes_max: int = 3
    bounces_max: int = 20
    backoff_first_us: int = 1 * SECOND_US
    backoff_max_us: int = 300 * SECOND_US
    cancel_grace_us: int = 10 * SECOND_US
    running_max: int = 0
    """How many jobs with the same limit key may have a live attempt at once (0: no limit)."""


class Spread(Word):
    """How the ranks of agents count: not at all; the first rank that works takes all; the next one takes the rest."""

    BALANCED = "balanced"
    ORDERED = "ordered"
    SPILL = "spill"


class Placing(Word):
    """Which of the agents with room gets a job: see `broker.dispatch.placement` and `broker.dispatch.placing`.

    By load unless an operator wants it otherwise for a group.
    """

    LEAST_LOADED = "least_loaded"
    ROUND_ROBIN = "round_robin"
    RANDOM = "random"
    POWER_OF_D = "power_of_d"


@dataclass(slots=True, frozen=True)
class DispatchPolicy:
    """Timing and bounds of one group: its defaults are the starting numbers, each is a setting."""

    heartbeat_us: int = 2 * SECOND_US
    idle_heartbeat_us: int = 5 * SECOND_US
    suspect_us: int = 6 * SECOND_US
    lease_us: int = 10 * SECOND_US
    margin_us: int = 2 * SECOND_US
    reconnect_grace_us: int = 2 * SECOND_US
    recovery_grace_us: int = 30 * SECOND_US
    accept_timeout_us: int = 5 * SECOND_US
    stop_slack_us: int = 5 * SECOND_US
    unoffered_grace_us: int = 5 * SECOND_US
    lazy_write_us: int = 1 * SECOND_US
    keys_us: int = 7 * 86_400 * SECOND_US
    """How long a business idempotency key is remembered."""
    prefetch: float = OWN_PREFETCH
    """Attempts given ahead for each slot of an agent; below 0: as each agent says itself."""
    queue_jobs_max: int = 1_000_000
    queue_bytes_max: int = 1 << 30
    label_sets_max: int = 1_024
    lanes_max: int = 10_000
    agent_classes_max: int = 32
    run_slack_us: int = 1 * SECOND_US
    """How long after its run or total deadline an attempt is told to stop: its agent does so by itself in time."""
    placing: Placing = Placing.LEAST_LOADED
    placing_choices: int = 2
    """How many agents `POWER_OF_D` draws and compares."""
    spread: Spread = Spread.BALANCED
    refuses_inactive: bool = False
    """Whether submissions are refused while none of the group's agents is active; else they wait."""
    placements_step_max: int = 1_024
    expiries_step_max: int = 256
    ageing_us: int = 300 * SECOND_US
    """Head start of a priority level over the next lower one; 0 switches ageing off (strict levels)."""


@dataclass(slots=True, eq=False)
class Job:
    """A live job. Only `Ledger` changes its state and phase.

    `lane` carries what never changes about its place: label set (operation, labels), level, fairness and limit key.
    `is_suspect`: agents died with it more than once, so it may be why; `crashes_alone` counts its latest crashes in
    which nobody else may have been. `agent` is who has, or last had, the latest attempt; `due_us` is the armed
    deadline (0: none). `ahead`, `behind` and `has_returned` belong to the lane in which it waits.
    """

    key: JobKey
    job_id: bytes
    lane: "Lane"
    policy: OperationPolicy
    digest: bytes
    order_us: int
    accepted_us: int
    state: JobState
    environment_no: int = 0
    payload_bytes: int = 0
    not_before_us: int = 0
    schedule_by_us: int = 0
    run_timeout_us: int = 0
    total_by_us: int = 0
    requeued_from: JobKey = NO_JOB
    phase: Phase = Phase.NONE
    attempt: int = 0
    agent: AgentNo = NO_AGENT
    assigned_us: int = 0
    started_us: int = 0
    failures: int = 0
    crashes: int = 0
    crashes_alone: int = 0
    bounces: int = 0
    cancel_requested: bool = False
    is_suspect: bool = False
    loss_counted: bool = False
    is_taken_over: bool = False
    """Whether the process that ran its attempt was alive when another one took over: no crash, whatever follows."""
    stop_reason: str = ""
    stop_by_us: int = 0
    fence_us: int = 0
    """Of an exclusive attempt that is away, a full lease after its process was heard: read it by `Ledger.fence_us`."""
    finished_us: int = 0
    code: str = ""
    message: str = ""
    due_us: int = 0
    stored: bool = False
    ahead: "Job | None" = field(default=None, repr=False)
    behind: "Job | None" = field(default=None, repr=False)
    has_returned: bool = False

    @property
    def operation(self) -> str:
        """What to call on the agent."""
        return self.lane.level.label_set.operation

    @property
    def is_final(self) -> bool:
        """Whether nothing more can happen to it."""
        return self.state in FINAL_STATES


@dataclass(slots=True, eq=False)
class Agent:
    """An agent of the group. What is in use is `live` and `detached`, never a counter.

    `admin` is what operators said, by whom, when and why; `admin_due_us` is when that has a deadline (0: none): of a
    drain, or of the stream of an agent that is disabled at once. `is_leaving` is a drain of its own (SIGTERM).

    `live` are its jobs with a live attempt, `sent` those of them that it has not accepted yet, oldest first (value:
    when it should have arrived on a slow way), `suspects` those that may crash it; `culprit` is the only one that can
    have crashed it when its session ended (0: several, or none). `detached` are attempts whose job has moved on.
    """

    no: AgentNo
    agent_id: str
    created_us: int = 0
    admin: Admin = Admin.ENABLED
    admin_us: int = 0
    admin_actor: str = ""
    admin_reason: str = ""
    admin_due_us: int = 0
    drain_ends: DrainEnd = DrainEnd.STOP
    drain_then: DrainThen = DrainThen.FINISH
    link: Link = Link.NEVER
    session: SessionId = NO_SESSION
    incarnation: bytes = b""
    connect_seq: int = 0
    slots: int = 1
    capacity: int = 0
    """The most attempts that it may hold: what it `stated`, or less if its group gives less ahead."""
    stated: int = 0
    capacity_seq: int = 0
    operations: frozenset[str] = frozenset()
    unfit: frozenset[str] = frozenset()
    labels: frozenset[str] = frozenset()
    """What counts for placement: `operator_labels`, and of the `claims` those whose key they do not name."""
    claims: frozenset[str] = frozenset()
    operator_labels: frozenset[str] = frozenset()
    labels_us: int = 0
    """When an operator last changed its labels; what it was given before then stays."""
    is_busy: bool = False
    is_deaf: bool = False
    is_leaving: bool = False
    heard_us: int = 0
    closed_us: int = 0
    active_until_us: int = 0
    """When it was last active; has no meaning while it is."""
    connected_us: int = 0
    away_until_us: int = 0
    """Take-away time of its repeatable attempts while it is away."""
    stray_until_us: int = 0
    """Earliest take-away time of exclusive attempts of an earlier process; 0: there are none."""
    rank: int = 0
    """Its place among the agents of the group where the spread is by rank: lower is earlier."""
    last_assigned_no: int = 0
    heap_key: int = -1
    agent_class: "AgentClass | None" = None
    due_us: int = 0
    stored: bool = False
    live: dict[JobKey, Job] = field(default_factory=dict)
    suspects: set[JobKey] = field(default_factory=set)
    culprit: JobKey = NO_JOB
    was_taken_over: bool = False
    quarantined: tuple[bytes, ...] = ()
    """Its processes that another one has taken over from: not let in while that one is here."""
    """Whether the process before this one was heard when this one connected: its attempts were cut, not crashed."""
    sent: dict[JobKey, int] = field(default_factory=dict)
    detached: dict[tuple[JobKey, int], None] = field(default_factory=dict)

    @property
    def held(self) -> int:
        """Attempts that occupy its capacity."""
        return len(self.live) + len(self.detached)

    def bound(self, prefetch: float) -> None:
        """Find its capacity anew; `prefetch` is that of its group. What it holds stays."""
        given = self.stated if prefetch < 0 else self.slots + int(self.slots * prefetch)
        self.capacity = min(self.stated, given)

    def relabel(self) -> None:
        """Find its labels anew, from what it claims and what operators said."""
        if not self.operator_labels:
            self.labels = self.claims
            return
        said = {label.partition("=")[0] for label in self.operator_labels}
        self.labels = self.operator_labels | {one for one in self.claims if one.partition("=")[0] not in said}

    @property
    def is_active(self) -> bool:
        """Whether it is connected, heard and enabled: what makes its group active."""
        return self.link is _LIVE and self.admin is _ENABLED

    @property
    def is_present(self) -> bool:
        """Whether a session of it is live."""
        return self.session != NO_SESSION
