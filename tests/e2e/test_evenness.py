"""Two agents that nobody set up to share the work share it evenly, and one of them alone loses nothing of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker import series
from mesh_client import JobSpec
from tests.e2e.course import Course
from tests.e2e.page import told

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLOTS = 20
JOBS = 1_000
ROUND = 2 * SLOTS
"""So many jobs find all slots free."""
JOB_S = 0.1
WAIT_S = 60.0


@pytest.mark.req("R03", "R72")
async def test_two_agents_share_a_thousand_jobs_evenly_and_finish_a_thousand_when_one_is_killed(tmp_path: Path) -> None:
    async with Course(tmp_path) as course:
        mesh, client = course.mesh, course.client
        for name in ("a1", "a2"):
            await course.start_agent(name, slots=SLOTS)
        for _ in range(JOBS // ROUND):
            await client.wait(await course.submit_specs([JobSpec("echo", b"same")] * ROUND), WAIT_S)
        assigned = await told(mesh, series.AGENT_ASSIGNED)
        assert sum(assigned.values()) == JOBS
        assert max(assigned.values()) - min(assigned.values()) <= 1
        assert (await told(mesh, series.EVENNESS))[()] >= 0.9999

        job_ids = await course.submit([JOB_S] * JOBS)
        async with asyncio.timeout(WAIT_S):
            while (await told(mesh, series.JOBS_FINISHED))[("succeeded",)] < JOBS + JOBS // 2:
                pass
        with course.during("kill", "a2"):
            await mesh.agents["a2"].kill()
        ended = await client.wait(job_ids, WAIT_S)

        assert {view.state for view in ended} == {"succeeded"}
        finished = await told(mesh, series.JOBS_FINISHED)
        assert finished[("succeeded",)] == sum(finished.values()) == 2 * JOBS
        returned = await told(mesh, series.JOBS_RETURNED)
        assert 1 <= returned[("agent_lost",)] <= SLOTS
        assert (await told(mesh, series.AGENTS))[("no_response",)] == 1
        findings = await course.judge()

    assert findings.wrong() == {}
    assert findings.acknowledged == findings.final == 2 * JOBS
    [kill] = findings.faults
    assert 1 <= kill.in_flight <= SLOTS
