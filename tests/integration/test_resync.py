"""Agents that missed something are asked for a Hello at the rate at which it can be let in: they say it only once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from agent_stub.client import Agent
from agent_stub.settings import AgentSettings
from broker.app import Broker
from broker.rpc.intake import Intake
from broker.rpc.sessions import Session
from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1.job_service_pb2 import JobSpec
from tests.agent_stub.agents import Handlers
from tests.broker.rpc.seen import Notices, Stall
from tests.broker.running import WAIT_S, api_of, settings_of

AGENTS, PER_S = 8, 4
"""Of these so many are let in at once, the others one after the other."""
BEATS = {"heartbeat_s": 0.2, "idle_heartbeat_s": 0.5}


class Seen:
    """What the broker dropped of the agents, and when it asked which of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.missed, self.have_all_missed = set[int](), asyncio.Event()
        self.asked = Counter[int]()
        self.asked_at_s: list[float] = []
        miss, resync = Intake._miss, Session.resync

        def note_missed(intake: Intake, frame: pb.AgentFrame) -> None:
            miss(intake, frame)
            if frame.outcomes:
                self.missed.add(intake._session.session)
            if len(self.missed) == AGENTS:
                self.have_all_missed.set()

        def note_asked(session: Session, reason: str) -> None:
            self.asked[session.session] += 1
            self.asked_at_s.append(time.monotonic())
            resync(session, reason)

        monkeypatch.setattr(Intake, "_miss", note_missed)
        monkeypatch.setattr(Session, "resync", note_asked)


@asynccontextmanager
async def fleet(address: str, handlers: Handlers) -> AsyncIterator[list[Agent]]:
    """Real agents with a slot each."""
    settings = [AgentSettings("default", "default", f"a{number}", address, 1, dev=True) for number in range(AGENTS)]
    agents = [Agent(one, handlers.operations) for one in settings]
    tasks = [asyncio.create_task(agent.run()) for agent in agents]
    try:
        yield agents
    finally:
        for agent in agents:
            agent.stop()
        await asyncio.gather(*tasks)


async def test_agents_that_all_missed_something_say_hello_again_on_their_streams_at_the_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(tmp_path, dispatch=BEATS, limits={"hellos_per_s": PER_S})
    handlers, seen = Handlers(), Seen(monkeypatch)
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(Broker(settings))
        api = await stack.enter_async_context(api_of(broker))
        agents = await stack.enter_async_context(fleet(broker.mesh_address, handlers))
        results = await api.submit(*(JobSpec(operation="wait") for _ in agents))
        async with asyncio.timeout(WAIT_S):
            for _ in agents:
                await handlers.begun.get()
        streams = {session.session for session in broker.agents.sessions}

        notices, stall = Notices(broker), Stall(broker, monkeypatch)
        submitting = asyncio.create_task(api.submit_echo())
        await stall.refused.wait()
        handlers.go_on.set()
        async with asyncio.timeout(WAIT_S):
            await seen.have_all_missed.wait()
        stall.end()
        await submitting
        await notices.until(lambda: not any(agent.session.unacknowledged for agent in agents))

        assert seen.asked == Counter(streams)
        assert seen.asked_at_s[-1] - seen.asked_at_s[0] > (AGENTS - PER_S - 1) / PER_S
        assert {session.session for session in broker.agents.sessions} == streams
        assert {(await api.job(result.job_id)).state for result in results} == {job_pb2.JOB_STATE_SUCCEEDED}
