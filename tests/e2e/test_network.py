"""What a bad network does between an agent and its broker: stalls, cuts and resets, under load, through a relay."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.course import FAST, Course, until
from tests.e2e.history import attempt_key
from tests.e2e.proxy import BOTH, Direction, Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLOTS = 4
RATE = 60.0
# Suspicion comes soon, the lease has time left then; acceptances may be as late as the network makes them.
PATIENT = FAST | {
    "MESH_DISPATCH__LEASE_S": "15",
    "MESH_DISPATCH__MARGIN_S": "3",
    "MESH_DISPATCH__ACCEPT_TIMEOUT_S": "14",
    "MESH_DISPATCH__RECOVERY_GRACE_S": "25",
    "MESH_DISPATCH__RECONNECT_GRACE_S": "10",
}


@asynccontextmanager
async def behind_proxy(folder: Path, settings: dict[str, str]) -> AsyncIterator[tuple[Course, Proxy]]:
    """A broker, and an agent a1 that reaches it through the proxy only."""
    async with Course(folder, settings=settings) as course, Proxy(course.mesh.addresses.mesh) as proxy:
        await course.start_agent("a1", slots=SLOTS, broker=proxy.address)
        yield course, proxy


@pytest.mark.parametrize("directions", [BOTH, *((one,) for one in Direction)], ids="-".join)
async def test_stall_that_is_shorter_than_the_lease_runs_nothing_again(
    tmp_path: Path, directions: tuple[Direction, ...]
) -> None:
    async with behind_proxy(tmp_path, PATIENT) as (course, proxy):
        await course.start_agent("a2", slots=2 * SLOTS)
        async with course.load(rate=RATE) as load:
            await load.until_acknowledged(30)
            await course.submit([1.0] * 3 * SLOTS)  # a stall would hit nothing between two short jobs
            await course.begun("a2", 1)
            with course.during("stall", "a1"):
                proxy.stall(*directions)

                async def all_ended() -> bool:
                    """Nothing that a1 had runs any more, and the broker has not answered the last of it."""
                    mine = [entry for entry in course.entries() if entry.process == "a1"]
                    begun, ended, answered = (
                        {entry.key for entry in mine if entry.op == op and (entry.phase == "invoke") is is_begin}
                        for op, is_begin in (("run", True), ("run", False), ("outcome", False))
                    )
                    return begun == ended and len(ended - answered) >= SLOTS // 2

                await until(all_ended, "outcomes of a1 wait for the network")
                if Direction.TO_BROKER in directions:
                    await course.agent_is("a1", "no_response")
                proxy.flow()
                await course.agent_is("a1", "active")
            await load.until_acknowledged(60)
        findings = await course.judge()

        assert findings.wrong() == {}
        [stall] = findings.faults
        assert stall.in_flight > 0
        assert findings.stale_refused == 0
        assert {job.attempt for job in course.jobs} == {1}
        after = [entry for entry in course.entries() if entry.process == "a1" and entry.t > stall.until]
        assert any(entry.op == "run" for entry in after), "a1 works again"


async def test_stall_that_is_longer_than_the_lease_runs_what_it_hit_once_more_and_counts_it_once(
    tmp_path: Path,
) -> None:
    async with behind_proxy(tmp_path, FAST) as (course, proxy):
        # Half of them end while the network stalls: their outcomes come too late. The others are stopped.
        await course.submit([1.0, 5.0] * (SLOTS // 2))
        held = [run.key for run in await course.begun("a1", SLOTS)]
        again = {attempt_key(int(key.partition("/")[0]), 2) for key in held}
        async with course.load(rate=RATE) as load:
            with course.during("cut", "a1"):
                proxy.stall()
                await course.start_agent("a2", slots=4 * SLOTS)

                async def all_again() -> bool:
                    return again <= {entry.key for entry in course.entries() if entry.process == "a2"}

                await until(all_again, "what a1 holds has begun elsewhere")
                proxy.flow()
                await course.agent_is("a1", "active")
            await load.until_acknowledged(60)
        findings = await course.judge()

        assert findings.wrong() == {}
        [cut] = findings.faults
        assert cut.in_flight >= SLOTS
        assert {job.attempt for job in course.jobs if attempt_key(job.job_key, 1) in held} == {2}
        assert findings.stale_refused >= SLOTS // 2


BREAKS: dict[str, Callable[[Proxy], object]] = {
    "reset": lambda proxy: proxy.reset(),
    "cut": lambda proxy: proxy.cut(),
    "cut_to_broker": lambda proxy: proxy.cut(Direction.TO_BROKER),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
async def test_connection_that_breaks_and_comes_back_within_the_grace_runs_nothing_again(
    tmp_path: Path, fault: Callable[[Proxy], object]
) -> None:
    async with behind_proxy(tmp_path, PATIENT) as (course, proxy):
        async with course.load(rate=RATE) as load:
            for _ in range(3):
                await load.until_acknowledged(20)
                with course.during("stall", "a1"):
                    sessions = len([entry for entry in course.entries() if entry.op == "session"])
                    fault(proxy)
                    proxy.heal()

                    async def is_back(sessions: int = sessions) -> bool:
                        return len([entry for entry in course.entries() if entry.op == "session"]) > sessions

                    await until(is_back, "a1 has a new session")
        findings = await course.judge()

        assert findings.wrong() == {}
        assert len(findings.faults) == 3
        assert max(fault.in_flight for fault in findings.faults) > 0
        # What was on its way when the connection broke has never begun: that may be given out again.
        assert {one.ending for job in course.jobs for one in job.attempts[:-1]} <= {"lost", "not_listed"}
