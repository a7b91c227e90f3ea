"""What an agent says of its machine, and what of it is shown."""

from __future__ import annotations

import pytest

from broker.app import Broker
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from tests.broker.rpc.peer import (
    hello,
    stream_to,
)
from tests.broker.running import PARENT, WAIT_S, Api


@pytest.mark.req("R62")
async def test_agent_shows_the_machine_that_it_told_of_in_hello(broker: Broker, api: Api) -> None:
    async with stream_to(broker.mesh_address) as agent:
        frame = hello("a1")
        said = {"version": "1.2.3", "host": "plant-7", "pid": 4_711, "user": "mesh", "os": "Linux", "ip": "10.0.0.7"}
        for field, value in said.items():
            setattr(frame.hello, field, value)
        frame.hello.time_zone = "CET"
        frame.hello.started_at.seconds = 1_700_000_000
        await agent.say(frame)
        await agent.welcome()
    shown = await api.admin.GetAgent(admin_pb.GetAgentRequest(name=f"{PARENT}/agents/a1"), timeout=WAIT_S)
    assert {field: getattr(shown, field) for field in said} == said
    assert (shown.time_zone, shown.started_at.seconds) == ("CET", 1_700_000_000)
    host, _, port = shown.peer.rpartition(":")
    assert (host, port.isdecimal()) == ("127.0.0.1", True)


async def test_agent_that_is_rejected_changes_nothing_of_what_is_shown(broker: Broker, api: Api) -> None:
    async with stream_to(broker.mesh_address) as newer, stream_to(broker.mesh_address) as older:
        for stream, connect_seq, host in ((newer, 5, "here"), (older, 4, "elsewhere")):
            frame = hello("a1", connect_seq=connect_seq)
            frame.hello.host = host
            await stream.say(frame)
            await stream.frame()
        await older.ending()
        shown = await api.admin.GetAgent(admin_pb.GetAgentRequest(name=f"{PARENT}/agents/a1"), timeout=WAIT_S)
    assert shown.host == "here"


@pytest.mark.parametrize("seconds", [-(2**63), -1, 253_402_300_800, 2**63 - 1])
async def test_agent_whose_start_is_no_time_is_listed_without_one(broker: Broker, api: Api, seconds: int) -> None:
    async with stream_to(broker.mesh_address) as agent:
        frame = hello("a1")
        frame.hello.started_at.seconds = seconds
        await agent.say(frame)
        await agent.welcome()
    (shown,) = (await api.admin.ListAgents(admin_pb.ListAgentsRequest(parent=PARENT), timeout=WAIT_S)).agents
    assert not shown.HasField("started_at")
