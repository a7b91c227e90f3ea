from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast
from uuid import uuid4

import pytest
from google.rpc import code_pb2

from mesh_client import DeniedError, JobChange, JobState, JobView, MeshClient, NotFoundError
from protos.mesh.v1 import job_pb2
from tests.mesh_client.broker import WAIT_S, MemoryBroker, away, status


async def take(changes: AsyncGenerator[JobChange, None], count: int) -> list[JobChange]:
    async with asyncio.timeout(WAIT_S):
        return [await anext(changes) for _ in range(count)]


async def follow(mesh: MeshClient, *job_ids: str) -> list[JobView]:
    async with asyncio.timeout(WAIT_S):
        return [view async for view in mesh.follow(job_ids)]


async def test_watch_tells_each_change_with_a_token(mesh: MeshClient, broker: MemoryBroker) -> None:
    async with aclosing(cast("AsyncGenerator[JobChange, None]", mesh.watch())) as changes:
        taking = asyncio.create_task(take(changes, 1))
        await broker.watching.wait()
        job = await mesh.submit("load")
        [change] = await taking
    assert [view.job_id for view in change.jobs] == [job.job_id]
    assert change.resume_token == "1"


async def test_watch_goes_on_where_it_was_when_the_stream_breaks(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("WatchJobs told", away())
    async with aclosing(cast("AsyncGenerator[JobChange, None]", mesh.watch())) as changes:
        taking = asyncio.create_task(take(changes, 2))
        await broker.watching.wait()
        first = await mesh.submit("load")
        second = await mesh.submit("load")
        told = [view.job_id for change in await taking for view in change.jobs]
    assert told == [first.job_id, second.job_id]


async def test_watch_continues_after_a_token_of_somebody_else(mesh: MeshClient) -> None:
    await mesh.submit("load")
    missed = await mesh.submit("load")
    async with aclosing(cast("AsyncGenerator[JobChange, None]", mesh.watch(resume_token="1"))) as changes:
        [change] = await take(changes, 1)
    assert [view.job_id for view in change.jobs] == [missed.job_id]


async def test_watch_goes_on_when_the_broker_is_restarted_after_a_long_silence(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_s = 0.0
    monkeypatch.setattr("mesh_client.retry.monotonic", lambda: passed_s)
    async with MeshClient(broker.address, retry_for_s=5.0) as mesh:
        changes = cast("AsyncGenerator[JobChange, None]", mesh.watch())
        async with aclosing(changes):
            taking = asyncio.create_task(take(changes, 1))
            await broker.watching.wait()
            await mesh.submit("load")
            await taking  # now the client knows, too, that its watch stands
            passed_s = 3_600.0
            taking = asyncio.create_task(take(changes, 1))
            await broker.restart()
            await broker.watching.wait()
            job = await mesh.submit("load")
            [change] = await taking
    assert [view.job_id for view in change.jobs] == [job.job_id]


async def test_watch_raises_when_it_is_refused(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("WatchJobs", status(code_pb2.PERMISSION_DENIED, "not yours", "DENIED"))
    with pytest.raises(DeniedError):
        await take(cast("AsyncGenerator[JobChange, None]", mesh.watch()), 1)


async def test_follow_ends_with_the_result_of_a_job_that_was_final_before(mesh: MeshClient) -> None:
    job = await mesh.submit("done", b"hello")
    views = await follow(mesh, job.job_id)
    assert [view.state for view in views] == [JobState.SUCCEEDED]
    assert views[0].result is not None
    assert views[0].result.content == b"hello"


async def test_follow_tells_each_state_once_when_it_is_both_watched_and_read(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    job = await mesh.submit("load")
    states: list[JobState] = []
    async with asyncio.timeout(WAIT_S):
        async for view in mesh.follow([job.job_id]):
            states.append(view.state)
            if view.state is JobState.QUEUED:
                await broker.move(job.job_id, job_pb2.JOB_STATE_RUNNING, agent="a1", attempt=1)
            if view.state is JobState.RUNNING:
                await broker.move(job.job_id, job_pb2.JOB_STATE_SUCCEEDED)
    assert states == [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]


async def test_follow_tells_nothing_when_a_new_stream_says_the_same_again(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    job = await mesh.submit("load")
    following = asyncio.create_task(follow(mesh, job.job_id))
    async with asyncio.timeout(WAIT_S):
        for _ in range(2):
            await broker.watching.wait()
            await broker.restart()
        await broker.watching.wait()
    await broker.move(job.job_id, job_pb2.JOB_STATE_SUCCEEDED)
    assert [view.state for view in await following] == [JobState.QUEUED, JobState.SUCCEEDED]


async def test_follow_misses_nothing_when_the_broker_is_restarted(mesh: MeshClient, broker: MemoryBroker) -> None:
    job = await mesh.submit("load")
    following = asyncio.create_task(follow(mesh, job.job_id))
    await broker.watching.wait()
    await broker.stop()
    await broker.move(job.job_id, job_pb2.JOB_STATE_SUCCEEDED)
    await broker.start()
    views = await following
    assert views[-1].state is JobState.SUCCEEDED


async def test_follow_raises_when_a_job_is_unknown(mesh: MeshClient) -> None:
    with pytest.raises(NotFoundError):
        await follow(mesh, str(uuid4()))


async def test_follow_leaves_no_task_behind_when_it_is_given_up(mesh: MeshClient, broker: MemoryBroker) -> None:
    job = await mesh.submit("load")
    before = asyncio.all_tasks()
    async with aclosing(cast("AsyncGenerator[JobView, None]", mesh.follow([job.job_id]))) as views:
        await anext(views)
        assert {task.get_name() for task in asyncio.all_tasks() - before} >= {"following"}
    left = [task.get_name() for task in asyncio.all_tasks() - before]
    assert [name for name in left if name.startswith(("following", "watch"))] == []
