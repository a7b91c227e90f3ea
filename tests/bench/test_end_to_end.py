from __future__ import annotations

from typing import Any

import pytest

from bench.end_to_end import AGENTS, WARM_UP_JOBS, flood_round, open_loop

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
