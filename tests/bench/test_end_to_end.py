from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from bench.end_to_end import AGENTS, WARM_UP_JOBS, Site, flood_round, open_loop

pytestmark = pytest.mark.e2e


async def test_flood_measures_a_whole_mesh() -> None:
    measured = await flood_round(WARM_UP_JOBS, is_durable=True)

    assert measured.jobs_per_s == pytest.approx(WARM_UP_JOBS / measured.seconds)
    assert 0 < measured.commits <= 2 * WARM_UP_JOBS
    assert 1 / len(AGENTS) <= measured.jain <= 1.0
    assert min(measured.broker_us, measured.agents_us, measured.client_us) > 0


async def test_open_loop_sees_the_outcome_of_every_job() -> None:
    measured: dict[str, Any] = await open_loop(rate=100.0, seconds=1.0)

    assert measured["p50_ms"]["value"] <= measured["p99_ms"]["value"] <= measured["p999_ms"]["value"]


@pytest.mark.parametrize("has_own_core", [True, False])
async def test_site_keeps_agents_off_the_brokers_core(tmp_path: Path, has_own_core: bool) -> None:
    cores = os.sched_getaffinity(0)
    site = Site(tmp_path, "FULL", None, has_own_core=has_own_core)
    async with site.mesh:
        await site.start()
        at_broker = os.sched_getaffinity(site.mesh.broker.pid)
        at_agents = [os.sched_getaffinity(agent.pid) for agent in site.mesh.agents.values()]
        await site.mesh.stop()

    is_split = has_own_core and len(cores) > 1
    assert len(at_broker) == (1 if is_split else len(cores))
    assert all(each == (cores - at_broker if is_split else cores) for each in at_agents)
