"""A broker that is stopped in order, or killed, while jobs come in and run: they go on as if nothing had happened."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.course import FAST, Course, until

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLOTS = 16
RATE = 80.0
RESTARTS = 3
# An agent that finds no broker may wait for half a minute before it asks again: what it holds must wait that long too.
SETTINGS = FAST | {
    "MESH_DISPATCH__RECOVERY_GRACE_S": "60",
    "MESH_DISPATCH__LEASE_S": "15",
    "MESH_DISPATCH__MARGIN_S": "3",
    # So that a slow stop is no reason either.
    "MESH_DISPATCH__RECONNECT_GRACE_S": "10",
}


async def test_broker_that_is_restarted_in_order_under_load_loses_nothing_and_runs_nothing_again(
    tmp_path: Path,
) -> None:
    async with Course(tmp_path, settings=SETTINGS) as course:
        for name in ("a1", "a2"):
            await course.start_agent(name, slots=SLOTS)
        async with course.load(rate=RATE, run_s=(0.1, 0.5)) as load:
            for _ in range(RESTARTS):
                await load.until_acknowledged(60)
                await course.running(SLOTS)
                with course.during("restart", "broker"):
                    assert await course.mesh.broker.stop() == 0
                    await course.mesh.start_broker()
            await load.until_acknowledged(60)
        findings = await course.judge()

        assert findings.wrong() == {}
        assert findings.acknowledged == findings.final >= (RESTARTS + 1) * 60
        assert len(findings.faults) == RESTARTS
        assert min(fault.in_flight for fault in findings.faults) > 0
        print(f"away for {max(fault.until - fault.t for fault in findings.faults):.2f} s at most")


async def test_jobs_that_run_while_the_broker_is_killed_run_on_and_none_runs_again(tmp_path: Path) -> None:
    async with Course(tmp_path, settings=SETTINGS) as course:
        for name in ("a1", "a2"):
            await course.start_agent(name, slots=SLOTS)
        # Half of them end while nobody listens, half of them when there is a broker again.
        await course.submit([1.0, 1.0, 5.0, 5.0] * (SLOTS // 2))
        for name in ("a1", "a2"):
            await course.begun(name, SLOTS)
        with course.during("kill", "broker"):
            await course.mesh.broker.kill()

            async def half_ended() -> bool:
                return sum((entry.op, entry.phase) == ("run", "ok") for entry in course.entries()) >= SLOTS

            await until(half_ended, "half of the jobs have ended")
            await course.mesh.start_broker()
        findings = await course.judge()

        assert findings.wrong() == {}
        [kill] = findings.faults
        assert kill.in_flight == 2 * SLOTS
        assert [(job.state, job.attempt) for job in course.jobs] == [("succeeded", 1)] * 2 * SLOTS
        while_away = [
            entry
            for entry in course.entries()
            if (entry.op, entry.phase) == ("run", "ok") and kill.t < entry.t < kill.until
        ]
        assert SLOTS <= len(while_away) < 2 * SLOTS
