"""Operators drain, pause, resume and disable agents while jobs come in: nothing is lost, nothing runs again."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesh_client import AgentView
from tests.e2e.course import GROUP, Course

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLOTS = 6
RATE = 80.0
BUSY_S = 0.5


async def drained(course: Course, agent: str, mode: str) -> AgentView:
    """Drain an agent that has work in hand."""
    await course.submit([BUSY_S] * 3 * SLOTS)
    begun = sum((entry.process, entry.op, entry.phase) == (agent, "run", "invoke") for entry in course.entries())
    await course.begun(agent, begun + 1)
    with course.during("drain", agent):
        view = await course.client.drain_agent(GROUP, agent, "pause" if mode == "pause" else "stop")
    assert view.drain is not None
    assert view.drain.remaining > 0
    return view


@pytest.mark.req("R52")
async def test_draining_agents_under_load_loses_nothing_and_runs_nothing_again(tmp_path: Path) -> None:
    async with Course(tmp_path) as course:
        for name in ("a1", "a2", "a3"):
            await course.start_agent(name, slots=SLOTS)
        async with course.load(rate=RATE) as load:
            for _ in range(2):
                await drained(course, "a1", "pause")
                await course.agent_is("a1", "paused")
                await load.until_acknowledged(40)
                with course.during("resume", "a1"):
                    await course.client.resume_agent(GROUP, "a1")

            await drained(course, "a3", "pause")
            with course.during("resume", "a3"):
                await course.client.cancel_drain(GROUP, "a3")

            await drained(course, "a2", "stop")
            assert await course.mesh.agents["a2"].ended() == 0
            await load.until_acknowledged(40)
            await course.start_agent("a2", slots=SLOTS)
            runs_s = [entry.t for entry in course.entries()]
            await load.until_acknowledged(80)
        findings = await course.judge()

        assert findings.wrong() == {}
        assert findings.acknowledged == findings.final
        busy = {entry.process for entry in course.entries() if entry.op == "run" and entry.t > max(runs_s)}
        assert busy == {"a1", "a2", "a3"}, "all of them work again"
        print(f"{findings.final} jobs; attempts by agent: {dict(findings.assigned)}")


@pytest.mark.req("R66")
async def test_agents_that_are_disabled_under_load_get_nothing_and_lose_nothing(tmp_path: Path) -> None:
    async with Course(tmp_path) as course:
        for name in ("a1", "a2", "a3"):
            await course.start_agent(name, slots=SLOTS)
        async with course.load(rate=RATE) as load:
            await course.submit([BUSY_S] * 3 * SLOTS)
            for name in ("a1", "a2"):
                await course.begun(name, SLOTS)
            with course.during("disable", "a1"):
                off = await course.client.disable_agent(GROUP, "a1")
            with course.during("disable_now", "a2"):
                await course.client.disable_agent(GROUP, "a2", now=True)
            assert off.live > 0
            for name in ("a1", "a2"):
                await course.mesh.agents[name].said("session.refused")
            await load.until_acknowledged(80)

            with course.during("enable", "a1"):
                await course.client.enable_agent(GROUP, "a1")
            await course.mesh.agents["a1"].stop()  # by itself it asks again after half a minute
            await course.start_agent("a1", slots=SLOTS)
            again = max(entry.t for entry in course.entries())
            await load.until_acknowledged(40)
        findings = await course.judge()

        assert findings.wrong() == {}
        assert findings.acknowledged == findings.final
        [now] = findings.faults
        assert now.in_flight > 0
        assert any((entry.process, entry.op) == ("a1", "run") for entry in course.entries() if entry.t > again)
        moved = [job for job in course.jobs if job.attempts[0].agent == "a2" and job.attempt > 1]
        assert moved, "what was stopped ran elsewhere"
        assert {job.failures + job.crashes + job.bounces for job in moved} == {0}
