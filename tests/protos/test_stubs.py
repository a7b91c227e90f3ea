"""The generated stubs carry real calls: one server, one channel, both on the loopback."""

from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from protos.mesh.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    agent_service_pb2,
    agent_service_pb2_grpc,
    job_service_pb2,
)


class Agents(agent_service_pb2_grpc.AgentServiceServicer):
    async def Connect(  # noqa: N802 - the generated name
        self,
        request_iterator: AsyncIterator[agent_service_pb2.AgentFrame],
        context: grpc.aio.ServicerContext[agent_service_pb2.AgentFrame, agent_service_pb2.BrokerFrame],
    ) -> AsyncIterator[agent_service_pb2.BrokerFrame]:
        async for frame in request_iterator:
            yield agent_service_pb2.BrokerFrame(outcomes_accepted=frame.started)


class Admin(admin_service_pb2_grpc.AdminServiceServicer):
    async def GetGroup(  # noqa: N802 - the generated name
        self,
        request: admin_service_pb2.GetGroupRequest,
        context: grpc.aio.ServicerContext[admin_service_pb2.GetGroupRequest, admin_service_pb2.Group],
    ) -> admin_service_pb2.Group:
        return admin_service_pb2.Group(name=request.name)


@pytest.fixture
async def channel() -> AsyncIterator[grpc.aio.Channel]:
    server = grpc.aio.server()
    agent_service_pb2_grpc.add_AgentServiceServicer_to_server(Agents(), server)
    admin_service_pb2_grpc.add_AdminServiceServicer_to_server(Admin(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(grace=None)


async def test_stream_carries_frames_both_ways(channel: grpc.aio.Channel) -> None:
    call = agent_service_pb2_grpc.AgentServiceStub(channel).Connect()
    held = agent_service_pb2.AttemptList(job_keys=[1 << 40, 2], attempts=[1, 7])
    await call.write(agent_service_pb2.AgentFrame(started=held))
    answer = await call.read()
    await call.done_writing()
    assert answer == agent_service_pb2.BrokerFrame(outcomes_accepted=held)
    assert await call.read() is grpc.aio.EOF


async def test_partial_service_answers_unimplemented_when_a_method_is_absent(channel: grpc.aio.Channel) -> None:
    stub = admin_service_pb2_grpc.AdminServiceStub(channel)
    name = "organizations/acme/groups/plant"
    assert (await stub.GetGroup(admin_service_pb2.GetGroupRequest(name=name))).name == name
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.DeleteGroup(admin_service_pb2.DeleteGroupRequest(name=name))
    assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_frame_keeps_what_a_newer_peer_adds() -> None:
    newer = b"\x0a\x03abc" + b"\xba\x3e\x01x"
    known = job_service_pb2.GetJobRequest.FromString(newer)
    assert known.name == "abc"
    assert known.SerializeToString() == newer
