"""The dashboard *Fleet*: whether work flows, who does it, what comes back, and how the broker itself is."""

from collections.abc import Mapping, Sequence
from typing import Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models.dashboard import (
    Dashboard,
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from broker import series
from grafana.panels import (
    BYTES,
    DATASOURCE,
    GRID,
    NUMBER,
    PER_SECOND,
    RATE,
    SECONDS,
    SHARE,
    Panel,
    Query,
    mean,
    quantiles,
    rate,
    select,
)

UID: Final = "mesh-fleet"
TAG: Final = "jobmesh"
ACTIVE: Final = 'status="active"'
BAD: Final = 'state=~"failed|dead"'
QUEUED: Final = 'state="queued"'
PROCESS: Final = {one.name: one for one in series.PROCESS}
_BROKER: Final = f"* on (job, instance) group_left (version) {series.BUILD_INFO.name}"
"""Of all programs that tell of their process, only the brokers."""

NOW: Final = (
    Panel(
        "Finished",
        "Jobs that reached a final state, a second. 0 while jobs wait means that nobody takes them: look at agents.",
        PER_SECOND,
        [Query(f"sum({rate(series.JOBS_FINISHED)})", "finished")],
        width=4,
        is_number=True,
    ),
    Panel(
        "Queued",
        "Jobs that could be placed now and wait for room. Fine as long as the oldest does not grow old.",
        NUMBER,
        [Query(f"sum({select(series.JOBS_WAITING, QUEUED)})", "queued")],
        width=4,
        is_number=True,
    ),
    Panel(
        "Oldest queued",
        "How long the job waits that waits longest. The figure to scale agents by.",
        SECONDS,
        [Query(f"max({select(series.OLDEST_AGE_SECONDS)})", "oldest")],
        width=4,
        is_number=True,
    ),
    Panel(
        "Active agents",
        "Agents that are connected, heard and enabled. With fewer than two in a group, one loss stops it.",
        NUMBER,
        [Query(f"sum({select(series.AGENTS, ACTIVE)})", "active")],
        width=4,
        is_number=True,
    ),
    Panel(
        "Slots used",
        "Attempts held, against the slots of the active agents. Near 100 % the queue grows; above, attempts are "
        "fetched ahead, or are those of agents that are away.",
        SHARE,
        [Query(f"sum({select(series.ATTEMPTS_HELD)}) / sum({select(series.SLOTS)})", "used")],
        width=4,
        is_number=True,
    ),
    Panel(
        "Failed",
        "Share of the jobs that ended as failed or dead. The jobs say why: mesh jobs list --state failed.",
        SHARE,
        [Query(f"sum({rate(series.JOBS_FINISHED, BAD)}) / sum({rate(series.JOBS_FINISHED)})", "failed")],
        width=4,
        is_number=True,
        at_most=1,
    ),
)

JOBS: Final = (
    Panel(
        "Submitted and finished",
        "Jobs a second. Where submitted stays above finished, the queue grows by the difference.",
        PER_SECOND,
        [
            Query(f"sum({rate(series.JOBS_SUBMITTED)})", "submitted"),
            Query(f"sum by (state) ({rate(series.JOBS_FINISHED)})", "{{state}}"),
        ],
        width=12,
    ),
    Panel(
        "Waiting",
        "Jobs that no agent holds. Scheduled ones wait for their time or for another try; held ones for a person: "
        "mesh jobs list --state held.",
        NUMBER,
        [Query(f"sum by (state) ({select(series.JOBS_WAITING)})", "{{state}}")],
        width=12,
        is_stacked=True,
    ),
    Panel(
        "Oldest queued by group",
        "How long the job waits that waits longest in each group.",
        SECONDS,
        [Query(select(series.OLDEST_AGE_SECONDS), "{{group}}")],
        width=6,
    ),
    Panel(
        "Time to first assignment",
        "From when a job could first be placed until an agent was given it: what the queue costs.",
        SECONDS,
        quantiles(series.WAIT_SECONDS, 0.5, 0.99),
        width=6,
    ),
    Panel(
        "Run time",
        "From when an attempt was first heard to run until its outcome: what the operation costs.",
        SECONDS,
        quantiles(series.RUN_SECONDS, 0.5, 0.99),
        width=6,
    ),
    Panel(
        "Latency",
        "From when a job could first be placed until it had succeeded, retries included: what submitters see.",
        SECONDS,
        quantiles(series.LATENCY_SECONDS, 0.5, 0.99),
        width=6,
    ),
)

AGENTS: Final = (
    Panel(
        "Agents by status",
        "Where the agents stand. No response: the stream ended or went silent without a Goodbye.",
        NUMBER,
        [Query(f"sum by (status) ({select(series.AGENTS)})", "{{status}}")],
        is_stacked=True,
    ),
    Panel(
        "Capacity",
        "Attempts held against slots and against what the agents say they hold at most. Free capacity and a queue at "
        "the same time: no agent offers what the jobs ask for (mesh jobs explain JOB).",
        NUMBER,
        [
            Query(f"sum({select(series.ATTEMPTS_HELD)})", "held"),
            Query(f"sum({select(series.CAPACITY_FREE)})", "free"),
            Query(f"sum({select(series.SLOTS)})", "slots"),
            Query(f"sum({select(series.CAPACITY)})", "capacity"),
        ],
    ),
    Panel(
        "Evenness",
        "Jain's index of the attempts per slot that the active agents of a group were given since they last changed, "
        "two minutes at most: 1 is even, 1 / n is one agent that gets all. Agents with unlike operations, labels or "
        "ranks are not given the same.",
        SHARE,
        [Query(select(series.EVENNESS), "{{group}}")],
        at_most=1,
    ),
    Panel(
        "Assigned by agent",
        "Attempts a second that each agent was given. Only groups of at most limits.metrics_agents_max agents.",
        PER_SECOND,
        [Query(rate(series.AGENT_ASSIGNED), "{{group}}/{{agent}}")],
        width=12,
    ),
    Panel(
        "Held by agent",
        "Attempts that occupy each agent. Only groups of at most limits.metrics_agents_max agents.",
        NUMBER,
        [Query(select(series.AGENT_HELD), "{{group}}/{{agent}}")],
        width=12,
        is_stacked=True,
    ),
)

TROUBLE: Final = (
    Panel(
        "Jobs returned",
        "Jobs that went back to the queue, by reason. agent_lost: a process or its network died; accept_timeout: it "
        "is deaf; rejected_unfit: it cannot do what it offers; failed: the operation will be tried again.",
        PER_SECOND,
        [Query(f"sum by (reason) ({rate(series.JOBS_RETURNED)})", "{{reason}}")],
        width=6,
    ),
    Panel(
        "Attempts that may have overlapped",
        "Attempts of repeatable jobs that began while an earlier one may still have run. Operations for which that "
        "is harmful must be exclusive.",
        PER_SECOND,
        [Query(f"sum by (group) ({rate(series.ATTEMPTS_OVERLAPPED)})", "{{group}}")],
        width=6,
    ),
    Panel(
        "Reports refused",
        "What agents said of attempts that are not theirs any more; each is work done in vain. foreign: an agent "
        "speaks for another one, which needs a look at that agent.",
        PER_SECOND,
        [Query(f"sum by (reason) ({rate(series.REPORTS_REFUSED)})", "{{reason}}")],
        width=6,
    ),
    Panel(
        "Submissions refused",
        "Jobs that were not accepted, by reason, of all groups: docs/errors.md says what each reason asks for.",
        PER_SECOND,
        [Query(f"sum by (reason) (rate({series.SUBMISSIONS_REFUSED.name}[{RATE}]))", "{{reason}}")],
        width=6,
    ),
)

BROKER: Final = (
    Panel(
        "Time of a commit",
        "One transaction, fsync included. Every answer waits for one; a slow disk shows here first.",
        SECONDS,
        quantiles(series.COMMIT_SECONDS, 0.5, 0.99, by="instance"),
        width=6,
    ),
    Panel(
        "Commits",
        "Transactions a second.",
        PER_SECOND,
        [Query(rate(series.COMMITS), "{{instance}}")],
        width=6,
    ),
    Panel(
        "Size of a commit",
        "Events worked in a batch and rows written by its commit, on average. Batches grow with load: that is how "
        "the broker keeps up.",
        NUMBER,
        [
            Query(mean(series.COMMIT_EVENTS, "instance"), "{{instance}} events"),
            Query(mean(series.COMMIT_ROWS, "instance"), "{{instance}} rows"),
        ],
        width=6,
    ),
    Panel(
        "Lag of the event loop",
        "How late the loop takes a turn. Above a tenth of a second everything is late: too few cores, or swapping.",
        SECONDS,
        quantiles(series.LOOP_LAG_SECONDS, 0.5, 0.99, by="instance"),
        width=6,
    ),
    Panel(
        "Agent streams",
        "Live streams of agents on each broker.",
        NUMBER,
        [Query(select(series.SESSIONS), "{{instance}}")],
        width=6,
    ),
    Panel(
        "Frames",
        "Frames a second on agent streams. Many jobs share a frame, so this grows slower than the jobs.",
        PER_SECOND,
        [Query(f"sum by (direction) ({rate(series.FRAMES)})", "{{direction}}")],
        width=6,
    ),
    Panel(
        "Mailbox",
        "Events that wait for the engine, by queue; near 0 unless the store is slow.",
        NUMBER,
        [Query(f"sum by (queue) ({select(series.MAILBOX_EVENTS)})", "{{queue}}")],
        width=6,
        is_stacked=True,
    ),
    Panel(
        "Refusals for want of room",
        "Times a second that a queue of the engine was full. Submitters are told to come again, agents wait.",
        PER_SECOND,
        [Query(f"sum by (queue) ({rate(series.MAILBOX_FULL)})", "{{queue}}")],
        width=6,
    ),
    Panel(
        "Store",
        "Files of the store. A write-ahead log that only grows means that something holds it open for reading.",
        BYTES,
        [
            Query(select(series.STORE_BYTES), "{{instance}} {{file}}"),
            Query(select(series.STORE_FREE_BYTES), "{{instance}} free inside main"),
        ],
    ),
    Panel(
        "History removed",
        "Finished jobs and idempotency keys a second that are past their time, and the longest transaction that "
        "removed some: a commit may have waited for it.",
        NUMBER,
        [
            Query(f"sum by (kind) ({rate(series.HISTORY_REMOVED)})", "{{kind}} a second"),
            Query(select(series.HISTORY_SLICE_SECONDS), "{{instance}} longest slice, s"),
        ],
    ),
    Panel(
        "Health",
        "1 while the store refuses commits; times that a listener was opened again; age of the figures themselves.",
        NUMBER,
        [
            Query(select(series.STORE_STALLED), "{{instance}} stalled"),
            Query(f"increase({series.ACCEPTOR_RESTARTS.name}[{RATE}])", "{{instance}} {{listener}} opened again"),
            Query(select(series.SNAPSHOT_AGE_SECONDS), "{{instance}} age of figures, s"),
        ],
    ),
    Panel(
        "Processor time",
        "Cores that each broker uses. It takes decisions in one of them: near 1 it is at its limit.",
        NUMBER,
        [Query(f"{rate(PROCESS['process_cpu_seconds_total'])} {_BROKER}", "{{instance}} {{version}}")],
        width=12,
    ),
    Panel(
        "Memory",
        "Resident memory of each broker. Live jobs are kept in memory, payloads are not.",
        BYTES,
        [Query(f"{PROCESS['process_resident_memory_bytes'].name} {_BROKER}", "{{instance}}")],
        width=12,
    ),
)

ROWS: Final[Mapping[str, Sequence[Panel]]] = {
    "Now": NOW,
    "Jobs": JOBS,
    "Agents": AGENTS,
    "What comes back": TROUBLE,
    "Broker": BROKER,
}


def fleet() -> Dashboard:
    """The whole dashboard."""
    board = (
        dashboard.Dashboard("Mesh: Fleet")
        .uid(UID)
        .description("Whether work flows, who does it, what comes back, and how the broker is.")
        .tags([TAG])
        .timezone("browser")
        .time("now-1h", "now")
        .refresh("10s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(_groups())
        .annotation(_restarts())
        .link(_others())
    )
    number = 0
    for title, panels in ROWS.items():
        assert sum(panel.width for panel in panels) % GRID == 0, f"a line of {title} is not full"
        board.with_row(dashboard.Row(title).id(100 + number))
        for panel in panels:
            number += 1
            board.with_panel(panel.build(number))
    return board.build()


def _groups() -> dashboard.QueryVariable:
    return (
        dashboard.QueryVariable("group")
        .label("Group")
        .datasource(DATASOURCE)
        .query(f"label_values({series.AGENTS.name}, group)")
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _restarts() -> dashboard.AnnotationQuery:
    return (
        dashboard.AnnotationQuery()
        .name("Broker started")
        .datasource(DATASOURCE)
        .enable(True)
        .icon_color("orange")
        .expr(f"resets({series.COMMITS.name}[{RATE}]) > 0")
    )


def _others() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Mesh").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return link.as_dropdown(True).include_vars(True).keep_time(True)
