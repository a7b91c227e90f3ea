"""Following jobs over real gRPC."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import grpc
import grpc.aio
import pytest

from broker.app import Broker
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.rpc.peer import agent_on, key_of, succeeded
from tests.broker.rpc.seen import Watch
from tests.broker.running import (
    ORGANIZATION,
    WAIT_S,
    Api,
    api_of,
    echo,
    job_name,
    refused,
    settings_of,
)

ENVIRONMENT = f"{ORGANIZATION}/environments/default"
ID = bytes(range(16))
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]


async def test_watch_tells_each_change_after_its_commit(broker: Broker, api: Api) -> None:
    watch = Watch(api)
    await watch.begun()
    (result,) = await api.submit_echo()
    told = (await watch.message()).jobs
    assert [(job.job_key, job.state) for job in told] == [(result.job_key, job_pb2.JOB_STATE_QUEUED)]
    async with agent_on(broker.mesh_address) as agent:
        (assign,) = await agent.assigned(1)
        assert (await watch.message()).jobs[0].state == job_pb2.JOB_STATE_ASSIGNED
        await agent.report(succeeded(key_of(assign)))
        message = await watch.message()
        assert (message.jobs[0].state, message.gap) == (job_pb2.JOB_STATE_SUCCEEDED, False)
    watch.call.cancel()


async def test_watch_of_some_jobs_begins_with_their_states_and_tells_of_no_others(broker: Broker, api: Api) -> None:
    (known,) = await api.submit_echo()
    watch = Watch(api, job_ids=[known.job_id, ID])
    first = await watch.message()
    assert [job.job_key for job in first.jobs] == [known.job_key]
    await api.submit(echo())
    (late,) = await api.submit(echo(job_id=ID))
    assert [job.job_key for job in (await watch.message()).jobs] == [late.job_key]
    await api.jobs.CancelJob(pb.CancelJobRequest(name=job_name(ID)), timeout=WAIT_S)
    (told,) = (await watch.message()).jobs
    assert (told.job_key, told.state) == (late.job_key, job_pb2.JOB_STATE_CANCELLED)
    watch.call.cancel()


async def test_watch_too_many_is_refused_and_one_that_ends_makes_room(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limits={"watchers_max": 1})
    async with Broker(settings) as broker, api_of(broker) as api:
        first = Watch(api, job_ids=[ID])
        await first.message()
        refusal = await refused(Watch(api).call.read())
        assert (refusal.code, refusal.reason) == (EXHAUSTED, "WATCHERS_FULL")
        assert "RetryInfo" in refusal.kinds
        first.call.cancel()
        async with asyncio.timeout(WAIT_S):
            while True:  # the end of the call reaches the broker in its own time
                again = Watch(api, job_ids=[ID])
                with suppress(grpc.aio.AioRpcError):
                    await again.message()
                    break
        again.call.cancel()


async def test_watch_of_unknown_jobs_says_so_at_once(api: Api) -> None:
    watch = Watch(api, job_ids=[ID])
    assert list((await watch.message()).jobs) == []
    watch.call.cancel()


async def test_watch_goes_on_from_its_resume_token(api: Api) -> None:
    watch = Watch(api)
    await watch.begun()
    await api.submit_echo()
    token = (await watch.message()).resume_token
    watch.call.cancel()
    (missed,) = await api.submit_echo()
    again = Watch(api, resume_token=token)
    message = await again.message()
    assert ([job.job_key for job in message.jobs], message.gap) == ([missed.job_key], False)
    again.call.cancel()


async def test_watch_from_a_token_of_an_earlier_broker_says_that_there_is_a_gap(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path)) as broker, api_of(broker) as api:
        watch = Watch(api)
        await watch.begun()
        await api.submit_echo()
        token = (await watch.message()).resume_token
        await api.submit_echo()
        watch.call.cancel()
    async with Broker(settings_of(tmp_path)) as broker, api_of(broker) as api:
        watch = Watch(api, resume_token=token)
        assert (await watch.message()).gap
        watch.call.cancel()


async def test_slow_watcher_is_told_of_the_gap_and_of_the_newest_changes(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, limits={"watch_queue_max": 2})
    async with Broker(settings) as broker, api_of(broker) as api:
        watch = Watch(api)
        await watch.begun()
        results = await api.submit_echo(5)
        message = await watch.message()
        assert message.gap
        assert [job.job_key for job in message.jobs] == [result.job_key for result in results[-2:]]
        watch.call.cancel()


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"parent": ENVIRONMENT}, "MALFORMED_NAME"),
        ({"parent": "organizations/none"}, "NOT_FOUND"),
        ({"resume_token": "x"}, "MALFORMED_RESUME_TOKEN"),
        ({"job_ids": [b"short"]}, "INVALID_MESSAGE"),
    ],
)
async def test_watch_of_what_cannot_be_watched_is_refused(api: Api, fields: dict[str, object], reason: str) -> None:
    assert (await refused(Watch(api, **fields).call.read())).reason == reason
