"""A dispatcher from what is stored: after a start, a take-over or lost ownership.

The durable projection is exact, queue order included. Soft facts start anew: sessions, capacity, accepted and started
flags, fair-queue times. All live attempts are away until `recovery_grace`: their agents run on and come back with them.
New work is placed at once on agents that are back.
"""

from collections.abc import Iterable, Mapping

from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.ledger import SUSPECT_CRASHES, Ledger
from broker.dispatch.model import (
    LIVE_PHASES,
    Admin,
    Agent,
    DrainEnd,
    DrainThen,
    Job,
    JobState,
    Link,
    OperationPolicy,
    Phase,
)
from broker.dispatch.rows import AgentRow, JobRow, LabelSetRow

_LASTING = (Link.NEVER, Link.LEFT, Link.STOPPED)
"""What is still true of an agent after a start of ours: it left on purpose, or was never there."""


def recover(
    dispatcher: Dispatcher,
    now_us: int,
    *,
    acceptance_no: int,
    policies: Iterable[OperationPolicy],
    label_sets: Iterable[LabelSetRow],
    agents: Iterable[AgentRow],
) -> None:
    """Fill an empty dispatcher with the small things of its group; then `recover_jobs`, page by page, then `seal`."""
    ledger = dispatcher.ledger
    ledger.now_us = now_us
    ledger.acceptance_no = acceptance_no
    ledger.recovering_until_us = now_us + ledger.policy.recovery_grace_us
    ledger.policies = {policy.no: policy for policy in policies}
    for row in label_sets:
        ledger.queue.restore_label_set(row.labels_no, row.operation, row.labels).stored = True
    for agent in agents:
        ledger.agents[agent.agent_no] = _agent_of(ledger, agent)


def _agent_of(ledger: Ledger, row: AgentRow) -> Agent:
    agent = Agent(row.agent_no, row.agent_id, created_us=row.created_us, admin=Admin(row.admin))
    agent.admin_us, agent.admin_due_us = row.admin_us, row.admin_due_us
    agent.admin_actor, agent.admin_reason = row.admin_actor, row.admin_reason
    agent.drain_ends, agent.drain_then = DrainEnd(row.drain_ends), DrainThen(row.drain_then)
    agent.incarnation, agent.rank = row.incarnation, row.rank
    agent.operator_labels = frozenset(row.labels)
    agent.relabel()
    agent.connected_us = row.last_connected_us
    agent.link = Link(row.link) if row.link in _LASTING else Link.GONE
    agent.active_until_us = ledger.now_us if agent.link is Link.GONE else 0  # nobody knows; it may be back in a moment
    agent.away_until_us = ledger.recovering_until_us
    agent.stray_until_us = row.stray_until_us
    return agent


def recover_jobs(dispatcher: Dispatcher, rows: Iterable[JobRow]) -> None:
    """Take in live jobs, in the order of their keys."""
    ledger = dispatcher.ledger
    for row in rows:
        job = _job_of(ledger, row, ledger.policies)
        ledger.jobs.add(job)
        job.lane.level.label_set.live += 1
        ledger.queued_bytes += job.payload_bytes
        ledger.acceptance_no = max(ledger.acceptance_no, row.job_key & ((1 << 40) - 1))
        if job.phase is Phase.AWAY:
            ledger.fence(job, ledger.recovering_until_us)
            ledger.hold(job, ledger.agents[job.agent])
        if job.state is JobState.QUEUED:
            ledger.enqueue(job)
        else:
            ledger.arm_job(job)


def _job_of(ledger: Ledger, row: JobRow, policies: Mapping[int, OperationPolicy]) -> Job:
    lane = ledger.queue.restore_lane(ledger.queue.by_no[row.labels_no], row.level, row.fairness, row.limit_key)
    job = Job(
        row.job_key,
        row.job_id,
        lane,
        policies[row.policy_no],
        row.digest,
        row.order_us,
        row.accepted_us,
        JobState(row.state),
        row.environment_no,
        row.payload_bytes,
        row.not_before_us,
        row.schedule_by_us,
        row.run_timeout_us,
        row.total_by_us,
        row.requeued_from,
    )
    phase = Phase(row.phase)
    job.phase = Phase.AWAY if phase in LIVE_PHASES else phase
    job.attempt, job.agent = row.attempt, row.agent_no
    job.assigned_us, job.started_us = row.assigned_us, row.started_us
    job.failures, job.crashes, job.bounces = row.failures, row.crashes, row.bounces
    job.crashes_alone, job.is_suspect = row.crashes_alone, row.crashes >= SUSPECT_CRASHES
    job.cancel_requested, job.stop_reason = bool(row.cancel_requested), row.stop_reason
    job.code, job.message = row.code, row.message
    job.stored = True
    return job


def seal(dispatcher: Dispatcher) -> None:
    """All jobs are in: arm the agents that hold some. The dispatcher may step from here on.

    It wants to at once if operators want something of an agent, which may hold nothing any more.
    """
    ledger = dispatcher.ledger
    if len(ledger.queue.by_no) > ledger.policy.label_sets_max:
        ledger.queue.forget_unused_sets()
    for agent in list(ledger.agents.values()):
        if agent.admin is Admin.REMOVED and not agent.live:
            del ledger.agents[agent.no]
            continue
        if agent.admin is not Admin.ENABLED:
            ledger.unsettled[agent.no] = agent
        ledger.arm_agent(agent)
    ledger.wants_places = {}
