"""An hour of agents that come and go."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.endurance import Endurance, Sample

HOUR_S = 3_600.0
AGED_S = 300.0
"""In which as many come and go as in five hours."""
SLOPE_MAX_MIB_PER_H = 1.0


@pytest.mark.soak
@pytest.mark.e2e
async def test_broker_keeps_nothing_of_agents_that_come_and_go_for_an_hour(tmp_path: Path) -> None:
    endurance = Endurance(tmp_path, seconds=HOUR_S, seed=3, warm_up_s=AGED_S)

    findings = await endurance.run()

    assert findings.wrong() == {}
    assert endurance.resets > 500
    assert endurance.leaks(1_024 * SLOPE_MAX_MIB_PER_H) == []
    assert endurance.slope_mib_per_h < SLOPE_MAX_MIB_PER_H


@pytest.mark.parametrize(("step_kib", "files", "count"), [(0, 0, 0), (100, 0, 1), (100, 2, 2)])
def test_endurance_names_what_grew(tmp_path: Path, step_kib: int, files: int, count: int) -> None:
    endurance = Endurance(tmp_path, seconds=1.0, seed=1)

    endurance.samples = [Sample(5.0 * at, 50_000 + step_kib * at, 30 + files * at) for at in range(20)]

    assert len(endurance.leaks(1_000)) == count
    assert endurance.growth_kib == 18 * step_kib
    assert endurance.slope_mib_per_h == pytest.approx(step_kib / 1_024 * 720)
