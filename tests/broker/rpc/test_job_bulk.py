"""Cancelling and requeuing many jobs, slice by slice, over real gRPC before a real store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import grpc
import pytest

from broker.app import Broker
from broker.rpc import job_bulk
from broker.rpc.job_bulk import repeated_id
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc.peer import agent_on, failed, key_of
from tests.broker.running import (
    ORGANIZATION,
    PARENT,
    WAIT_S,
    Api,
    Refusal,
    api_of,
    echo,
    job_name,
    refused,
    settings_of,
)

INVALID = grpc.StatusCode.INVALID_ARGUMENT.value[0]


@pytest.fixture(autouse=True)
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Slices of three jobs."""
    monkeypatch.setattr(job_bulk, "SLICE_JOBS", 3)


async def cancel(api: Api, query: str = "", token: str = "", *, validate_only: bool = False) -> pb.CancelJobsResponse:
    request = pb.CancelJobsRequest(parent=ORGANIZATION, filter=query, page_token=token, validate_only=validate_only)
    return await api.jobs.CancelJobs(request, timeout=WAIT_S)


async def requeue(api: Api, query: str = "", token: str = "", *, validate_only: bool = False) -> pb.RequeueJobsResponse:
    request = pb.RequeueJobsRequest(parent=ORGANIZATION, filter=query, page_token=token, validate_only=validate_only)
    return await api.jobs.RequeueJobs(request, timeout=WAIT_S)


async def cancelled(api: Api, query: str = "") -> AsyncIterator[pb.CancelJobsResponse]:
    """All slices."""
    token = ""
    while True:
        response = await cancel(api, query, token)
        yield response
        if not (token := response.next_page_token):
            return


async def requeued(api: Api, query: str = "") -> AsyncIterator[pb.RequeueJobsResponse]:
    """All slices."""
    token = ""
    while True:
        response = await requeue(api, query, token)
        yield response
        if not (token := response.next_page_token):
            return


async def fail(broker: Broker, number: int) -> None:
    """Have an agent fail this many jobs for good."""
    async with agent_on(broker.mesh_address, "failing", slots=number) as agent:
        assigned = await agent.assigned(number)
        await agent.say(agent_pb.AgentFrame(outcomes=[failed(key_of(one)) for one in assigned]))
        done = 0
        while done < number:
            done += len((await agent.frame_with("outcomes_accepted")).outcomes_accepted.job_keys)


async def test_cancel_of_many_takes_all_that_the_filter_chooses_and_no_others(api: Api) -> None:
    await api.submit(*[echo()] * 7, *[pb.JobSpec(operation="other.one")] * 2)
    counted = await cancel(api, "operation = echo", validate_only=True)
    assert (counted.matched, counted.cancelled, counted.next_page_token) == (7, 0, "")
    assert len(await api.listed(filter="state = queued")) == 9

    slices = [(one.matched, one.cancelled) async for one in cancelled(api, "operation = echo")]

    assert slices == [(3, 3), (3, 3), (1, 1)]
    assert [job.operation for job in await api.listed(filter="state = queued")] == ["other.one"] * 2
    assert (await cancel(api, "operation = echo")).matched == 0


async def test_cancel_of_many_leaves_alone_what_came_after_its_first_slice(api: Api) -> None:
    await api.submit_echo(4)
    first = await cancel(api)
    (late,) = await api.submit_echo()
    again = await cancel(api, token=first.next_page_token)
    assert (again.matched, again.next_page_token) == (1, "")
    assert [job.job_key for job in await api.listed(filter="state = queued")] == [late.job_key]


async def test_cancel_of_many_says_which_are_still_running(broker: Broker, api: Api) -> None:
    async with agent_on(broker.mesh_address, slots=1) as agent:
        await api.submit_echo(2)
        (running,) = await agent.assigned(1)
        response = await cancel(api)
        assert (response.matched, response.cancelled, response.stopping) == (2, 1, 1)
        told = await agent.frame_with("cancels")
        assert [one.job_key for one in told.cancels] == [running.job_key]


async def test_cancel_whose_answer_was_lost_may_be_asked_again(api: Api) -> None:
    await api.submit_echo(5)
    first = await cancel(api)
    second = await cancel(api, token=first.next_page_token)
    again = await cancel(api, token=first.next_page_token)
    assert (second.cancelled, again.matched, again.next_page_token) == (2, 0, "")


async def test_requeue_of_many_repeats_each_job_once_however_often_it_is_asked(broker: Broker, api: Api) -> None:
    results = await api.submit(
        *(echo(payload=b"%d" % number, idempotency_key=f"order-{number}") for number in range(4))
    )
    await fail(broker, 4)
    assert (await requeue(api, "state = failed", validate_only=True)).matched == 4
    assert (await requeue(api)).matched == 0  # none is dead

    first = await requeue(api, "state = failed")
    lost = await requeue(api, "state = failed")
    rest = await requeue(api, "state = failed", first.next_page_token)

    assert (first.matched, first.requeued, first.passed_over, bool(first.next_page_token)) == (3, 3, 0, True)
    assert (lost.matched, lost.requeued, lost.passed_over) == (3, 0, 3)
    assert (rest.matched, rest.requeued, rest.next_page_token) == (1, 1, "")
    jobs = {job.requeued_from: job for job in await api.listed(filter="state = queued", order_by="accepted_at")}
    old = [str(UUID(bytes=result.job_id)) for result in results]
    assert list(jobs) == old
    async with agent_on(broker.mesh_address) as agent:
        assert [one.payload for one in await agent.assigned(4)] == [b"0", b"1", b"2", b"3"]


@pytest.mark.req("R81")
async def test_dead_letters_are_listed_and_requeued_unless_another_state_is_named(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path, dispatch={"failures_max": 1})) as broker, api_of(broker) as api:
        (result,) = await api.submit_echo()
        async with agent_on(broker.mesh_address) as agent:
            (assign,) = await agent.assigned(1)
            outcome = failed(key_of(assign))
            outcome.failure.retryable = True
            await agent.report(outcome)
        (dead,) = await api.listed(filter="state = dead")
        assert (UUID(dead.job_id).bytes, dead.failure.code) == (result.job_id, "csv.bad_row")

        assert (await requeue(api)).requeued == 1

        (again,) = await api.listed(filter="state = queued")
        assert again.requeued_from == dead.job_id
        assert (await api.job(result.job_id)).requeued_as == again.job_id


async def test_requeue_of_many_passes_over_what_a_person_has_requeued(broker: Broker, api: Api) -> None:
    results = await api.submit_echo(2)
    await fail(broker, 2)
    name = f"{ORGANIZATION}/jobs/{UUID(bytes=results[0].job_id)}"
    await api.jobs.RequeueJob(pb.RequeueJobRequest(name=name), timeout=WAIT_S)

    response = await requeue(api, "state = failed")

    assert (response.matched, response.requeued, response.passed_over) == (2, 1, 1)


async def test_two_who_requeue_the_same_jobs_at_once_make_one_of_each(
    broker: Broker, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    (result,) = await api.submit_echo()
    await fail(broker, 1)
    # As if the other one had looked just before this one's job was there.
    (mine,) = await api.submit(echo(job_id=repeated_id(result.job_id)))
    monkeypatch.setattr(broker.store, "repeated", _none)

    response = await requeue(api, "state = failed")

    assert (response.requeued, response.passed_over) == (0, 1)
    assert [job.job_key for job in await api.listed(filter="state = queued")] == [mine.job_key]


async def _none(_keys: object) -> set[object]:
    return set()


async def test_requeue_of_many_carries_few_large_payloads_at_once(
    broker: Broker, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_bulk, "SLICE_BYTES", 100)
    await api.submit(echo(payload=b"a" * 90), echo(payload=b"b" * 20), echo(payload=b"c" * 200), echo(payload=b"d"))
    await fail(broker, 4)
    slices = [one.requeued async for one in requeued(api, "state = failed")]
    assert slices == [1, 1, 1, 1]


async def test_requeue_that_does_not_fit_says_which_job_and_why(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, dispatch={"queue_jobs_max": 2})
    async with Broker(settings) as broker, api_of(broker) as api:
        results = await api.submit_echo(2)
        await fail(broker, 2)
        await api.submit_echo()
        response = await requeue(api, "state = failed")
        assert (response.matched, response.requeued) == (2, 1)
        (one,) = response.refused
        assert one.job_id == str(UUID(bytes=results[1].job_id))
        assert Refusal(one.error).reason == "QUEUE_FULL"
        await cancel(api)
        response = await requeue(api, "state = failed")  # the same command again finishes the work
        assert (response.requeued, response.passed_over) == (1, 1)


async def test_requeued_job_that_fails_again_at_once_is_not_met_again(broker: Broker, api: Api) -> None:
    await api.submit_echo(4)
    await fail(broker, 4)
    first = await requeue(api, "state = failed")
    await fail(broker, 3)

    second = await requeue(api, "state = failed", first.next_page_token)

    assert (second.matched, second.requeued, second.next_page_token) == (1, 1, "")


@pytest.mark.parametrize(
    ("query", "words"),
    [("state = running", "must be one of dead, failed, cancelled"), ("state = eaten", "no state"), ("x", "position")],
)
async def test_requeue_of_what_cannot_be_is_refused(api: Api, query: str, words: str) -> None:
    refusal = await refused(requeue(api, query))
    assert (refusal.code, refusal.reason) == (INVALID, "MALFORMED_FILTER")
    assert words in refusal.text


async def test_cancel_of_final_jobs_is_refused(api: Api) -> None:
    refusal = await refused(cancel(api, "state = dead"))
    assert (refusal.code, refusal.reason) == (INVALID, "MALFORMED_FILTER")


async def test_token_of_a_count_or_of_another_call_changes_nothing(api: Api) -> None:
    await api.submit_echo(4)
    token = (await cancel(api)).next_page_token
    for call in (
        cancel(api, token=token, validate_only=True),
        requeue(api, token=token),
        cancel(api, "state = held", token),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (INVALID, "MALFORMED_PAGE_TOKEN")
    assert len(await api.listed(filter="state = queued")) == 1


async def test_requeue_is_refused_when_the_broker_is_stopping_but_counting_is_not(broker: Broker, api: Api) -> None:
    broker.jobs.stop_accepting()
    assert (await refused(requeue(api))).reason == "BROKER_STOPPING"
    assert (await requeue(api, validate_only=True)).matched == 0


def test_id_of_a_repetition_follows_from_the_id_of_the_job() -> None:
    one, other = bytes(16), bytes(range(16))
    assert repeated_id(one) == repeated_id(one) != repeated_id(other)
    assert (UUID(bytes=repeated_id(one)).version, UUID(bytes=repeated_id(one)).variant) == (8, "specified in RFC 4122")


async def test_jobs_of_a_removed_group_are_told_to_be_that_also_by_the_next_broker(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    async with Broker(settings) as broker, api_of(broker) as api:
        await api.submit_echo(2)
        await fail(broker, 2)
        (cancelled_one,) = await api.submit_echo()
        await api.jobs.CancelJob(pb.CancelJobRequest(name=job_name(cancelled_one.job_id)), timeout=WAIT_S)
        await api.admin.DeleteGroup(admin_pb.DeleteGroupRequest(name=PARENT, force=True), timeout=WAIT_S)
        await refused_for_good(api)
    async with Broker(settings) as broker, api_of(broker) as api:
        await refused_for_good(api)
        name = job_name(cancelled_one.job_id)
        again = await api.jobs.CancelJob(pb.CancelJobRequest(name=name), timeout=WAIT_S)
        assert again.job.state == job_pb2.JOB_STATE_CANCELLED
        said = await api.jobs.ExplainJob(pb.ExplainJobRequest(name=name), timeout=WAIT_S)
        assert "cancelled" in said.summary
        refusal = await refused(api.jobs.RequeueJob(pb.RequeueJobRequest(name=name), timeout=WAIT_S))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND.value[0], "GROUP_REMOVED")


async def refused_for_good(api: Api) -> None:
    response = await requeue(api, "state = failed")
    assert (response.requeued, [Refusal(one.error).reason for one in response.refused]) == (0, ["GROUP_REMOVED"] * 2)
