"""What operators do with agents, to real processes with work in hand: nothing is lost, and each ends as it should."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mesh_client import JobView, MeshClient
from tests.e2e.course import FAST, GROUP, Course
from tests.e2e.processes import Mesh, Process

pytestmark = pytest.mark.e2e

SLOTS = 2
WAIT_S = 30.0
EXIT_DENIED = 4
EXIT_INTERRUPTED = 130


@asynccontextmanager
async def two_agents(
    folder: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[Course, MeshClient]]:
    """A broker, agents a1 and a2 with two slots each, and a client; in the end nothing is lost or ran without need."""
    async with Course(folder, settings=settings or {}) as course:
        for name in ("a1", "a2"):
            await course.start_agent(name, slots=SLOTS)
        yield course, course.client
        findings = await course.judge()
        assert findings.wrong() == {}
        assert findings.acknowledged == findings.final


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


def command(mesh: Mesh, *words: str) -> Process:
    """`mesh agents` with these words, as a process of its own."""
    return Process("mesh", ["-m", "broker.cli", "agents", *words, "--api", mesh.addresses.api])


@pytest.mark.req("R52")
async def test_agent_that_is_drained_to_stop_finishes_what_it_has_and_its_process_ends(tmp_path: Path) -> None:
    async with two_agents(tmp_path) as (course, client):
        held = await all_run(client, await course.submit([4.0] * 2 * SLOTS))
        assert sorted(view.agent for view in held) == ["a1", "a1", "a2", "a2"]

        waiting = command(course.mesh, "drain", "a1", "--wait", "--reason", "new disk")
        with course.during("drain", "a1"):
            await waiting.start()
            await waiting.said("Draining a1: 2 attempts left.")
        await course.mesh.agents["a1"].said("drain.started")
        later = await course.submit([0.01] * 4)

        assert await waiting.ended() == 0
        assert await course.mesh.agents["a1"].ended() == 0
        assert (await client.get_agent(GROUP, "a1")).status == "stopped"
        ended = await client.wait([view.job_id for view in held], WAIT_S)
        assert [(view.state, view.attempt) for view in ended] == [("succeeded", 1)] * len(held)
        assert sorted(view.agent for view in ended) == ["a1", "a1", "a2", "a2"]
        others = await client.wait(later, WAIT_S)
        assert {(view.state, view.agent) for view in others} == {("succeeded", "a2")}

        # The order is carried out: the next process is an ordinary one.
        await course.start_agent("a1", slots=SLOTS)
        assert (await course.agent_is("a1", "active")).drain is None


@pytest.mark.req("R52")
async def test_drain_goes_on_when_whoever_waits_for_it_is_interrupted_and_the_broker_is_killed(tmp_path: Path) -> None:
    async with two_agents(tmp_path) as (course, client):
        held = await all_run(client, await course.submit([5.0] * 2 * SLOTS))
        waiting = command(course.mesh, "drain", "a1", "--mode", "pause", "--wait")
        with course.during("drain", "a1"):
            await waiting.start()
            await waiting.said("Draining a1: 2 attempts left.")
        waiting.signal(signal.SIGINT)
        assert await waiting.ended() == EXIT_INTERRUPTED
        assert (await client.get_agent(GROUP, "a1")).status == "draining"

        with course.during("kill", "broker"):
            await course.mesh.broker.kill()
            await course.mesh.start_broker()

        ended = await client.wait([view.job_id for view in held], WAIT_S)
        assert [(view.state, view.attempt) for view in ended] == [("succeeded", 1)] * len(held)
        await course.agent_is("a1", "paused")
        others = await client.wait(await course.submit([0.01] * 4), WAIT_S)
        assert {view.agent for view in others} == {"a2"}

        with course.during("resume", "a1"):
            assert (await client.resume_agent(GROUP, "a1")).status == "active"
        # Long enough to be seen running: a start is written with the next commit, a second later at most.
        again = await all_run(client, await course.submit([2.5] * 2 * SLOTS))
        assert sorted(view.agent for view in again) == ["a1", "a1", "a2", "a2"]


@pytest.mark.req("R66")
async def test_agent_that_is_disabled_at_once_hands_its_work_on_and_removed_its_process_ends(tmp_path: Path) -> None:
    async with two_agents(tmp_path) as (course, client):
        held = await all_run(client, await course.submit([2.0] * 2 * SLOTS))
        with course.during("disable_now", "a1"):
            await client.disable_agent(GROUP, "a1", now=True, reason="broken fan")
        ended = await client.wait([view.job_id for view in held], WAIT_S)
        assert {(view.state, view.agent) for view in ended} == {("succeeded", "a2")}
        assert sorted(view.attempt for view in ended) == [1, 1, 2, 2]
        assert {view.crashes + view.failures + view.bounces for view in ended} == {0}
        assert (await client.get_agent(GROUP, "a1")).disabled_reason == "broken fan"
        assert course.mesh.agents["a1"].is_running  # it asks again until it is enabled
        await course.mesh.agents["a1"].said("session.refused")
        await course.mesh.agents["a1"].stop()

        assert await client.remove_agent(GROUP, "a1") == 0

        process = Process(
            "a1", ["-m", "agent_stub", "run", "--broker", course.mesh.addresses.mesh, "--dev", "--name", "a1"]
        )
        await process.start()
        assert await process.ended() == EXIT_DENIED
        assert "removed" in await process.said("session.refused")
        assert [view.agent async for view in client.list_agents(GROUP)] == ["a2"]

        await client.create_agent(GROUP, "a1")
        await course.start_agent("a1", slots=SLOTS)
        assert (await course.agent_is("a1", "active")).agent == "a1"


@pytest.mark.req("R66")
async def test_agent_that_is_enabled_again_comes_back_by_itself_and_takes_work(tmp_path: Path) -> None:
    async with two_agents(tmp_path, FAST) as (course, client):
        process = course.mesh.agents["a1"]
        pid = process.pid
        with course.during("disable_now", "a1"):
            await client.disable_agent(GROUP, "a1", now=True)
        await process.said("session.refused")
        assert (await client.get_agent(GROUP, "a1")).status == "disabled"
        alone = await client.wait(await course.submit([0.01] * 4), WAIT_S)
        assert {view.agent for view in alone} == {"a2"}

        with course.during("enable", "a1"):
            await client.enable_agent(GROUP, "a1")
        await course.agent_is("a1", "active")  # within three leases and its back-off; nobody touches its machine
        assert (process.is_running, process.pid) == (True, pid)
        again = await client.wait(await course.submit([0.5] * 2 * SLOTS), WAIT_S)
        assert sorted(view.agent for view in again) == ["a1", "a1", "a2", "a2"]


@pytest.mark.req("R50")
async def test_process_of_a_paused_agent_ends_when_the_agent_is_removed(tmp_path: Path) -> None:
    async with two_agents(tmp_path) as (course, client):
        await client.drain_agent(GROUP, "a1", "pause")
        await course.agent_is("a1", "paused")
        removing = command(course.mesh, "remove", "a1", "--yes")
        await removing.start()
        assert await removing.ended() == 0
        assert await course.mesh.agents["a1"].ended() == EXIT_DENIED
        assert "removed" in await course.mesh.agents["a1"].said("session.refused")
