"""What an agent that never reads costs the others: what it was sent comes back, and its memory is bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e import deaf
from tests.e2e.course import Course, until
from tests.e2e.deaf import DeafAgent
from tests.e2e.page import rss_kib
from tests.e2e.stored import percentile_s

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

SLOTS = 16
RATE = 60.0
CAPACITY = 256
PAYLOAD_BYTES = 32 << 10
RSS_MORE_MIB = 64.0
"""Four times what the deaf agent can be sent, and what Python does not give back of it."""
LATE_S = 10.0
"""Generous: the acceptance timeout is 1 s, and the machine may be busy with other things. Figures are printed."""


async def test_agent_that_never_reads_holds_up_nobody_else(tmp_path: Path) -> None:
    async with Course(tmp_path) as course:
        for name in ("a1", "a2"):
            await course.start_agent(name, slots=SLOTS)
        pid = course.mesh.broker.pid
        async with course.load(rate=RATE, payload_bytes=PAYLOAD_BYTES) as load:
            await load.until_acknowledged(120)
            before_mib = rss_kib(pid) / 1024
            async with DeafAgent(course.mesh.addresses.mesh, capacity=CAPACITY) as agent:
                await course.agent_is(deaf.NAME, "active")
                await load.until_acknowledged(180)

                async def found_out() -> bool:
                    return not (await course.client.explain_agent("default", deaf.NAME)).placeable

                await until(found_out, "the agent is given nothing more")
                await load.until_acknowledged(120)
                await agent.chatter()
                await course.agent_is(deaf.NAME, "no_response")
                after_mib = rss_kib(pid) / 1024
            await load.until_acknowledged(60)
        findings = await course.judge()

        assert findings.wrong() == {}
        hit = [job for job in course.jobs if any(one.agent == deaf.NAME for one in job.attempts)]
        others = [job for job in course.jobs if job not in hit]
        assert hit, "it was sent jobs"
        assert {job.attempts[-1].agent for job in course.jobs} == {"a1", "a2"}
        assert {one.ending for job in hit for one in job.attempts if one.agent == deaf.NAME} == {"accept_timeout"}
        hit_s, others_s = percentile_s(hit, 0.99), percentile_s(others, 0.99)
        print(
            f"{len(hit)} jobs were sent to the deaf agent, p99 {hit_s:.3f} s; {len(others)} others p99 "
            f"{others_s:.3f} s; broker {before_mib:.0f} MiB before, {after_mib:.0f} MiB after "
            f"{agent.frames_written} frames of reports"
        )
        assert others_s < LATE_S
        assert hit_s < LATE_S
        assert after_mib - before_mib < RSS_MORE_MIB
