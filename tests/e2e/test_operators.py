"""What operators do with agents, to real processes with work in hand: nothing is lost, and each ends as it should."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh_client import AgentView, JobView, MeshClient
from tests.e2e.processes import Mesh, Process

pytestmark = pytest.mark.e2e

GROUP = "default"
SLOTS = 2
WAIT_S = 30.0
EXIT_DENIED = 4
EXIT_INTERRUPTED = 130


@asynccontextmanager
async def two_agents(folder: Path) -> AsyncIterator[tuple[Mesh, MeshClient]]:
    """A broker, agents a1 and a2 with two slots each, and a client."""
    async with Mesh(folder / "data") as mesh:
        await mesh.start_broker()
        for name in ("a1", "a2"):
            await mesh.start_agent(name, slots=SLOTS)
        async with MeshClient(mesh.addresses.api) as client:
            yield mesh, client


async def sleepers(client: MeshClient, number: int, seconds: float) -> list[str]:
    """Jobs that take this long."""
    return [(await client.submit("sleep", json={"seconds": seconds})).job_id for _ in range(number)]


async def all_run(client: MeshClient, job_ids: list[str]) -> list[JobView]:
    """The jobs, once every one of them runs."""
    running: dict[str, JobView] = {}
    async with asyncio.timeout(WAIT_S):
        async for view in client.follow(job_ids):
            if view.state == "running":
                running[view.job_id] = view
            if len(running) == len(job_ids):
                break
    return list(running.values())


async def agent_is(client: MeshClient, agent: str, status: str) -> AgentView:
    """The agent, once it has this status."""
    async with asyncio.timeout(WAIT_S):
        async for view in client.follow_agent(GROUP, agent, every_s=0.05):
            if view.status == status:
                return view
    raise AssertionError("an agent is followed for ever")


def command(mesh: Mesh, *words: str) -> Process:
    """`mesh agents` with these words, as a process of its own."""
    return Process("mesh", ["-m", "broker.cli", "agents", *words, "--api", mesh.addresses.api])


@pytest.mark.req("R52")
async def test_agent_that_is_drained_to_stop_finishes_what_it_has_and_its_process_ends(tmp_path: Path) -> None:
    async with two_agents(tmp_path) as (mesh, client):
        held = await all_run(client, await sleepers(client, 2 * SLOTS, 4.0))
        assert sorted(view.agent for view in held) == ["a1", "a1", "a2", "a2"]

        waiting = command(mesh, "drain", "a1", "--wait", "--reason", "new disk")
        await waiting.start()
        await waiting.said("Draining a1: 2 attempts left.")
        await mesh.agents["a1"].said("drain.started")
        later = await sleepers(client, 4, 0.01)

        assert await waiting.ended() == 0
        assert await mesh.agents["a1"].ended() == 0
        assert (await client.get_agent(GROUP, "a1")).status == "stopped"
        ended = await client.wait([view.job_id for view in held], WAIT_S)
        assert [(view.state, view.attempt) for view in ended] == [("succeeded", 1)] * len(held)
        assert sorted(view.agent for view in ended) == ["a1", "a1", "a2", "a2"]
        others = await client.wait(later, WAIT_S)
        assert {(view.state, view.agent) for view in others} == {("succeeded", "a2")}

        # The order is carried out: the next process is an ordinary one.
        await mesh.start_agent("a1", slots=SLOTS)
        assert (await agent_is(client, "a1", "active")).drain is None


@pytest.mark.req("R52")
async def test_drain_goes_on_when_whoever_waits_for_it_is_interrupted_and_the_broker_is_killed(tmp_path: Path) -> None:
    async with two_agents(tmp_path) as (mesh, client):
        held = await all_run(client, await sleepers(client, 2 * SLOTS, 5.0))
        waiting = command(mesh, "drain", "a1", "--mode", "pause", "--wait")
        await waiting.start()
        await waiting.said("Draining a1: 2 attempts left.")
        waiting.signal(signal.SIGINT)
        assert await waiting.ended() == EXIT_INTERRUPTED
        assert (await client.get_agent(GROUP, "a1")).status == "draining"

        await mesh.broker.kill()
        await mesh.start_broker()

        ended = await client.wait([view.job_id for view in held], WAIT_S)
        assert [(view.state, view.attempt) for view in ended] == [("succeeded", 1)] * len(held)
        await agent_is(client, "a1", "paused")
        others = await client.wait(await sleepers(client, 4, 0.01), WAIT_S)
        assert {view.agent for view in others} == {"a2"}

        assert (await client.resume_agent(GROUP, "a1")).status == "active"
        again = await all_run(client, await sleepers(client, 2 * SLOTS, 1.0))
        assert sorted(view.agent for view in again) == ["a1", "a1", "a2", "a2"]


@pytest.mark.req("R66")
async def test_agent_that_is_disabled_at_once_hands_its_work_on_and_removed_its_process_ends(tmp_path: Path) -> None:
    async with two_agents(tmp_path) as (mesh, client):
        held = await all_run(client, await sleepers(client, 2 * SLOTS, 2.0))
        await client.disable_agent(GROUP, "a1", now=True, reason="broken fan")
        ended = await client.wait([view.job_id for view in held], WAIT_S)
        assert {(view.state, view.agent) for view in ended} == {("succeeded", "a2")}
        assert sorted(view.attempt for view in ended) == [1, 1, 2, 2]
        assert {view.crashes + view.failures + view.bounces for view in ended} == {0}
        assert (await client.get_agent(GROUP, "a1")).disabled_reason == "broken fan"
        assert mesh.agents["a1"].is_running  # it asks again until it is enabled
        await mesh.agents["a1"].said("session.refused")
        await mesh.agents["a1"].stop()

        assert await client.remove_agent(GROUP, "a1") == 0

        process = Process("a1", ["-m", "agent_stub", "run", "--broker", mesh.addresses.mesh, "--dev", "--name", "a1"])
        await process.start()
        assert await process.ended() == EXIT_DENIED
        assert "removed" in await process.said("session.refused")
        assert [view.agent async for view in client.list_agents(GROUP)] == ["a2"]

        await client.create_agent(GROUP, "a1")
        await mesh.start_agent("a1", slots=SLOTS)
        assert (await agent_is(client, "a1", "active")).agent == "a1"


@pytest.mark.req("R50")
async def test_process_of_a_paused_agent_ends_when_the_agent_is_removed(tmp_path: Path) -> None:
    async with two_agents(tmp_path) as (mesh, client):
        await client.drain_agent(GROUP, "a1", "pause")
        await agent_is(client, "a1", "paused")
        removing = command(mesh, "remove", "a1", "--yes")
        await removing.start()
        assert await removing.ended() == 0
        assert await mesh.agents["a1"].ended() == EXIT_DENIED
        assert "removed" in await mesh.agents["a1"].said("session.refused")
