from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio
from google.rpc import code_pb2

from mesh_client import DeniedError, JobFuture, JobSpec, MeshClient, UnavailableError
from protos.mesh.v1 import job_pb2
from tests.mesh_client.broker import WAIT_S, MemoryBroker, away, full, status

SUCCEEDED = job_pb2.JOB_STATE_SUCCEEDED
MANY = 3_000


@pytest_asyncio.fixture
async def known(mesh: MeshClient, broker: MemoryBroker) -> list[JobFuture]:
    """Futures that know that their job was accepted."""
    return [await mesh.submit("load") for _ in range(5)]


async def test_thousands_of_futures_share_one_watch_and_poll_nothing(mesh: MeshClient, broker: MemoryBroker) -> None:
    answers = await mesh.submit_many([JobSpec("load") for _ in range(MANY)])
    jobs = [JobFuture(mesh, mesh.outcomes, answer) for answer in answers]
    tasks = [asyncio.create_task(job.outcome()) for job in jobs]
    await broker.watching.wait()
    for answer in answers:
        await broker.move(answer.job_id, job_pb2.JOB_STATE_FAILED)
    async with asyncio.timeout(WAIT_S):
        views = await asyncio.gather(*tasks)
    assert {view.state for view in views} == {"failed"}
    assert (broker.calls["WatchJobs"], broker.calls["GetJob"]) == (1, 0)


async def test_trickle_of_waiters_costs_few_streams(mesh: MeshClient, broker: MemoryBroker) -> None:
    jobs = [await mesh.submit("load") for _ in range(40)]
    waiting = []
    for number, job in enumerate(jobs, 1):
        waiting.append(asyncio.create_task(job.result()))
        await broker.called("WatchJobs", number)
    assert len(mesh.outcomes.streams) <= 4
    for job in jobs:
        await broker.move(job.job_id, SUCCEEDED)
    async with asyncio.timeout(WAIT_S):
        await asyncio.gather(*waiting)
    assert mesh.outcomes.streams == []


async def test_outcome_is_not_missed_when_the_broker_was_away_when_the_job_ended(
    mesh: MeshClient, broker: MemoryBroker, known: list[JobFuture]
) -> None:
    waiting = [asyncio.create_task(job.result()) for job in known]
    await broker.watching.wait()
    await broker.stop()
    for job in known:
        await broker.move(job.job_id, SUCCEEDED, result=job_pb2.Result(content=job.job_id.encode()))
    await broker.start()
    async with asyncio.timeout(WAIT_S):
        assert [result.content.decode() for result in await asyncio.gather(*waiting)] == [job.job_id for job in known]


async def test_gap_in_a_watch_is_filled_by_a_new_one(
    mesh: MeshClient, broker: MemoryBroker, known: list[JobFuture]
) -> None:
    waiting = asyncio.create_task(known[0].outcome())
    await broker.watching.wait()
    broker.forget_next()
    await broker.move(known[0].job_id, SUCCEEDED)
    async with asyncio.timeout(WAIT_S):
        assert (await waiting).state == "succeeded"
    assert broker.calls["WatchJobs"] == 2


async def test_refused_watch_is_raised_to_all_and_asking_again_begins_anew(
    mesh: MeshClient, broker: MemoryBroker, known: list[JobFuture]
) -> None:
    broker.fail_next("WatchJobs", status(code_pb2.PERMISSION_DENIED, "not yours", "DENIED"))
    errors = await asyncio.gather(*(job.outcome() for job in known), return_exceptions=True)
    assert [type(error) for error in errors] == [DeniedError] * len(known)
    await broker.move(known[0].job_id, SUCCEEDED)
    await known[0]


async def test_watch_that_is_one_too_many_is_asked_for_again(
    mesh: MeshClient, broker: MemoryBroker, known: list[JobFuture]
) -> None:
    broker.fail_next("WatchJobs", full(), full())
    waiting = asyncio.create_task(known[0].outcome())
    await broker.called("WatchJobs", 3)
    await broker.move(known[0].job_id, SUCCEEDED)
    assert (await waiting).state == "succeeded"


async def test_broker_that_stays_away_is_raised(broker: MemoryBroker) -> None:
    async with MeshClient(broker.address, retry_for_s=0.3) as mesh:
        job = await mesh.submit("load")
        waiting = asyncio.create_task(job.result())
        await broker.watching.wait()
        await broker.stop()
        with pytest.raises(UnavailableError):
            await waiting


async def test_result_that_cannot_be_read_is_raised(mesh: MeshClient, broker: MemoryBroker) -> None:
    job = await mesh.submit("done")
    broker.fail_next("GetJob", away(), status(code_pb2.PERMISSION_DENIED, "not yours", "DENIED"))
    with pytest.raises(DeniedError):
        await job
    assert (await job).content == b""


async def test_stream_ends_when_nobody_waits_any_more(
    mesh: MeshClient, broker: MemoryBroker, known: list[JobFuture]
) -> None:
    waiting = [asyncio.create_task(job.result()) for job in known[:2]]
    await broker.watching.wait()
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    assert mesh.outcomes.streams == [1]
    waiting[1].cancel()
    await asyncio.gather(waiting[1], return_exceptions=True)
    async with asyncio.timeout(WAIT_S):
        await broker.left.wait()
    assert mesh.outcomes.streams == []
