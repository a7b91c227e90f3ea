"""Every metric that the mesh exposes: name, type, labels and help. The simulator writes the same names."""

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


JOBS_SUBMITTED: Final = Series(
    "mesh_jobs_submitted_total", SeriesType.COUNTER, "Jobs accepted, duplicates aside.", ("group",)
)
JOBS_FINISHED: Final = Series(
    "mesh_jobs_finished_total", SeriesType.COUNTER, "Jobs that reached a final state.", ("group", "state")
)
ATTEMPTS_ASSIGNED: Final = Series(
    "mesh_attempts_assigned_total", SeriesType.COUNTER, "Attempts given to agents.", ("group",)
)
JOBS_RETURNED: Final = Series(
    "mesh_jobs_returned_total", SeriesType.COUNTER, "Jobs that went back to the queue, by reason.", ("group", "reason")
)
SESSIONS: Final = Series("mesh_sessions", SeriesType.GAUGE, "Live agent streams.")
COMMITS: Final = Series("mesh_commits_total", SeriesType.COUNTER, "Transactions committed by the engine.")
COMMIT_SECONDS: Final = Series(
    "mesh_commit_duration_seconds",
    SeriesType.HISTOGRAM,
    "Time of one commit, fsync included.",
    (),
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)
COMMIT_EVENTS: Final = Series(
    "mesh_batch_events",
    SeriesType.HISTOGRAM,
    "Events worked in one batch.",
    (),
    (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024),
)
MAILBOX_FULL: Final = Series(
    "mesh_mailbox_full_total", SeriesType.COUNTER, "Times that a queue of the engine was full.", ("queue",)
)
ACCEPTOR_RESTARTS: Final = Series(
    "mesh_acceptor_restarts_total", SeriesType.COUNTER, "Times that a listener had to be opened again.", ("listener",)
)
BUILD_INFO: Final = Series("mesh_build_info", SeriesType.GAUGE, "1; the version is a label.", ("version",))

ALL: Final = (
    JOBS_SUBMITTED,
    JOBS_FINISHED,
    ATTEMPTS_ASSIGNED,
    JOBS_RETURNED,
    SESSIONS,
    COMMITS,
    COMMIT_SECONDS,
    COMMIT_EVENTS,
    MAILBOX_FULL,
    ACCEPTOR_RESTARTS,
    BUILD_INFO,
)
