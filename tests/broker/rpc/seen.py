"""What tests of agents and jobs look at and wait for, at the broker and in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from broker.app import Broker
from broker.dispatch.model import AgentNo, GroupNo, Link
from broker.store.base import CommitOutcome, CommitRequest, CommitStatus
from protos.mesh.v1 import admin_service_pb2 as admin_pb
from protos.mesh.v1 import job_service_pb2 as job_service_pb
from tests.broker.running import (
    ORGANIZATION,
    PARENT,
    WAIT_S,
    Api,
)

GROUP = GroupNo(1)


def stored_agent(broker: Broker, number: int = 1) -> Link:
    """How the dispatcher sees an agent now."""
    return broker.engine.dispatcher(GROUP).ledger.agents[AgentNo(number)].link


class Notices:
    """An observer of the engine that wakes whoever waits for a batch."""

    def __init__(self, broker: Broker) -> None:
        self._changed = asyncio.Event()
        broker.engine.observe(self)

    def on_batch(self, notices: object, commit_seq: int) -> None:
        self._changed.set()

    def on_commit(self, seconds: float, events: int, rows: int) -> None: ...

    def on_full(self, queue: str) -> None: ...

    async def until(self, holds: Callable[[], bool]) -> None:
        """Return when it holds after a batch."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                self._changed.clear()
                await self._changed.wait()


class Stall:
    """Lets every commit be rolled back until it is over: what a full disk does."""

    def __init__(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self._commit: Callable[[CommitRequest], Awaitable[CommitOutcome]] = broker.store.commit
        self._is_over = False
        self.refused = asyncio.Event()
        monkeypatch.setattr(broker.store, "commit", self._refuse)

    async def _refuse(self, request: CommitRequest) -> CommitOutcome:
        if self._is_over:
            return await self._commit(request)
        self.refused.set()
        return CommitOutcome(CommitStatus.ROLLED_BACK, why="database or disk is full", retry_after_s=0.01)

    def begin(self) -> None:
        """Once more."""
        self._is_over = False
        self.refused.clear()

    def end(self) -> None:
        self._is_over = True


async def status_of(api: Api, agent: str) -> str:
    found = await api.admin.GetAgent(admin_pb.GetAgentRequest(name=f"{PARENT}/agents/{agent}"), timeout=WAIT_S)
    return admin_pb.AgentStatus.Name(found.status).removeprefix("AGENT_STATUS_")


async def until_blocked(broker: Broker, api: Api) -> int:
    """Submit large jobs until the only agent's stream takes no more; how many were submitted."""
    (session,) = broker.agents.sessions
    submitted = 0
    while not session.backlog:
        assert submitted < 40, "the stream takes everything"
        submitted += len(await api.submit_echo(4, payload=b"x" * 900_000))
    return submitted


class Watch:
    """A watch whose messages are taken one by one."""

    def __init__(self, api: Api, **request: Any) -> None:
        fields: dict[str, Any] = {"parent": ORGANIZATION, **request}
        self._says_where = not {"job_ids", "resume_token"} & request.keys()
        self.call = api.jobs.WatchJobs(job_service_pb.WatchJobsRequest(**fields))

    async def message(self) -> job_service_pb.WatchJobsResponse:
        async with asyncio.timeout(WAIT_S):
            found = await self.call.read()
        assert isinstance(found, job_service_pb.WatchJobsResponse)
        return found

    async def begun(self) -> None:
        """From now on nothing is missed."""
        async with asyncio.timeout(WAIT_S):
            await self.call.initial_metadata()
        if self._says_where:
            first = await self.message()
            assert (list(first.jobs), first.gap, first.resume_token.isdecimal()) == ([], False, True)
