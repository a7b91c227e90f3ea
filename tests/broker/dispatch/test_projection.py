"""Rows are made as tuples: here fields and values are held together."""

from typing import Any

import pytest

from broker.dispatch.lane import Lane
from broker.dispatch.model import DispatchPolicy, GroupNo, Job, JobKey, JobState, OperationPolicy, Phase
from broker.dispatch.projection import row_of, update_of
from broker.dispatch.queue import Queue
from broker.dispatch.rows import JobRow, JobUpdate

GROUP = GroupNo(7)
NUMBERS = (
    *("accepted_us", "agent", "assigned_us", "attempt", "bounces", "crashes", "crashes_alone", "environment_no"),
    *("failures", "finished_us", "not_before_us", "order_us", "payload_bytes", "requeued_from", "run_timeout_us"),
    *("schedule_by_us", "started_us", "total_by_us"),
)
WORDS = ("code", "message", "stop_reason")


def lane() -> Lane:
    queue = Queue(DispatchPolicy())
    label_set = queue.label_set("orders", ("zone=a",))
    assert label_set is not None
    found = queue.lane(label_set, 4, "customer", "limit")
    assert found is not None
    return found


@pytest.fixture
def job() -> Job:
    """A job of which no two fields of one type are the same."""
    policy = OperationPolicy(no=3)
    made = Job(JobKey(1), b"id", lane(), policy, b"digest", 0, 0, JobState.RUNNING, phase=Phase.ACCEPTED)
    made.cancel_requested = True
    for number, name in enumerate(NUMBERS, 100):
        setattr(made, name, number)
    for name in WORDS:
        setattr(made, name, name)
    return made


def expected(job: Job, names: tuple[str, ...]) -> dict[str, Any]:
    """The values of these columns."""
    place = job.lane.level
    others = {
        "job_key": job.key,
        "group_no": GROUP,
        "operation": "orders",
        "policy_no": 3,
        "labels_no": place.label_set.no,
        "level": 4,
        "fairness": "customer",
        "limit_key": "limit",
        "agent_no": job.agent,
        "cancel_requested": 1,
    }
    return {name: others[name] if name in others else getattr(job, name) for name in names}


def test_row_has_each_value_in_its_field(job: Job) -> None:
    row = row_of(GROUP, job)

    assert type(row) is JobRow
    assert row._asdict() == expected(job, JobRow._fields)


def test_update_has_each_value_in_its_field(job: Job) -> None:
    update = update_of(job)

    assert type(update) is JobUpdate
    assert update._asdict() == expected(job, JobUpdate._fields)
