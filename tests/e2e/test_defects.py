"""Negative controls: a broker with a deliberate defect is caught by the checker, under the fault that shows it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.e2e.course import Course, until
from tests.e2e.load import Load
from tests.e2e.proxy import Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLOTS = 8
LONG_BEGUN_S = 0.3
RATE = 60.0


async def kill_broker(course: Course, load: Load) -> None:
    """Under load, then start it again."""
    await load.until_acknowledged(60)
    with course.during("kill", "broker"):
        await course.mesh.broker.kill()
        await course.mesh.start_broker()
    await load.until_acknowledged(30)


async def freeze_agent(course: Course, load: Load) -> None:
    """For longer than its lease, with work that ends meanwhile."""
    await course.submit([1.5] * 2 * SLOTS)
    await course.running(SLOTS + SLOTS // 2)  # at least half of what a1 has room for is long
    await asyncio.sleep(LONG_BEGUN_S)  # a handler that has not looked at the clock yet would begin after the freeze
    with course.during("freeze", "a1"):
        course.mesh.agents["a1"].signal(signal.SIGSTOP)
        await course.agent_is("a1", "no_response")
        begun = len([entry for entry in course.entries() if entry.op == "run" and not entry.key.endswith("/1")])

        async def again() -> bool:
            runs = [entry for entry in course.entries() if entry.op == "run" and not entry.key.endswith("/1")]
            return len(runs) > begun

        await until(again, "what a1 holds has begun elsewhere")
        course.mesh.agents["a1"].signal(signal.SIGCONT)
    await load.until_acknowledged(30)


async def break_connection(course: Course, load: Load) -> None:
    """Of an agent with work in hand, which comes back at once."""
    async with Proxy(course.mesh.addresses.mesh) as proxy:
        await course.start_agent("a3", slots=SLOTS, broker=proxy.address)
        await course.submit([3.0] * 3 * SLOTS)
        await course.begun("a3", SLOTS)
        with course.during("stall", "a3"):
            proxy.reset()

            async def is_back() -> bool:
                return sum((entry.op, entry.key) == ("session", "a3") for entry in course.entries()) > 1

            await until(is_back, "a3 has a new session")
        await load.until_acknowledged(30)
        await course.mesh.agents["a3"].stop()  # while there is a way to its broker


@pytest.mark.parametrize(
    ("defect", "fault", "names"),
    [
        ("ack-before-commit", kill_broker, {"lost"}),
        ("no-fencing", freeze_agent, {"unfenced", "double"}),
        ("no-reconciliation", break_connection, {"wasted"}),
        ("counts-most", kill_broker, {"counters"}),
    ],
)
async def test_checker_catches_a_broker_with_a_defect(
    tmp_path: Path, defect: str, fault: Callable[[Course, Load], Awaitable[None]], names: set[str]
) -> None:
    program = ("-m", "tests.e2e.defects", defect)
    async with Course(tmp_path, broker_program=program) as course:
        for name in ("a1", "a2"):
            await course.start_agent(name, slots=SLOTS)
        async with course.load(rate=RATE) as load:
            await fault(course, load)
        findings = await course.judge()

    assert findings.faults[0].in_flight > 0
    assert names <= findings.wrong().keys(), findings.wrong()
