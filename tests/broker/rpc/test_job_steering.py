"""Cancelling, requeueing, deciding about and explaining jobs, over real gRPC."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from uuid import UUID

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from broker.app import Broker
from broker.dispatch.model import GroupNo
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc.peer import agent_on, failed, key_of, stopped, succeeded
from tests.broker.rpc.seen import Watch
from tests.broker.running import (
    ORGANIZATION,
    PARENT,
    WAIT_S,
    Api,
    api_of,
    echo,
    job_name,
    refused,
    settings_of,
)

WRONG_STATE = grpc.StatusCode.FAILED_PRECONDITION.value[0]
ENVIRONMENT = f"{ORGANIZATION}/environments/default"
ID = bytes(range(16))


@pytest.mark.req("R82")
async def test_cancel_of_a_queued_job_ends_it_and_may_be_repeated(api: Api) -> None:
    (result,) = await api.submit_echo()
    request = pb.CancelJobRequest(name=job_name(result.job_id))
    for _ in range(2):
        answer = await api.jobs.CancelJob(request, timeout=WAIT_S)
        assert answer.job.state == job_pb2.JOB_STATE_CANCELLED


@pytest.mark.req("R82")
async def test_cancel_reaches_the_agent_that_runs_the_job_and_is_over_when_it_says_so(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (result,) = await api.submit_echo()
        (assign,) = await agent.assigned(1)
        await agent.accept(key_of(assign))
        await agent.settled()

        request = pb.CancelJobRequest(name=job_name(result.job_id))
        await api.jobs.CancelJob(request, timeout=WAIT_S)
        told = (await agent.frame_with("cancels")).cancels
        assert [(one.job_key, one.attempt) for one in told] == [key_of(assign)]
        await agent.report(stopped(key_of(assign)))

    assert (await api.job(result.job_id)).state == job_pb2.JOB_STATE_CANCELLED


@pytest.mark.req("R82")
async def test_next_attempt_is_given_the_latest_checkpoint_of_the_one_before(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, dispatch={"backoff_first_s": 0.01, "backoff_max_s": 0.01})
    async with Broker(settings) as broker, api_of(broker) as api, agent_on(broker.mesh_address) as agent:
        await api.submit_echo()
        (first,) = await agent.assigned(1)
        assert first.checkpoint == b""
        key, attempt = key_of(first)
        await agent.accept((key, attempt))
        for row in (b"row 10", b"row 20"):
            progress = agent_pb.Progress(job_key=key, attempt=attempt, fraction=0.5, checkpoint=row)
            await agent.say(agent_pb.AgentFrame(progress=[progress]))
        again = failed((key, attempt))
        again.failure.retryable = True
        await agent.report(again)

        (second,) = await agent.assigned(1)

    assert key_of(second) == (key, attempt + 1)
    assert second.checkpoint == b"row 20"


async def test_cancel_of_a_finished_job_is_refused(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address) as agent:
        (result,) = await api.submit_echo()
        (assign,) = await agent.assigned(1)
        await agent.report(succeeded(key_of(assign)))
    refusal = await refused(api.jobs.CancelJob(pb.CancelJobRequest(name=job_name(result.job_id)), timeout=WAIT_S))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION.value[0], "JOB_FINAL")
    assert "is succeeded" in refusal.text


def requeue(api: Api, job_id: bytes) -> Awaitable[job_pb2.Job]:
    return api.jobs.RequeueJob(pb.RequeueJobRequest(name=job_name(job_id)), timeout=WAIT_S)


def resolve(
    api: Api, job_id: bytes, resolution: pb.HeldResolution.ValueType, comment: str = ""
) -> Awaitable[job_pb2.Job]:
    request = pb.ResolveHeldJobRequest(name=job_name(job_id), resolution=resolution, comment=comment)
    return api.jobs.ResolveHeldJob(request, timeout=WAIT_S)


@pytest.mark.req("R81")
async def test_requeue_makes_a_new_job_with_the_content_and_limits_of_the_failed_one(broker: Broker, api: Api) -> None:
    spec = echo(
        payload=b"\x00payload",
        content_type="text/csv",
        priority=2,
        labels={"zone": "a"},
        fairness_key="tenant-1",
        idempotency_key="order-7",
        metadata={"traceparent": "00-1"},
        schedule_to_start=Duration(seconds=60),
        run_timeout=Duration(seconds=30),
        total_timeout=Duration(seconds=7_200),
    )
    async with agent_on(broker.mesh_address, labels={"zone": "a"}) as agent:
        (result,) = await api.submit(spec, parent=ENVIRONMENT)
        (first,) = await agent.assigned(1)
        await agent.accept(key_of(first))
        await agent.report(failed(key_of(first)))
        before = await api.job(result.job_id)
        assert before.state == job_pb2.JOB_STATE_FAILED

        made = await requeue(api, result.job_id)

        assert made.job_id != before.job_id
        assert made.requeued_from == before.job_id
        (again,) = await agent.assigned(1)
        assert (again.job_key, again.attempt) == (made.job_key, 1)
        for name in ("operation", "payload", "content_type", "metadata", "run_timeout"):
            assert getattr(again, name) == getattr(first, name)
    now = await api.job(UUID(made.job_id).bytes)
    kept = ("group", "environment", "operation", "priority", "labels", "fairness_key", "schedule_to_start")
    for name in (*kept, "run_timeout", "total_timeout"):
        assert getattr(now, name) == getattr(before, name), name
    assert (now.idempotency_key, now.failures, now.HasField("failure")) == ("", 0, False)
    after = await api.job(result.job_id)
    assert after.requeued_as == made.job_id
    after.requeued_as = ""
    assert after == before  # finished is final
    assert [job.requeued_from for job in await api.listed()] == [before.job_id, ""]


async def test_requeue_of_a_cancelled_job_waits_in_the_queue_like_any_other(api: Api) -> None:
    (result,) = await api.submit_echo(delay=Duration(seconds=3_600))
    await api.jobs.CancelJob(pb.CancelJobRequest(name=job_name(result.job_id)), timeout=WAIT_S)
    made = await requeue(api, result.job_id)
    assert made.state == job_pb2.JOB_STATE_QUEUED
    assert not made.HasField("not_before")


async def test_requeue_of_what_has_not_gone_wrong_is_refused(broker: Broker, api: Api) -> None:
    (waiting,) = await api.submit(pb.JobSpec(operation="other"))
    async with agent_on(broker.mesh_address) as agent:
        (done,) = await api.submit_echo()
        (assign,) = await agent.assigned(1)
        await agent.report(succeeded(key_of(assign)))
    for result, state in ((waiting, "queued"), (done, "succeeded")):
        refusal = await refused(requeue(api, result.job_id))
        assert (refusal.code, refusal.reason) == (WRONG_STATE, "JOB_NOT_REQUEUABLE")
        assert f"is {state}; only what is failed, dead or cancelled is requeued" in refusal.text
    assert (await refused(requeue(api, ID))).reason == "JOB_NOT_FOUND"
    assert len(await api.listed()) == 2


async def test_requeue_is_refused_when_the_broker_is_stopping(broker: Broker, api: Api) -> None:
    (result,) = await api.submit_echo()
    await api.jobs.CancelJob(pb.CancelJobRequest(name=job_name(result.job_id)), timeout=WAIT_S)
    broker.jobs.stop_accepting()
    assert (await refused(requeue(api, result.job_id))).reason == "BROKER_STOPPING"


@pytest.mark.req("R81")
async def test_held_job_goes_on_or_ends_as_a_person_decides(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, dispatch={"on_loss": "hold"})
    async with Broker(settings) as broker, api_of(broker) as api:
        results = await api.submit_echo(3)
        async with agent_on(broker.mesh_address) as agent:
            assigned = await agent.assigned(3)
            await agent.accept(*map(key_of, assigned))
            await agent.settled()
        async with agent_on(broker.mesh_address, incarnation=b"another-process-"):
            pass
        again, bad, good = (result.job_id for result in results)
        watch = Watch(api, job_ids=[again, bad, good])
        held: set[str] = set()
        while len(held) < 3:
            held |= {job.job_id for job in (await watch.message()).jobs if job.state == job_pb2.JOB_STATE_HELD}
        watch.call.cancel()

        assert (await resolve(api, again, pb.HELD_RESOLUTION_RETRY)).state == job_pb2.JOB_STATE_QUEUED
        assert (await resolve(api, bad, pb.HELD_RESOLUTION_FAIL, "half done")).state == job_pb2.JOB_STATE_FAILED
        done = await resolve(api, good, pb.HELD_RESOLUTION_SUCCEED, "the target is clean")
        assert (done.state, done.HasField("failure")) == (job_pb2.JOB_STATE_SUCCEEDED, False)
        assert (await api.job(good)).transitions[-1].comment == "the target is clean"

        refusal = await refused(resolve(api, bad, pb.HELD_RESOLUTION_RETRY))
        assert (refusal.code, refusal.reason) == (WRONG_STATE, "JOB_NOT_HELD")
        assert "is failed" in refusal.text
        record = await broker.store.job([GroupNo(1)], bad)
        assert record is not None
        decided = record.transitions[-1]
        assert (decided.from_state, decided.to_state, decided.actor) == ("held", "failed", "operator: half done")
        job = await api.job(bad)
        last = job.transitions[-1]
        assert (last.reason, last.actor, last.comment) == ("resolved", "operator", "half done")
        assert (job.failure.code, job.failure.message) == ("resolved", "half done")
        assert job.transitions[-2].to_state == job_pb2.JOB_STATE_HELD


@pytest.mark.req("R84")
async def test_explain_says_why_a_job_waits_for_each_agent_and_how_a_final_one_ended(broker: Broker, api: Api) -> None:
    async def explained() -> pb.ExplainJobResponse:
        return await api.jobs.ExplainJob(pb.ExplainJobRequest(name=job_name(ID)), timeout=WAIT_S)

    await api.admin.CreateAgent(
        admin_pb.CreateAgentRequest(parent=PARENT, agent_id="a9", agent=admin_pb.Agent()), timeout=WAIT_S
    )
    await api.submit(echo(job_id=ID))
    waiting = await explained()
    assert (waiting.summary, [one.agent for one in waiting.agents]) == ("no agent of the group is active", ["a9"])
    assert [(one.eligible, one.reason) for one in waiting.agents] == [(False, "it has never connected")]
    await api.jobs.CancelJob(pb.CancelJobRequest(name=job_name(ID)), timeout=WAIT_S)
    final = await explained()
    assert (final.summary, final.next_step) == ("cancelled", "nothing; requeue it to run it as a new job")
    refusal = await refused(api.jobs.ExplainJob(pb.ExplainJobRequest(name=job_name(b"\x07" * 16)), timeout=WAIT_S))
    assert refusal.reason == "JOB_NOT_FOUND"
