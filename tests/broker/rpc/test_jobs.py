"""The job service over real gRPC, before a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

from broker.app import Broker
from broker.control.directory import Target
from broker.dispatch.model import GroupNo, JobKey
from broker.errors import StoreBusyError
from broker.rpc.jobs import STREAM_BATCHES_MAX
from broker.rpc.turns import FUTILE
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc.peer import agent_on, failed, key_of, succeeded
from tests.broker.running import (
    ORGANIZATION,
    PARENT,
    WAIT_S,
    Api,
    Refusal,
    api_of,
    echo,
    job_name,
    metric,
    raw_stream,
    refused,
    settings_of,
)

ENVIRONMENT = f"{ORGANIZATION}/environments/default"
ID = bytes(range(16))
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]
INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]


def batch(*specs: pb.JobSpec, parent: str = PARENT) -> pb.SubmitJobsRequest:
    return pb.SubmitJobsRequest(parent=parent, jobs=specs)


async def stored(broker: Broker) -> int:
    """Live jobs in the store."""
    return len(await broker.store.live_jobs(GroupNo(1), JobKey(0), 10_000))


# --- submitting -----------------------------------------------------------------------------------------------------


@pytest.mark.req("R80")
async def test_submitted_job_is_in_the_store_with_all_that_was_said(broker: Broker, api: Api) -> None:
    spec = pb.JobSpec(
        job_id=ID,
        operation="sql.copy",
        payload=b"\x00payload",
        content_type="application/octet-stream",
        priority=1,
        labels={"zone": "a=b", "disk": ""},
        fairness_key="tenant-1",
        idempotency_key="order-7",
        metadata={"traceparent": "00-1"},
        delay=Duration(seconds=3_600),
        schedule_to_start=Duration(seconds=60),
        run_timeout=Duration(seconds=30, nanos=500_000_000),
        total_timeout=Duration(seconds=7_200),
    )
    (result,) = await api.submit(spec, parent=ENVIRONMENT)
    assert (result.job_id, result.duplicate, result.HasField("error")) == (ID, False, False)
    job = await api.job(ID)
    assert job.name == f"{ORGANIZATION}/jobs/00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert (job.job_key, job.group, job.environment) == (result.job_key, PARENT, ENVIRONMENT)
    assert (job.operation, job.state, job.priority) == ("sql.copy", job_pb2.JOB_STATE_SCHEDULED, 1)
    assert dict(job.labels) == {"zone": "a=b", "disk": ""}
    assert (job.fairness_key, job.idempotency_key) == ("tenant-1", "order-7")
    assert job.not_before.ToMicroseconds() - job.accepted_at.ToMicroseconds() == 3_600_000_000
    assert (job.schedule_to_start.seconds, job.total_timeout.seconds) == (60, 7_200)
    assert job.run_timeout.ToMilliseconds() == 30_500
    record = await broker.store.job([GroupNo(1)], ID)
    assert record is not None
    assert record.payload is not None
    assert record.payload.content == b"\x00payload"
    assert record.payload.metadata == (("traceparent", "00-1"),)


async def test_same_job_id_with_the_same_content_is_the_same_job(broker: Broker, api: Api) -> None:
    (first,) = await api.submit(echo(job_id=ID, payload=b"a", labels={"b": "1", "a": "2"}))
    again, twice = await api.submit(*[echo(job_id=ID, payload=b"a", labels={"a": "2", "b": "1"})] * 2)
    assert (again.job_key, again.duplicate) == (twice.job_key, twice.duplicate) == (first.job_key, True)
    assert await stored(broker) == 1


async def test_same_job_id_with_other_content_is_refused_beside_good_ones(broker: Broker, api: Api) -> None:
    await api.submit(echo(job_id=ID, payload=b"a"))
    conflict, good = await api.submit(echo(job_id=ID, payload=b"b"), echo())
    refusal = Refusal(conflict.error)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS.value[0], "IDEMPOTENCY_KEY_REUSED")
    assert not good.HasField("error")
    assert await stored(broker) == 2


async def test_same_business_key_names_the_first_job_and_refuses_other_content(api: Api) -> None:
    (first,) = await api.submit(echo(payload=b"a", idempotency_key="order-1"))
    same, other = await api.submit(
        echo(payload=b"a", idempotency_key="order-1"), echo(payload=b"b", idempotency_key="order-1")
    )
    assert (same.job_id, same.job_key, same.duplicate) == (first.job_id, first.job_key, True)
    assert Refusal(other.error).reason == "IDEMPOTENCY_KEY_REUSED"


@pytest.mark.parametrize(
    ("parent", "code", "reason"),
    [
        ("organizations/default/groups/none", grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        ("organizations/none/groups/default", grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        ("organizations/default/environments/none", grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        ("organizations/default", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_NAME"),
        ("default/default", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_NAME"),
        ("organizations/default/groups/default/", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_NAME"),
        ("organizations//groups/default", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_NAME"),
    ],
)
async def test_submission_to_what_is_no_target_is_refused(
    broker: Broker, api: Api, parent: str, code: grpc.StatusCode, reason: str
) -> None:
    refusal = await refused(api.submit(echo(), parent=parent))
    assert (refusal.code, refusal.reason) == (code.value[0], reason)
    assert await stored(broker) == 0


@pytest.mark.req("R04")
async def test_group_and_environment_need_each_other(api: Api) -> None:
    group = admin_pb.CreateGroupRequest(parent=ORGANIZATION, group_id="lonely", group=admin_pb.Group())
    environment = admin_pb.CreateEnvironmentRequest(parent=ORGANIZATION, environment_id="empty")
    environment.environment.SetInParent()
    await api.admin.CreateGroup(group, timeout=WAIT_S)
    await api.admin.CreateEnvironment(environment, timeout=WAIT_S)
    lonely = await refused(api.submit(echo(), parent=f"{ORGANIZATION}/groups/lonely"))
    empty = await refused(api.submit(echo(), parent=f"{ORGANIZATION}/environments/empty"))
    assert (lonely.reason, empty.reason) == ("GROUP_WITHOUT_ENVIRONMENT", "ENVIRONMENT_WITHOUT_GROUP")
    assert lonely.code == empty.code == grpc.StatusCode.FAILED_PRECONDITION.value[0]
    resource = lonely.detail(error_details_pb2.ResourceInfo)
    assert resource.resource_name == f"{ORGANIZATION}/groups/lonely"

    environment.environment_id = "full"
    environment.environment.groups.append(f"{ORGANIZATION}/groups/lonely")
    await api.admin.CreateEnvironment(environment, timeout=WAIT_S)
    (result,) = await api.submit(echo(), parent=f"{ORGANIZATION}/groups/lonely")
    assert result.job_key


async def test_full_mailbox_refuses_the_batch_with_a_time_to_come_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limits={"mailbox_submissions": 4, "batch_submissions": 4})
    async with Broker(settings) as broker, api_of(broker) as api:
        refusal = await refused(api.submit_echo(5))
        assert (refusal.code, refusal.reason) == (EXHAUSTED, "MAILBOX_FULL")
        assert refusal.kinds == {"ErrorInfo", "QuotaFailure", "RetryInfo"}
        assert refusal.detail(error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() == 1_000
        assert await stored(broker) == 0
        assert await metric(broker, "mesh_mailbox_full_total", queue="submissions") == 1
        assert len(await api.submit_echo(4)) == 4


async def test_stream_of_large_payloads_waits_instead_of_filling_the_mailbox(tmp_path: Path) -> None:
    limits = {"message_bytes_max": 64 << 10, "frame_bytes_max": 32 << 10, "mailbox_bytes_max": 64 << 10}
    limits |= {"batch_bytes_max": 16 << 10, "payload_bytes_max": 20 << 10, "result_bytes_max": 20 << 10}
    async with Broker(settings_of(tmp_path, limits=limits)) as broker, api_of(broker) as api:
        call = api.jobs.SubmitStream()
        answered = asyncio.create_task(answers(call))
        for seq in range(1, 21):
            await call.write(pb.SubmitStreamRequest(batch_seq=seq, batch=batch(*[echo(payload=b"x" * 20_000)] * 3)))
        await call.done_writing()
        assert not [answer for answer in (await answered).values() if answer.HasField("error")]
        assert await stored(broker) == 60


async def test_full_queue_of_a_group_refuses_only_what_does_not_fit(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path, dispatch={"queue_jobs_max": 3})) as broker, api_of(broker) as api:
        results = await api.submit_echo(5)
        assert [result.HasField("error") for result in results] == [False] * 3 + [True] * 2
        refusal = Refusal(results[-1].error)
        assert (refusal.code, refusal.reason) == (EXHAUSTED, "QUEUE_FULL")
        assert "RetryInfo" in refusal.kinds
        assert await stored(broker) == 3


async def test_job_that_a_full_queue_refuses_is_dear_to_its_source(tmp_path: Path, prices: list[int]) -> None:
    async with Broker(settings_of(tmp_path, dispatch={"queue_jobs_max": 3})) as broker, api_of(broker) as api:
        await api.submit_echo(5)
    assert prices == [5, 5 + 2 * FUTILE]


async def test_message_over_four_mebibytes_is_refused_and_nothing_is_stored(broker: Broker, api: Api) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await api.submit_echo(5, payload=b"x" * 900_000)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await stored(broker) == 0
    assert len(await api.submit_echo(4, payload=b"x" * 900_000)) == 4


async def test_payload_over_its_limit_is_refused_beside_good_ones(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limits={"payload_bytes_max": 10})
    async with Broker(settings) as broker, api_of(broker) as api:
        large, good = await api.submit(echo(payload=b"x" * 11), echo(payload=b"x" * 10))
        refusal = Refusal(large.error)
        assert (refusal.code, refusal.reason, refusal.fields) == (INVALID, "PAYLOAD_TOO_LARGE", ["payload"])
        assert not good.HasField("error")
        assert await stored(broker) == 1


@pytest.mark.parametrize("field", ["delay", "schedule_to_start", "run_timeout", "total_timeout"])
async def test_times_that_nothing_can_hold_are_refused_and_harm_nobody(broker: Broker, api: Api, field: str) -> None:
    hostile = (
        Duration(seconds=2**63 - 1),
        Duration(seconds=315_576_000_000),
        Duration(seconds=1, nanos=2**31 - 1),
        Duration(seconds=1, nanos=-1),
    )
    results = await api.submit(*(echo(**{field: duration}) for duration in hostile))
    assert [Refusal(result.error).reason for result in results] == ["TIME_OUT_OF_RANGE"] * 4
    assert Refusal(results[0].error).fields == [field]
    assert len(await api.submit_echo(1, **{field: Duration(nanos=1)})) == 1
    assert await stored(broker) <= 1


async def test_start_that_nothing_can_hold_is_refused(api: Api) -> None:
    hostile = (Timestamp(seconds=2**63 - 1), Timestamp(seconds=253_402_300_799), Timestamp(seconds=1, nanos=-1))
    results = await api.submit(*(echo(start_at=moment) for moment in hostile))
    assert [Refusal(result.error).reason for result in results] == ["TIME_OUT_OF_RANGE"] * 3
    twice, past = await api.submit(
        echo(delay=Duration(seconds=1), start_at=Timestamp(seconds=1)), echo(start_at=Timestamp(seconds=-(2**63)))
    )
    assert Refusal(twice.error).reason == "START_TWICE"
    assert (await api.job(past.job_id)).state == job_pb2.JOB_STATE_QUEUED


async def test_validation_alone_stores_nothing(broker: Broker, api: Api) -> None:
    request = batch(echo(), echo(delay=Duration(seconds=2**40)))
    request.validate_only = True
    good, bad = (await api.jobs.SubmitJobs(request, timeout=WAIT_S)).results
    assert (good.job_key, good.HasField("error")) == (0, False)
    assert bad.HasField("error")
    assert await stored(broker) == 0


async def test_recovered_jobs_keep_their_policy_and_new_ones_get_the_new_one(tmp_path: Path) -> None:
    async def policies_after(failures_max: int) -> list[tuple[int, int]]:
        settings = settings_of(tmp_path, dispatch={"failures_max": failures_max})
        async with Broker(settings) as broker, api_of(broker) as api:
            await api.submit_echo()
            await api.submit_echo()
            jobs = broker.engine.dispatcher(GroupNo(1)).ledger.jobs
            return [(job.policy.no, job.policy.failures_max) for _, job in sorted(jobs.items())]

    assert await policies_after(3) == [(1, 3)] * 2
    assert await policies_after(5) == [(1, 3)] * 2 + [(2, 5)] * 2
    assert await policies_after(3) == [(1, 3)] * 2 + [(2, 5)] * 2 + [(1, 3)] * 2


# --- the stream of batches ------------------------------------------------------------------------------------------


async def answers(
    call: grpc.aio.StreamStreamCall[pb.SubmitStreamRequest, pb.SubmitStreamResponse],
) -> dict[int, pb.SubmitStreamResponse]:
    async with asyncio.timeout(WAIT_S):
        return {answer.batch_seq: answer async for answer in call}


@pytest.mark.req("R80")
async def test_submit_stream_answers_every_batch_also_around_bad_ones(broker: Broker, api: Api) -> None:
    call = api.jobs.SubmitStream()
    bad = {
        20: batch(pb.JobSpec(operation="Not An Operation")),
        21: batch(echo(), parent="organizations/default/groups/none"),
        22: batch(),
    }
    for seq in range(1, 41):
        await call.write(pb.SubmitStreamRequest(batch_seq=seq, batch=bad.get(seq, batch(echo(), echo()))))
    await call.done_writing()
    found = await answers(call)
    assert sorted(found) == list(range(1, 41))
    assert {seq: Refusal(found[seq].error).reason for seq in bad} == {
        20: "INVALID_MESSAGE",
        21: "NOT_FOUND",
        22: "INVALID_MESSAGE",
    }
    assert Refusal(found[20].error).fields == ["batch.jobs[0].operation"]
    good = [found[seq] for seq in found if seq not in bad]
    assert all(len(answer.results) == 2 and not answer.HasField("error") for answer in good)
    assert await stored(broker) == 2 * 37


async def test_submit_stream_answers_what_it_has_taken_before_undecodable_bytes(broker: Broker, api: Api) -> None:
    call = raw_stream(api.channel, "/mesh.v1.JobService/SubmitStream")
    await call.write(pb.SubmitStreamRequest(batch_seq=1, batch=batch(echo())).SerializeToString())
    await call.write(b"\xff\xff")
    assert pb.SubmitStreamResponse.FromString(await call.read()).batch_seq == 1
    refusal = await refused(call.read())
    assert (refusal.code, refusal.reason) == (INVALID, "MALFORMED_MESSAGE")
    assert await stored(broker) == 1


async def test_submit_stream_answers_more_batches_than_it_takes_at_once(api: Api) -> None:
    call = api.jobs.SubmitStream()
    answered = asyncio.create_task(answers(call))
    for seq in range(1, 4 * STREAM_BATCHES_MAX + 1):
        await call.write(pb.SubmitStreamRequest(batch_seq=seq, batch=batch(*[echo()] * 100)))
    await call.done_writing()
    found = await answered
    assert len(found) == 4 * STREAM_BATCHES_MAX
    assert not [answer for answer in found.values() if answer.HasField("error")]


class Batches:
    """Endless batches, as the service reads them; says when it has read so many."""

    def __init__(self, number: int) -> None:
        self.read = 0
        self.number = number
        self.reached = asyncio.Event()

    def __aiter__(self) -> Batches:
        return self

    async def __anext__(self) -> pb.SubmitStreamRequest:
        self.read += 1
        if self.read >= self.number:
            self.reached.set()
        return pb.SubmitStreamRequest(batch_seq=self.read, batch=batch(echo()))


def stream_of(broker: Broker, *requests: pb.SubmitStreamRequest) -> Any:
    """One stream that the service itself reads: all of it is there at once, whatever gRPC's buffers do."""

    async def said() -> AsyncIterator[pb.SubmitStreamRequest]:
        for request in requests:
            yield request

    context: Any = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1")
    return broker.jobs.SubmitStream(said(), context)


def numbered(seq: int, jobs: int, parent: str = PARENT) -> pb.SubmitStreamRequest:
    return pb.SubmitStreamRequest(batch_seq=seq, batch=batch(*[echo()] * jobs, parent=parent))


async def test_submit_stream_accepts_a_short_batch_after_the_long_ones_before_it(broker: Broker) -> None:
    sizes = {1: 1024, 2: 1024, 3: 1024, 4: 100, 5: 1}
    async with asyncio.timeout(WAIT_S):
        found = {one.batch_seq: one async for one in stream_of(broker, *(numbered(*pair) for pair in sizes.items()))}
    keys = [result.job_key for _, answer in sorted(found.items()) for result in answer.results]
    assert len(keys) == sum(sizes.values())
    assert keys == sorted(keys)


async def test_batch_that_is_refused_holds_up_none_of_its_stream(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = broker.jobs._events_of

    def events_of(specs: Sequence[pb.JobSpec], target: Target) -> Any:
        if len(specs) == 7:
            raise StoreBusyError("away for a moment")
        return decode(specs, target)

    monkeypatch.setattr(broker.jobs, "_events_of", events_of)
    requests = numbered(1, 1024), numbered(2, 7), numbered(3, 1, "organizations/default/groups/none"), numbered(4, 9)
    async with asyncio.timeout(WAIT_S):
        found = {one.batch_seq: one async for one in stream_of(broker, *requests)}
    assert {seq: len(answer.results) for seq, answer in found.items()} == {1: 1024, 2: 0, 3: 0, 4: 9}
    assert [seq for seq, answer in sorted(found.items()) if answer.HasField("error")] == [2, 3]


async def test_submit_stream_that_is_dropped_between_two_slices_offers_nothing_and_holds_up_no_other(
    broker: Broker,
) -> None:
    async with asyncio.timeout(WAIT_S):
        for _ in range(2):
            dropped = stream_of(broker, *(numbered(seq, 1024) for seq in range(1, 5)))
            good = [one async for one in stream_of(broker, numbered(1, 1024), numbered(2, 1))]
            assert sorted(len(one.results) for one in good) == [1, 1024]
            reading = asyncio.create_task(anext(dropped))
            for _ in range(5):  # a slice of the first batch in each
                await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
            await dropped.aclose()
    assert await stored(broker) == 2 * 1025
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "submit-stream"]


async def test_submit_stream_is_not_read_on_while_its_answers_are_not(broker: Broker) -> None:
    batches = Batches(STREAM_BATCHES_MAX)
    # The service itself: gRPC's own buffers would hide from the test what is read.
    context: Any = SimpleNamespace(peer=lambda: "ipv4:127.0.0.1:1")
    stream: Any = broker.jobs.SubmitStream(batches, context)
    async with asyncio.timeout(WAIT_S):
        await anext(stream)
        await batches.reached.wait()
        for _ in range(5):
            await anext(stream)
        for _ in range(100):  # whatever could go on has gone on then
            await asyncio.sleep(0)
        assert batches.read == STREAM_BATCHES_MAX + 5
    await stream.aclose()


async def test_submit_stream_waits_instead_of_being_refused_when_the_mailbox_is_small(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limits={"mailbox_submissions": 32, "batch_submissions": 8})
    async with Broker(settings) as broker, api_of(broker) as api:
        call = api.jobs.SubmitStream()
        answered = asyncio.create_task(answers(call))
        for seq in range(1, 31):
            await call.write(pb.SubmitStreamRequest(batch_seq=seq, batch=batch(*[echo()] * 10)))
        await call.write(pb.SubmitStreamRequest(batch_seq=31, batch=batch(*[echo()] * 33)))
        await call.done_writing()
        found = await answered
        assert [seq for seq, answer in sorted(found.items()) if answer.HasField("error")] == [31]
        assert Refusal(found[31].error).reason == "MAILBOX_FULL"
        assert await stored(broker) == 300


async def test_submit_stream_that_is_dropped_leaves_no_task_behind(broker: Broker, api: Api) -> None:
    for _ in range(3):
        call = api.jobs.SubmitStream()
        await call.write(pb.SubmitStreamRequest(batch_seq=1, batch=batch(echo())))
        assert isinstance(await call.read(), pb.SubmitStreamResponse)
        call.cancel()
    readers = {task for task in asyncio.all_tasks() if task.get_name().startswith(("submit-stream", "Handle"))}
    if readers:
        _, pending = await asyncio.wait(readers, timeout=WAIT_S)
        assert not pending


# --- reading --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "code", "reason"),
    [
        (job_name(ID), grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND"),
        (job_name(ID).replace("default", "none"), grpc.StatusCode.NOT_FOUND, "NOT_FOUND"),
        (job_name(ID).upper(), grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_NAME"),
        (f"{ORGANIZATION}/jobs/7", grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED_NAME"),
    ],
)
async def test_job_that_is_not_there_is_refused(api: Api, name: str, code: grpc.StatusCode, reason: str) -> None:
    for call in (api.jobs.GetJob(pb.GetJobRequest(name=name)), api.jobs.CancelJob(pb.CancelJobRequest(name=name))):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (code.value[0], reason)


async def test_job_of_another_organization_is_answered_like_one_that_does_not_exist(api: Api) -> None:
    request = admin_pb.CreateOrganizationRequest(organization_id="other", organization=admin_pb.Organization())
    await api.admin.CreateOrganization(request, timeout=WAIT_S)
    (result,) = await api.submit_echo()
    foreign = job_name(result.job_id).replace("default", "other")
    refusal = await refused(api.jobs.GetJob(pb.GetJobRequest(name=foreign)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND.value[0], "JOB_NOT_FOUND")


@pytest.mark.req("R83")
async def test_full_view_tells_the_whole_life_of_a_job_and_the_basic_one_does_not(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, dispatch={"backoff_first_s": 0.01, "backoff_max_s": 0.01})
    async with Broker(settings) as broker, api_of(broker) as api:
        (result,) = await api.submit_echo()
        async with agent_on(broker.mesh_address) as agent:
            (first,) = await agent.assigned(1)
            await agent.accept(key_of(first))
            again = failed(key_of(first))
            again.failure.retryable = True
            await agent.say(agent_pb.AgentFrame(outcomes=[again]))
            (second,) = await agent.assigned(1)
            await agent.accept(key_of(second))
            await agent.report(succeeded(key_of(second), b"3 rows"))
        job = await api.job(result.job_id)
        request = pb.GetJobRequest(name=job.name, view=pb.JOB_VIEW_BASIC)
        basic = await api.jobs.GetJob(request, timeout=WAIT_S)

    assert [(one.attempt, one.agent, one.ending, one.code) for one in job.attempts] == [
        (1, "a1", "failed", "csv.bad_row"),
        (2, "a1", "succeeded", ""),
    ]
    assert all(one.assigned_at.ToNanoseconds() <= one.started_at.ToNanoseconds() for one in job.attempts)
    names = job_pb2.JobState.Name
    assert [(names(one.to_state).removeprefix("JOB_STATE_"), one.reason, one.attempt) for one in job.transitions] == [
        ("QUEUED", "accepted", 0),
        ("ASSIGNED", "placed", 1),
        ("RUNNING", "started", 1),
        ("SCHEDULED", "failed", 1),
        ("ASSIGNED", "placed", 2),
        ("RUNNING", "started", 2),
        ("SUCCEEDED", "succeeded", 2),
    ]
    assert job.result.content == b"3 rows"
    assert (basic.state, basic.attempt) == (job.state, 2)
    assert [*basic.attempts, *basic.transitions, basic.result.content] == [b""]
