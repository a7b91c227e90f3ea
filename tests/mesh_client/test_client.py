from __future__ import annotations

import asyncio
from typing import Literal
from uuid import uuid4

import pytest
from google.rpc import code_pb2

from mesh_client import (
    ConflictError,
    JobState,
    MalformedError,
    MeshClient,
    MeshClientError,
    MeshTimeoutError,
    NotFoundError,
    UnavailableError,
    WrongStateError,
)
from protos.mesh.v1 import job_pb2
from tests.mesh_client.broker import WAIT_S, MemoryBroker, away, status


async def test_client_gives_every_job_a_new_id_ordered_by_time(mesh: MeshClient, broker: MemoryBroker) -> None:
    first, second = await mesh.submit("done"), await mesh.submit("done")
    assert first.job_id < second.job_id
    assert [job.job_id for job in broker.jobs.values()] == [first.job_id, second.job_id]


async def test_client_sends_to_the_environment_when_it_has_one(broker: MemoryBroker) -> None:
    async with MeshClient(broker.address, environment="prod") as mesh:
        submitted = await mesh.submit("done")
        view = await mesh.get(submitted.job_id)
    assert (view.environment, view.group) == ("prod", "loaders")


def test_client_refuses_two_targets() -> None:
    with pytest.raises(MalformedError, match="not to both"):
        MeshClient(group="a", environment="b")


async def test_client_submits_the_same_job_again_when_the_broker_was_away(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    broker.fail_next("SubmitJobs", away(), away())
    submitted = await mesh.submit("done")
    assert broker.calls["SubmitJobs"] == 3
    assert list(broker.jobs) == [bytes.fromhex(submitted.job_id.replace("-", ""))]


async def test_client_makes_no_second_job_when_the_answer_was_lost(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("SubmitJobs answer", away())
    submitted = await mesh.submit("done")
    assert len(broker.jobs) == 1
    assert not submitted.duplicate, "its own repeat is no news to the submitter"


async def test_client_says_duplicate_when_the_job_id_or_the_business_key_was_there_before(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    mine = str(uuid4())
    first = await mesh.submit("done", job_id=mine, idempotency_key="order-7")
    same_id = await mesh.submit("done", job_id=mine)
    same_key = await mesh.submit("done", idempotency_key="order-7")
    assert [first.duplicate, same_id.duplicate, same_key.duplicate] == [False, True, True]
    assert {first.job_id, same_id.job_id, same_key.job_id} == {mine}
    assert len(broker.jobs) == 1


async def test_client_gives_up_when_the_broker_stays_away(broker: MemoryBroker) -> None:
    await broker.stop()
    async with MeshClient(broker.address, retry_for_s=0.3) as mesh:
        with pytest.raises(UnavailableError, match=f"{broker.address}.*mesh serve --dev") as caught:
            await mesh.submit("done")
    assert caught.value.exit_code == 5


async def test_client_reaches_a_broker_that_was_restarted(mesh: MeshClient, broker: MemoryBroker) -> None:
    before = await mesh.submit("done")
    await broker.restart()
    after = await mesh.submit("done")
    assert [job.job_id for job in broker.jobs.values()] == [before.job_id, after.job_id]


async def test_client_does_not_repeat_what_is_wrong(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("SubmitJobs", status(code_pb2.INVALID_ARGUMENT, "no", "MALFORMED"))
    with pytest.raises(MalformedError):
        await mesh.submit("done")
    assert broker.calls["SubmitJobs"] == 1


async def test_client_sends_once_what_must_not_happen_twice(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("DrainAgent", away())
    with pytest.raises(UnavailableError):
        await mesh.drain_agent("loaders", "a1")
    assert broker.calls["DrainAgent"] == 1


async def test_client_asks_again_for_what_it_makes_and_it_is_made_once(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("CreateGroup answer", away())
    assert (await mesh.create_group("new")).group == "new"
    assert broker.calls["CreateGroup"] == 2
    with pytest.raises(ConflictError):
        await mesh.create_group("new")


async def test_client_waits_for_a_broker_before_it_sends_what_must_not_happen_twice(broker: MemoryBroker) -> None:
    await broker.stop()
    async with MeshClient(broker.address, retry_for_s=WAIT_S) as mesh:
        creating = asyncio.create_task(mesh.create_group("new"))
        await broker.start()
        assert (await creating).group == "new"


async def test_get_raises_when_there_is_no_such_job(mesh: MeshClient) -> None:
    with pytest.raises(NotFoundError) as caught:
        await mesh.get(str(uuid4()))
    assert caught.value.exit_code == 3
    assert caught.value.details["resource"].startswith("organizations/default/jobs/")


async def test_get_raises_when_the_id_is_none(mesh: MeshClient, broker: MemoryBroker) -> None:
    with pytest.raises(MalformedError, match="'17' is not a job id"):
        await mesh.get("17")
    assert not broker.calls


async def test_list_follows_the_pages_and_stops_at_the_limit(mesh: MeshClient, broker: MemoryBroker) -> None:
    submitted = [await mesh.submit("done") for _ in range(3)]
    newest_first = [one.job_id for one in reversed(submitted)]
    assert [view.job_id async for view in mesh.list(limit=2)] == newest_first[:2]
    assert [view.job_id async for view in mesh.list()] == newest_first


async def test_list_joins_its_conditions_and_quotes_their_values(mesh: MeshClient, broker: MemoryBroker) -> None:
    wanted = await mesh.submit("load")
    await mesh.submit("done")
    found = [view async for view in mesh.list(state="queued", operation="load")]
    assert [view.job_id for view in found] == [wanted.job_id]
    assert broker.calls['ListJobs state = "queued" AND operation = "load"'] == 1
    odd = [view async for view in mesh.list(agent='a" AND state = "queued')]
    assert odd == []
    assert broker.calls[r'ListJobs agent = "a\" AND state = \"queued"'] == 1


async def test_cancel_says_how_the_job_stands(mesh: MeshClient, broker: MemoryBroker) -> None:
    queued, running = await mesh.submit("load"), await mesh.submit("load")
    await broker.move(running.job_id, job_pb2.JOB_STATE_RUNNING)
    assert (await mesh.cancel(queued.job_id)).state is JobState.CANCELLED
    stopping = await mesh.cancel(running.job_id)
    assert (stopping.state, stopping.cancel_requested) == (JobState.RUNNING, True)


async def test_cancel_raises_when_the_job_has_ended(mesh: MeshClient) -> None:
    ended = await mesh.submit("done")
    with pytest.raises(WrongStateError) as caught:
        await mesh.cancel(ended.job_id)
    assert (caught.value.reason, caught.value.exit_code) == ("JOB_FINAL", 6)


async def test_wait_gives_the_jobs_in_the_order_asked(mesh: MeshClient, broker: MemoryBroker) -> None:
    first, second = await mesh.submit("load"), await mesh.submit("load")
    waiting = asyncio.create_task(mesh.wait([second.job_id, first.job_id], WAIT_S))
    await broker.watching.wait()
    await broker.move(first.job_id, job_pb2.JOB_STATE_SUCCEEDED, result=job_pb2.Result(content=b"1"))
    await broker.move(second.job_id, job_pb2.JOB_STATE_FAILED, failure=job_pb2.Failure(code="csv.bad_row"))
    views = await waiting
    assert [view.job_id for view in views] == [second.job_id, first.job_id]
    assert views[0].failure is not None
    assert views[0].failure.code == "csv.bad_row"
    assert views[1].result is not None
    assert views[1].result.content == b"1"


async def test_wait_returns_at_once_when_there_is_nothing_to_wait_for(mesh: MeshClient, broker: MemoryBroker) -> None:
    assert await mesh.wait([]) == []
    assert not broker.calls


async def test_wait_names_a_late_job_when_the_time_is_over(mesh: MeshClient) -> None:
    late, done = await mesh.submit("load"), await mesh.submit("done")
    with pytest.raises(MeshTimeoutError, match=r"1 of 2 jobs are not final after 0\.3 s") as caught:
        await mesh.wait([done.job_id, late.job_id], 0.3)
    assert caught.value.details == {"pending": late.job_id}


async def test_closed_client_says_so(broker: MemoryBroker) -> None:
    mesh = MeshClient(broker.address)
    await mesh.close()
    await mesh.close()
    with pytest.raises(RuntimeError, match="closed"):
        await mesh.get(str(uuid4()))


async def test_failed_job_is_requeued_as_a_new_one(mesh: MeshClient, broker: MemoryBroker) -> None:
    submitted = await mesh.submit("load", b"rows", idempotency_key="order-7")
    with pytest.raises(WrongStateError, match="not failed, dead or cancelled"):
        await mesh.requeue(submitted.job_id)
    await broker.move(submitted.job_id, job_pb2.JOB_STATE_DEAD)
    view = await mesh.requeue(submitted.job_id)
    assert (view.requeued_from, view.state, view.idempotency_key) == (submitted.job_id, JobState.QUEUED, "")
    assert view.job_id != submitted.job_id


@pytest.mark.parametrize(("resolution", "state"), [("retry", "queued"), ("fail", "failed"), ("succeed", "succeeded")])
async def test_held_job_is_resolved_as_decided(
    mesh: MeshClient, broker: MemoryBroker, resolution: Literal["retry", "fail", "succeed"], state: str
) -> None:
    submitted = await mesh.submit("load")
    with pytest.raises(WrongStateError):
        await mesh.resolve_held(submitted.job_id, resolution)
    await broker.move(submitted.job_id, job_pb2.JOB_STATE_HELD)
    assert (await mesh.resolve_held(submitted.job_id, resolution, "I looked")).state == state
    assert broker.calls["ResolveHeldJob I looked"] == 1


async def test_call_that_a_broker_does_not_serve_says_so(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("ExplainJob", status(code_pb2.UNIMPLEMENTED, "not served by this version", "NOT_BUILT"))
    with pytest.raises(MeshClientError) as caught:
        await mesh.explain(str(uuid4()))
    assert caught.value.exit_code == 1
