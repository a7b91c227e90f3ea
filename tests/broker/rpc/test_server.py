from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # has no stubs
from grpc_reflection.v1alpha import (  # type: ignore[import-untyped]  # has no stubs
    reflection_pb2,
    reflection_pb2_grpc,
)

from broker.app import Broker
from broker.errors import ConfigError
from broker.rpc.server import Listener, options_of
from broker.rpc.services import API_SERVICES, MESH_SERVICES
from broker.settings import LimitSettings
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from tests.broker.rpc import http2
from tests.broker.rpc.peer import agent_on, key_of, succeeded, tasks_of
from tests.broker.running import WAIT_S, Api, api_of, channel_to, echo, http, metric, raw_call, settings_of

OPTIONS = options_of(LimitSettings(), 16)
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Restarts:
    """Says when a listener was opened again."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.happened = asyncio.Event()

    def __call__(self, name: str) -> None:
        self.names.append(name)
        self.happened.set()


async def test_listener_opens_again_when_a_path_is_not_utf8(broker: Broker, api: Api) -> None:
    """If this fails after an upgrade of grpcio because nothing had to be opened again: the cure can go."""
    listener, address = broker.mesh_listener, broker.mesh_address
    async with agent_on(address, "before") as before:
        await before.settled()
        restarted = Restarts()
        listener.tell(restarted)

        writer = await http2.send(address, b"/m/\xff\xfe")
        async with asyncio.timeout(WAIT_S):
            await restarted.happened.wait()

        assert broker.mesh_address == address
        async with agent_on(address, "after") as after:
            await after.settled()
            # The stream that was open goes on, both ways.
            await api.submit(*(echo() for _ in range(8)))
            for agent in (before, after):
                for assign in await agent.assigned(4):
                    await agent.say(agent_pb.AgentFrame(outcomes=[succeeded(key_of(assign))]))
                await agent.frame_with("outcomes_accepted")
        assert await listener.probe() == "ok"
        assert await metric(broker, "mesh_acceptor_restarts_total", listener="mesh") == listener.restarts == 1
        writer.close()


async def test_listener_forgets_a_server_that_ended_when_its_streams_are_over(broker: Broker) -> None:
    listener = broker.mesh_listener
    restarted = Restarts()
    listener.tell(restarted)
    async with agent_on(broker.mesh_address, "before") as before:
        writer = await http2.send(broker.mesh_address, b"/\xff")
        async with asyncio.timeout(WAIT_S):
            await restarted.happened.wait()
        writer.close()
        assert listener.servers == 2
        retiring = tasks_of("retire")
        await before.settled()
    await asyncio.wait(retiring, timeout=WAIT_S)
    assert listener.servers == 1


async def test_listener_goes_on_opening_when_that_fails_in_any_way(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.rpc.server.REOPEN_FAILED_WAIT_S", 0.01)
    listener = broker.mesh_listener
    open_again, failures = listener._open, [ConfigError("the port is taken"), OSError("no more files"), KeyError(1)]

    async def failing() -> None:
        if failures:
            raise failures.pop()
        await open_again()

    monkeypatch.setattr(listener, "_open", failing)
    restarted = Restarts()
    listener.tell(restarted)
    writer = await http2.send(broker.mesh_address, b"/\xff")
    async with asyncio.timeout(WAIT_S):
        await restarted.happened.wait()
    writer.close()
    assert await listener.probe() == "ok"


async def test_listener_gives_the_streams_of_a_server_that_ended_the_grace_of_its_stop() -> None:
    began, may_end = asyncio.Event(), asyncio.Event()

    request = health_pb2.HealthCheckRequest

    async def slow(request: object, context: object) -> bytes:
        began.set()
        await may_end.wait()
        return b"answer"

    def register(server: grpc.aio.Server) -> None:
        handlers: dict[str, grpc.RpcMethodHandler[object, bytes]] = {
            "Slow": grpc.unary_unary_rpc_method_handler(slow, request.FromString)
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", handlers),))

    restarted = Restarts()
    listener = Listener("slow", "127.0.0.1:0", register, OPTIONS, restarted)
    await listener.start()
    async with channel_to(listener.address) as channel:
        calling = asyncio.ensure_future(raw_call(channel, "/test.Service/Slow", b""))
        await began.wait()
        writer = await http2.send(listener.address, b"/\xff")
        async with asyncio.timeout(WAIT_S):
            await restarted.happened.wait()
        writer.close()
        stopping = asyncio.create_task(listener.stop(WAIT_S))
        await asyncio.sleep(0)
        may_end.set()
        assert await calling == b"answer"
        await stopping


async def test_listener_opens_again_each_time(broker: Broker) -> None:
    listener = broker.mesh_listener
    for expected in (1, 2, 3):
        restarted = Restarts()
        listener.tell(restarted)
        writer = await http2.send(broker.mesh_address, b"/\xff")
        async with asyncio.timeout(WAIT_S):
            await restarted.happened.wait()
        writer.close()
        assert listener.restarts == expected
    assert await listener.probe() == "ok"


async def test_unknown_path_is_answered_and_harms_nobody(broker: Broker) -> None:
    async with channel_to(broker.mesh_address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw_call(channel, "/mesh.v1.AgentService/Nothing", b"")
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert broker.mesh_listener.restarts == 0


async def test_second_listener_on_the_same_port_is_refused() -> None:
    first = Listener("first", "127.0.0.1:0", lambda server: None, OPTIONS, Restarts())
    await first.start()
    second = Listener("second", first.address, lambda server: None, OPTIONS, Restarts())
    with pytest.raises(ConfigError, match=f"second: cannot listen on {first.address}"):
        await second.start()
    await first.stop(0)


async def test_probe_says_what_is_wrong_when_nobody_listens() -> None:
    listener = Listener("gone", "127.0.0.1:0", lambda server: None, OPTIONS, Restarts())
    await listener.start()
    await listener.stop(0)
    assert await listener.probe() == f"a call to {listener.address} failed: UNAVAILABLE"


async def test_both_ports_serve_health_for_each_of_their_services(broker: Broker) -> None:
    for address, services in ((broker.api_address, API_SERVICES), (broker.mesh_address, MESH_SERVICES)):
        async with channel_to(address) as channel:
            check = health_pb2_grpc.HealthStub(channel).Check
            for service in ("", *services):
                answer = await check(health_pb2.HealthCheckRequest(service=service), timeout=WAIT_S)
                assert answer.status == SERVING


async def test_reflection_names_what_the_api_port_serves(api: Api) -> None:
    stub = reflection_pb2_grpc.ServerReflectionStub(api.channel)
    call = stub.ServerReflectionInfo(timeout=WAIT_S)
    await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
    answer = await call.read()
    call.cancel()
    names = {service.name for service in answer.list_services_response.service}
    assert {*API_SERVICES, "grpc.health.v1.Health"} <= names


async def test_metadata_beyond_its_limit_is_refused(broker: Broker) -> None:
    async with channel_to(broker.api_address) as channel:
        check = health_pb2_grpc.HealthStub(channel).Check
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await check(health_pb2.HealthCheckRequest(), metadata=(("x", "y" * 20_000),), timeout=WAIT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_broker_is_red_while_a_port_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.app.PROBE_EVERY_S", 0.01)
    async with Broker(settings_of(tmp_path)) as broker, api_of(broker):
        assert (await http(broker.metrics_address, "/readyz"))[0] == 200
        probed = asyncio.Event()

        async def failing() -> str:
            if probed.is_set():
                second.set()
            probed.set()
            return "a call failed"

        second = asyncio.Event()
        monkeypatch.setattr(broker.mesh_listener, "probe", failing)
        async with asyncio.timeout(WAIT_S):
            await second.wait()
        status, _, words = await http(broker.metrics_address, "/readyz")
    assert status == 503
    assert '"mesh": "a call failed"' in words
