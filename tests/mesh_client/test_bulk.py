from __future__ import annotations

from datetime import UTC, datetime

import pytest
from google.rpc import code_pb2

from mesh_client import FullError, MalformedError, MeshClient
from mesh_client.convert import choice_filter
from protos.mesh.v1 import job_pb2
from tests.mesh_client.broker import MemoryBroker, away, status


async def test_list_is_searched_by_times_and_in_an_order(mesh: MeshClient, broker: MemoryBroker) -> None:
    assert [view async for view in mesh.list(operation="load", order_by="finished_at desc")] == []
    assert (broker.orders, broker.calls['ListJobs operation = "load"']) == (["finished_at desc"], 1)


def test_choice_becomes_a_filter() -> None:
    ten = datetime(2026, 11, 21, 10, tzinfo=UTC)
    said = choice_filter(
        {
            "state": "dead",
            "group": None,
            "fairness_key": "",
            "accepted_since": ten,
            "finished_until": ten,
            "filter": "agent = a1",
        }
    )
    assert said == (
        'state = "dead" AND fairness_key = "" AND accepted_at >= "2026-11-21T10:00:00Z" '
        'AND finished_at < "2026-11-21T10:00:00Z" AND agent = a1'
    )
    assert choice_filter({}) == ""


def test_choice_by_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(MalformedError, match=r"accepted_since: .* has no time zone") as raised:
        choice_filter({"accepted_since": datetime(2026, 11, 21, 10)})  # noqa: DTZ001 - that is what is refused
    assert raised.value.reason == "ACCEPTED_SINCE"


async def test_cancel_of_many_tells_each_slice(mesh: MeshClient, broker: MemoryBroker) -> None:
    for operation in ("load", "load", "other", "load"):
        await mesh.submit(operation)
    counted = [one.matched async for one in mesh.cancel_jobs(operation="load", validate_only=True)]
    slices = [(one.matched, one.changed) async for one in mesh.cancel_jobs(operation="load")]
    assert (counted, slices) == ([2, 1], [(2, 2), (1, 1)])
    assert [job.operation for job in broker.jobs.values() if job.state == job_pb2.JOB_STATE_QUEUED] == ["other"]


async def test_cancel_of_many_goes_on_after_a_lost_answer_and_after_its_caller(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    for _ in range(6):
        await mesh.submit("load")
    broker.fail_next("CancelJobs answer", away())
    first = await anext(mesh.cancel_jobs())  # asked twice: what the lost answer told is done
    assert (first.matched, bool(first.resume_token)) == (2, True)
    rest = [one.matched async for one in mesh.cancel_jobs(resume_token=first.resume_token)]
    assert rest == [2]
    assert all(job.state == job_pb2.JOB_STATE_CANCELLED for job in broker.jobs.values())


async def test_cancel_of_many_raises_what_the_broker_refuses(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("CancelJobs", status(code_pb2.INVALID_ARGUMENT, "no", "MALFORMED_FILTER"))
    with pytest.raises(MalformedError):
        await anext(mesh.cancel_jobs())


async def test_requeue_of_many_tells_what_was_made_passed_over_and_refused(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    jobs = [(await mesh.submit("load")).job_id for _ in range(3)]
    for job_id in jobs:
        await broker.move(job_id, job_pb2.JOB_STATE_DEAD)
    next(iter(broker.jobs.values())).operation = "refused"
    await mesh.requeue(jobs[1])
    first, second = [one async for one in mesh.requeue_jobs(state="dead")]
    assert (first.matched, first.changed, first.passed_over) == (2, 0, 1)
    (refused,) = first.refused
    assert (refused.job_id, type(refused.error), refused.error.reason) == (jobs[0], FullError, "QUEUE_FULL")
    assert (second.matched, second.changed, second.resume_token) == (1, 1, "")
