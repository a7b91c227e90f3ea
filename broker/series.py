"""Every metric that the mesh exposes: name, type, labels and help. The simulator writes the same names.

Labels are bounded: a group (`organisation/group`), a state, a reason, an agent of a group that has few. Never a job,
never text from a peer. docs/telemetry.md says what to do with each of them.
"""

from enum import StrEnum
from typing import Final, NamedTuple


class SeriesType(StrEnum):
    """The Prometheus type of a series."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Series(NamedTuple):
    """One metric. `buckets` are upper bounds of a histogram, in its unit."""

    name: str
    type: SeriesType
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


JOB_SECONDS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0),
)
"""From a millisecond to an hour: what jobs take."""
COUNTS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 2_048.0, 4_096.0)
STALL_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)

# --- jobs -----------------------------------------------------------------------------------------------------------

JOBS_SUBMITTED: Final = Series(
    "mesh_jobs_submitted_total", SeriesType.COUNTER, "Jobs accepted, duplicates aside.", ("group",)
)
SUBMISSIONS_REFUSED: Final = Series(
    "mesh_submissions_refused_total",
    SeriesType.COUNTER,
    "Jobs that were not accepted, by reason; without a group when it is not known which was meant.",
    ("group", "reason"),
)
JOBS_FINISHED: Final = Series(
    "mesh_jobs_finished_total", SeriesType.COUNTER, "Jobs that reached a final state.", ("group", "state")
)
JOBS_WAITING: Final = Series(
    "mesh_jobs_waiting", SeriesType.GAUGE, "Jobs that no agent holds: queued, scheduled or held.", ("group", "state")
)
OLDEST_AGE_SECONDS: Final = Series(
    "mesh_jobs_oldest_age_seconds",
    SeriesType.GAUGE,
    "Time since the queued job that waits longest could first be placed; 0 when none waits.",
    ("group",),
)
WAIT_SECONDS: Final = Series(
    "mesh_job_wait_seconds",
    SeriesType.HISTOGRAM,
    "Time from when a job could first be placed until its first assignment.",
    ("group",),
    JOB_SECONDS,
)
RUN_SECONDS: Final = Series(
    "mesh_job_run_seconds",
    SeriesType.HISTOGRAM,
    "Time from when an attempt was first heard to run until its outcome, whichever it was.",
    ("group",),
    JOB_SECONDS,
)
LATENCY_SECONDS: Final = Series(
    "mesh_job_latency_seconds",
    SeriesType.HISTOGRAM,
    "Time from when a job could first be placed until it had succeeded, retries included.",
    ("group",),
    JOB_SECONDS,
)

# --- attempts -------------------------------------------------------------------------------------------------------

ATTEMPTS_ASSIGNED: Final = Series(
    "mesh_attempts_assigned_total", SeriesType.COUNTER, "Attempts given to agents.", ("group",)
)
AGENT_ASSIGNED: Final = Series(
    "mesh_agent_attempts_assigned_total",
    SeriesType.COUNTER,
    "Attempts given to this agent; only in groups of at most limits.metrics_agents_max agents.",
    ("group", "agent"),
)
ATTEMPTS_HELD: Final = Series(
    "mesh_attempts_held", SeriesType.GAUGE, "Attempts that occupy capacity of their agents.", ("group",)
)
AGENT_HELD: Final = Series(
    "mesh_agent_attempts_held",
    SeriesType.GAUGE,
    "Attempts that occupy this agent; only in groups of at most limits.metrics_agents_max agents.",
    ("group", "agent"),
)
EVENNESS: Final = Series(
    "mesh_evenness_ratio",
    SeriesType.GAUGE,
    "Jain's index of the attempts per slot that each active agent was given lately; 1 is even, none is too few.",
    ("group",),
)
JOBS_RETURNED: Final = Series(
    "mesh_jobs_returned_total", SeriesType.COUNTER, "Jobs that went back to the queue, by reason.", ("group", "reason")
)
ATTEMPTS_OVERLAPPED: Final = Series(
    "mesh_attempts_overlapped_total",
    SeriesType.COUNTER,
    "Attempts of repeatable jobs that began while an earlier one may still have run.",
    ("group",),
)
REPORTS_REFUSED: Final = Series(
    "mesh_reports_refused_total",
    SeriesType.COUNTER,
    "Reports of agents about attempts that did not count, by reason.",
    ("group", "reason"),
)

# --- agents ---------------------------------------------------------------------------------------------------------

AGENTS: Final = Series("mesh_agents", SeriesType.GAUGE, "Agents by status.", ("group", "status"))
SLOTS: Final = Series("mesh_slots", SeriesType.GAUGE, "Slots of the active agents.", ("group",))
CAPACITY: Final = Series(
    "mesh_capacity", SeriesType.GAUGE, "Attempts that the active agents say they hold at most.", ("group",)
)
CAPACITY_FREE: Final = Series(
    "mesh_capacity_free", SeriesType.GAUGE, "Attempts that could be placed on active agents now.", ("group",)
)
SESSIONS: Final = Series("mesh_sessions", SeriesType.GAUGE, "Live agent streams.")
FRAMES: Final = Series(
    "mesh_frames_total", SeriesType.COUNTER, "Frames on agent streams, received and sent.", ("group", "direction")
)

# --- the broker -----------------------------------------------------------------------------------------------------

COMMITS: Final = Series("mesh_commits_total", SeriesType.COUNTER, "Transactions committed by the engine.")
COMMIT_SECONDS: Final = Series(
    "mesh_commit_duration_seconds",
    SeriesType.HISTOGRAM,
    "Time of one commit, fsync included.",
    (),
    STALL_SECONDS,
)
COMMIT_ROWS: Final = Series(
    "mesh_commit_rows", SeriesType.HISTOGRAM, "Rows written by one commit, payloads aside.", (), COUNTS
)
COMMIT_EVENTS: Final = Series("mesh_batch_events", SeriesType.HISTOGRAM, "Events worked in one batch.", (), COUNTS)
MAILBOX_EVENTS: Final = Series("mesh_mailbox_events", SeriesType.GAUGE, "Events that wait for the engine.", ("queue",))
MAILBOX_FULL: Final = Series(
    "mesh_mailbox_full_total", SeriesType.COUNTER, "Times that a queue of the engine was full.", ("queue",)
)
LOOP_LAG_SECONDS: Final = Series(
    "mesh_loop_lag_seconds",
    SeriesType.HISTOGRAM,
    "How much later than asked for the event loop took a turn, asked several times a second.",
    (),
    STALL_SECONDS,
)
STORE_STALLED: Final = Series("mesh_store_stalled", SeriesType.GAUGE, "1 while the store refuses commits, else 0.")
STORE_BYTES: Final = Series("mesh_store_bytes", SeriesType.GAUGE, "Size of the files of the store.", ("file",))
STORE_FREE_BYTES: Final = Series(
    "mesh_store_free_bytes", SeriesType.GAUGE, "Room inside the main file that is used before it grows."
)
HISTORY_REMOVED: Final = Series(
    "mesh_history_removed_total",
    SeriesType.COUNTER,
    "Finished jobs and idempotency keys past their time that were removed, and names of what operators removed.",
    ("kind",),
)
HISTORY_SLICE_SECONDS: Final = Series(
    "mesh_history_slice_max_seconds",
    SeriesType.GAUGE,
    "Longest transaction of the newest removal; a commit may have waited for it.",
)
JOURNAL_RECORDING: Final = Series(
    "mesh_journal_recording", SeriesType.GAUGE, "1 while what the broker does is written down, else 0."
)
JOURNAL_BYTES: Final = Series("mesh_journal_bytes", SeriesType.GAUGE, "Size of the journal on disk.")
JOURNAL_LEFT_OUT: Final = Series(
    "mesh_journal_left_out_total", SeriesType.COUNTER, "Turns of the engine that are not in the journal."
)
ACCEPTOR_RESTARTS: Final = Series(
    "mesh_acceptor_restarts_total", SeriesType.COUNTER, "Times that a listener had to be opened again.", ("listener",)
)
SNAPSHOT_SECONDS: Final = Series(
    "mesh_snapshot_duration_seconds", SeriesType.GAUGE, "Time that the event loop spent on the figures of this page."
)
SNAPSHOT_AGE_SECONDS: Final = Series(
    "mesh_snapshot_age_seconds",
    SeriesType.GAUGE,
    "How old the figures of this page are; above 0 when the event loop did not answer in time.",
)
BUILD_INFO: Final = Series("mesh_build_info", SeriesType.GAUGE, "1; the version is a label.", ("version",))

ALL: Final = (
    JOBS_SUBMITTED,
    SUBMISSIONS_REFUSED,
    JOBS_FINISHED,
    JOBS_WAITING,
    OLDEST_AGE_SECONDS,
    WAIT_SECONDS,
    RUN_SECONDS,
    LATENCY_SECONDS,
    ATTEMPTS_ASSIGNED,
    AGENT_ASSIGNED,
    ATTEMPTS_HELD,
    AGENT_HELD,
    EVENNESS,
    JOBS_RETURNED,
    ATTEMPTS_OVERLAPPED,
    REPORTS_REFUSED,
    AGENTS,
    SLOTS,
    CAPACITY,
    CAPACITY_FREE,
    SESSIONS,
    FRAMES,
    COMMITS,
    COMMIT_SECONDS,
    COMMIT_ROWS,
    COMMIT_EVENTS,
    MAILBOX_EVENTS,
    MAILBOX_FULL,
    LOOP_LAG_SECONDS,
    STORE_STALLED,
    STORE_BYTES,
    STORE_FREE_BYTES,
    HISTORY_REMOVED,
    HISTORY_SLICE_SECONDS,
    JOURNAL_RECORDING,
    JOURNAL_BYTES,
    JOURNAL_LEFT_OUT,
    ACCEPTOR_RESTARTS,
    SNAPSHOT_SECONDS,
    SNAPSHOT_AGE_SECONDS,
    BUILD_INFO,
)
"""What the broker counts itself, in the order of the page."""

PROCESS: Final = (
    Series("process_cpu_seconds_total", SeriesType.COUNTER, "Total user and system CPU time spent in seconds."),
    Series("process_resident_memory_bytes", SeriesType.GAUGE, "Resident memory size in bytes."),
    Series("process_virtual_memory_bytes", SeriesType.GAUGE, "Virtual memory size in bytes."),
    Series("process_start_time_seconds", SeriesType.GAUGE, "Start time of the process since unix epoch in seconds."),
    Series("process_open_fds", SeriesType.GAUGE, "Number of open file descriptors."),
    Series("process_max_fds", SeriesType.GAUGE, "Maximum number of open file descriptors."),
)
"""What every program that is watched by Prometheus says of its process, under the names that all of them use."""
