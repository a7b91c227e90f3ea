"""The durable projection of a job: what of it is in the store, and comes back from there.

Rows are made as tuples: `JobRow(...)` is a function of Python that does the same for twice the time. The tests of this
module hold fields and values together.
"""

from broker.dispatch.model import GroupNo, Job
from broker.dispatch.rows import JobRow, JobUpdate


def row_of(group: GroupNo, job: Job) -> JobRow:
    """The durable projection of a job."""
    lane = job.lane
    level = lane.level
    values = (
        job.key,
        job.job_id,
        group,
        job.environment_no,
        level.label_set.operation,
        job.policy.no,
        level.label_set.no,
        level.number,
        lane.fairness,
        lane.limit_key,
        job.digest,
        job.payload_bytes,
        job.accepted_us,
        job.not_before_us,
        job.schedule_by_us,
        job.run_timeout_us,
        job.total_by_us,
        job.requeued_from,
        job.state,
        job.phase,
        job.order_us,
        job.attempt,
        job.agent,
        job.assigned_us,
        job.started_us,
        job.finished_us,
        job.code,
        job.message,
        job.failures,
        job.crashes,
        job.crashes_alone,
        job.bounces,
        int(job.cancel_requested),
        job.stop_reason,
    )
    return tuple.__new__(JobRow, values)


def update_of(job: Job) -> JobUpdate:
    """What of a stored job may have changed."""
    values = (
        job.state,
        job.phase,
        job.order_us,
        job.not_before_us,
        job.attempt,
        job.agent,
        job.assigned_us,
        job.started_us,
        job.finished_us,
        job.code,
        job.message,
        job.failures,
        job.crashes,
        job.crashes_alone,
        job.bounces,
        int(job.cancel_requested),
        job.stop_reason,
        job.key,
    )
    return tuple.__new__(JobUpdate, values)
