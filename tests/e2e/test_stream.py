"""The stream by hand against the broker's real port: whatever gRPC would do with a call, as far as agents notice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import pytest

from broker.app import Broker
from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import job_pb2
from tests.broker.rpc.peer import hello, succeeded
from tests.broker.running import WAIT_S, api_of, echo, settings_of
from tests.e2e.stream import WINDOW_BYTES, Stream


async def next_of(stream: Stream, name: str) -> pb.BrokerFrame:
    """The next frame that says anything under this name."""
    async with asyncio.timeout(WAIT_S):
        while (found := await stream.read()) is not None:
            if any(field.name == name for field, _ in found.ListFields()):
                return found
    raise AssertionError(f"the stream ended without {name}")


async def welcomed(broker: Broker) -> Stream:
    stream = Stream(broker.mesh_address, "default/default/a1")
    await stream.write(hello("a1", slots=64))
    await next_of(stream, "welcome")
    return stream


async def test_stream_carries_more_in_both_directions_than_a_window_holds(tmp_path: Path) -> None:
    content = b"x" * (WINDOW_BYTES // 2)
    async with Broker(settings_of(tmp_path)) as broker, api_of(broker) as api:
        stream = await welcomed(broker)
        results = await api.submit(*(echo(payload=content) for _ in range(8)))
        assigns: list[pb.Assign] = []
        while len(assigns) < len(results):
            assigns += (await next_of(stream, "assigns")).assigns
        assert {assign.payload for assign in assigns} == {content}
        for assign in assigns:
            outcome = succeeded((assign.job_key, assign.attempt), content)
            await stream.write(pb.AgentFrame(outcomes=[outcome]))
        accepted = 0
        while accepted < len(assigns):
            accepted += len((await next_of(stream, "outcomes_accepted")).outcomes_accepted.job_keys)
        job = await api.job(results[-1].job_id)
        assert (job.state, job.result.content) == (job_pb2.JOB_STATE_SUCCEEDED, content)
        await stream.close()


async def test_stream_that_the_broker_ends_says_why(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path)) as broker:
        stream = Stream(broker.mesh_address, "default/default/a1")
        await stream.write(pb.AgentFrame(heartbeat=pb.Heartbeat(seq=1)))
        async with asyncio.timeout(WAIT_S):
            assert await stream.read() is None
        assert await stream.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "must hold `hello`" in await stream.details()
        with pytest.raises(asyncio.InvalidStateError):
            await stream.write(pb.AgentFrame())


async def test_stream_ends_with_its_broker_and_finds_nobody_after_that(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path)) as broker:
        address = broker.mesh_address
        stream = await welcomed(broker)
    async with asyncio.timeout(WAIT_S):
        while await stream.read() is not None:
            pass
    assert stream.done()
    late = Stream(address, "default/default/a1")
    with pytest.raises(asyncio.InvalidStateError):
        await late.write(hello("a1"))
    assert await late.read() is None
    assert await late.code() is grpc.StatusCode.UNAVAILABLE
