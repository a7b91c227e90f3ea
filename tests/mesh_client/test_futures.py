from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest

from mesh_client import (
    JobCancelledError,
    JobDeadError,
    JobFailedError,
    JobState,
    MeshClient,
    MeshTimeoutError,
    NotFoundError,
)
from protos.mesh.v1 import job_pb2
from tests.mesh_client.broker import WAIT_S, MemoryBroker

SUCCEEDED = job_pb2.JOB_STATE_SUCCEEDED


async def test_future_gives_the_result_when_it_is_awaited(mesh: MeshClient) -> None:
    job = await mesh.submit("done", json={"rows": 3})
    assert not job.done
    assert (await job).json() == {"rows": 3}
    assert job.done


async def test_future_asks_nothing_before_somebody_waits_and_nothing_once_it_is_done(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    job = await mesh.submit("done")
    assert (broker.calls["WatchJobs"], broker.calls["GetJob"]) == (0, 0)
    await job
    await job
    assert (broker.calls["WatchJobs"], broker.calls["GetJob"]) == (1, 1)


@pytest.mark.parametrize(
    ("state", "kind", "reason"),
    [
        (job_pb2.JOB_STATE_FAILED, JobFailedError, "JOB_FAILED"),
        (job_pb2.JOB_STATE_DEAD, JobDeadError, "JOB_DEAD"),
        (job_pb2.JOB_STATE_CANCELLED, JobCancelledError, "JOB_CANCELLED"),
    ],
)
async def test_future_raises_why_the_job_did_not_succeed(
    mesh: MeshClient, broker: MemoryBroker, state: int, kind: type[JobFailedError], reason: str
) -> None:
    job = await mesh.submit("load")
    await broker.move(job.job_id, state, failure=job_pb2.Failure(code="csv.bad_row", message="row 7", retryable=True))
    with pytest.raises(JobFailedError, match=f"job {job.job_id} .load. is .*csv.bad_row: row 7") as caught:
        await job
    error = caught.value
    assert type(error) is kind
    assert (error.job_id, error.operation, error.code, error.message) == (job.job_id, "load", "csv.bad_row", "row 7")
    assert (error.reason, error.retryable, error.exit_code) == (reason, True, 1)
    assert "requeue" in error.next_step


async def test_future_tells_the_outcome_of_a_failed_job_without_raising(mesh: MeshClient, broker: MemoryBroker) -> None:
    job = await mesh.submit("load")
    assert (await job.status()).state is JobState.QUEUED
    await broker.move(job.job_id, job_pb2.JOB_STATE_FAILED)
    assert (await job.outcome()).state is JobState.FAILED
    assert (await job.status()).state is JobState.FAILED


async def test_future_that_is_late_says_so_and_may_be_awaited_again(mesh: MeshClient, broker: MemoryBroker) -> None:
    job = await mesh.submit("load")
    with pytest.raises(MeshTimeoutError, match=r"not final after 0\.1 s") as caught:
        await job.result(timeout_s=0.1)
    assert caught.value.details == {"pending": job.job_id}
    await broker.move(job.job_id, SUCCEEDED, result=job_pb2.Result(content=b"1"))
    assert (await job.result(WAIT_S)).content == b"1"


async def test_future_cancels_its_job(mesh: MeshClient) -> None:
    job = await mesh.submit("load")
    assert (await job.cancel()).state is JobState.CANCELLED
    with pytest.raises(JobCancelledError):
        await job


async def test_future_of_an_old_job_is_awaited_like_a_new_one(mesh: MeshClient, broker: MemoryBroker) -> None:
    ended, running = await mesh.submit("done", b"x"), await mesh.submit("load")
    assert (await mesh.future(ended.job_id)).content == b"x"
    waiting = asyncio.create_task(mesh.future(running.job_id).result())
    await broker.watching.wait()
    await broker.move(running.job_id, SUCCEEDED)
    assert (await waiting).content == b""


async def test_future_of_an_unknown_job_raises(mesh: MeshClient) -> None:
    with pytest.raises(NotFoundError):
        await mesh.future(str(uuid4()))


async def test_as_completed_gives_the_jobs_in_the_order_in_which_they_end(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    jobs = [await mesh.submit("load") for _ in range(3)]
    ended: list[str] = []
    async with asyncio.timeout(WAIT_S):
        await broker.move(jobs[1].job_id, SUCCEEDED)
        async for job in mesh.as_completed(jobs):
            assert job.done
            ended.append(job.job_id)
            if len(ended) == 1:
                await broker.move(jobs[2].job_id, job_pb2.JOB_STATE_FAILED)
            elif len(ended) == 2:
                await broker.move(jobs[0].job_id, SUCCEEDED)
    assert ended == [jobs[1].job_id, jobs[2].job_id, jobs[0].job_id]


async def test_as_completed_names_late_jobs_when_the_time_is_over(mesh: MeshClient) -> None:
    done, late = await mesh.submit("done"), await mesh.submit("load")
    ended = aiter(mesh.as_completed([late, done], timeout_s=0.3))
    assert await anext(ended) is done
    with pytest.raises(MeshTimeoutError, match="1 of 2 jobs are not final") as caught:
        await anext(ended)
    assert caught.value.details == {"pending": late.job_id}


async def test_closing_the_client_tells_those_who_wait(broker: MemoryBroker) -> None:
    mesh = MeshClient(broker.address)
    job = await mesh.submit("load")
    waiting = asyncio.create_task(job.result())
    await broker.watching.wait()
    await mesh.close()
    with pytest.raises(RuntimeError, match="closed"):
        await waiting
