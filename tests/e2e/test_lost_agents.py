"""Agents that are killed, or stand still for longer than their lease, under load: what they had runs elsewhere."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.e2e.course import Course, until
from tests.e2e.history import Entry, attempt_key

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLOTS = 4
RATE = 60.0
LONG_S = 3.0
GENEROUS_S = 10.0
"""How late work may begin elsewhere on a machine that is busy with other things; what it took is printed."""


def began_elsewhere_s(entries: list[Entry], since_s: float, attempts: list[str]) -> list[float]:
    """For each of these attempts, how long after `since_s` the next one of its job began to run."""
    begun = {entry.key: entry.t for entry in entries if (entry.op, entry.phase) == ("run", "invoke")}
    following = []
    for key in attempts:
        job_key, _, number = key.partition("/")
        following.append(begun[attempt_key(int(job_key), int(number) + 1)] - since_s)
    return following


@pytest.mark.req("R03", "R73")
async def test_agent_that_is_killed_under_load_loses_nothing_and_its_jobs_begin_elsewhere(tmp_path: Path) -> None:
    async with Course(tmp_path) as course:
        await course.start_agent("a1", slots=SLOTS)
        held = await course.submit([LONG_S] * SLOTS)
        accepted = [run.key for run in await course.begun("a1", SLOTS)]
        await course.start_agent("a2", slots=4 * SLOTS)
        async with course.load(rate=RATE) as load:
            await load.until_acknowledged(30)
            with course.during("kill", "a1"):
                await course.mesh.agents["a1"].kill()
            await load.until_acknowledged(60)  # with one agent that is left work goes on
        findings = await course.judge()

        assert findings.wrong() == {}
        assert findings.acknowledged == findings.final >= 90 + len(held)
        [kill] = findings.faults
        assert kill.in_flight >= SLOTS
        late_s = began_elsewhere_s(course.entries(), kill.t, accepted)
        print(f"accepted jobs of the killed agent began elsewhere after {max(late_s):.3f} s at most, grace is 1 s")
        assert 0 < max(late_s) < GENEROUS_S


async def test_jobs_that_a_killed_agent_had_not_accepted_do_not_wait_for_its_return(tmp_path: Path) -> None:
    # With a grace that is longer than the bound below: whoever waited for it would be seen.
    settings = {"MESH_DISPATCH__LEASE_S": "20", "MESH_DISPATCH__MARGIN_S": "4"}
    settings |= {"MESH_DISPATCH__RECONNECT_GRACE_S": "15", "MESH_DISPATCH__ACCEPT_TIMEOUT_S": "15"}
    async with Course(tmp_path, settings=settings) as course:
        agent = await course.start_agent("a1", slots=SLOTS)
        agent.signal(signal.SIGSTOP)  # it accepts nothing that it is sent from now on
        job_ids = await course.submit([0.1] * SLOTS)

        async def all_sent() -> bool:
            return [(await course.client.get(job_id)).state for job_id in job_ids] == ["assigned"] * SLOTS

        await until(all_sent, "all are assigned to the agent that stands still")
        await course.start_agent("a2", slots=SLOTS)
        with course.during("kill", "a1"):
            await agent.kill()
        findings = await course.judge()

        assert findings.wrong() == {}
        [kill] = findings.faults
        assert [(one.attempts[0].agent, one.attempts[-1].agent) for one in course.jobs] == [("a1", "a2")] * SLOTS
        sent = [attempt_key(job.job_key, 1) for job in course.jobs]
        late_s = began_elsewhere_s(course.entries(), kill.t, sent)
        print(f"jobs that were not accepted began elsewhere after {max(late_s):.3f} s at most")
        assert 0 < max(late_s) < GENEROUS_S


@pytest.mark.req("R03")
async def test_agent_that_stood_still_for_longer_than_its_lease_has_its_late_outcomes_refused(tmp_path: Path) -> None:
    async with Course(tmp_path) as course:
        agent = await course.start_agent("a1", slots=SLOTS)
        await course.submit([1.0] * SLOTS)
        held = await course.begun("a1", SLOTS)
        async with course.load(rate=RATE) as load:
            with course.during("freeze", "a1"):
                agent.signal(signal.SIGSTOP)
                await course.start_agent("a2", slots=4 * SLOTS)  # now: what a1 holds must not end meanwhile
                again = {attempt_key(int(run.key.partition("/")[0]), 2) for run in held}

                async def all_again() -> bool:
                    return again <= {entry.key for entry in course.entries() if entry.process == "a2"}

                await until(all_again, "what the agent holds has begun elsewhere")
                agent.signal(signal.SIGCONT)
                await course.agent_is("a1", "active")
            await load.until_acknowledged(60)
        findings = await course.judge()

        assert findings.wrong() == {}
        [freeze] = findings.faults
        assert freeze.in_flight >= SLOTS
        refused = {entry.key for entry in course.entries() if (entry.op, entry.phase) == ("outcome", "fail")}
        assert {run.key for run in held} <= refused
        back = [entry for entry in course.entries() if entry.process == "a1" and entry.t > freeze.until]
        assert any((entry.op, entry.phase) == ("outcome", "ok") for entry in back), "it works again"


@pytest.mark.req("R71")
async def test_jobs_keep_their_places_while_no_agent_is_active_and_run_when_one_comes(tmp_path: Path) -> None:
    async with Course(tmp_path) as course:
        agent = await course.start_agent("a1", slots=1)
        held = await course.submit([0.5])
        await course.begun("a1", 1)
        with course.during("kill", "a1"):
            await agent.kill()
        waiting = await course.submit([0.01] * 8)

        async def all_wait() -> bool:
            return {(await course.client.get(job_id)).state for job_id in [*held, *waiting]} == {"queued"}

        await until(all_wait, "the job of the killed agent waits again, and all others do")
        assert (await course.client.get_group("default")).status == "inactive"
        await course.start_agent("a2", slots=1)
        findings = await course.judge()

        assert findings.wrong() == {}
        assert findings.final == 9
        runs = [run.key for run in await course.begun("a2", 9)]
        assert runs == [attempt_key(job.job_key, job.attempt) for job in course.jobs], "in the order of acceptance"
