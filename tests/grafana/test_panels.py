"""Every panel of every dashboard, asked of a real Prometheus that has watched a real fleet in trouble."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from broker import series
from tests.grafana.fleet import SLOTS, fleet
from tests.grafana.panels import ALLOWED_EMPTY, execute, filled, queries
from tests.meta.check import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.mark.system("prometheus")
async def test_every_panel_has_data_of_a_fleet_that_lost_an_agent(tmp_path: Path) -> None:
    async with fleet(tmp_path) as running:
        await running.seen()
        executed = await execute(running.prometheus)

        assert executed.errors == []
        assert executed.queries == len(list(queries())) > 40
        assert [panel for panel in executed.empty if panel not in ALLOWED_EMPTY] == []
        # Data alone may be zeros: what happened is seen as what it is.
        for expression, least in (
            (f'max({series.AGENTS.name}{{status="active"}})', 3),
            (f'max({series.AGENTS.name}{{status="no_response"}})', 2),
            (f"max({series.SLOTS.name})", 3 * SLOTS),
            (f"max({series.ATTEMPTS_HELD.name})", 3 * SLOTS),
            (f"max({series.EVENNESS.name})", 0.95),
            (f"sum(rate({series.JOBS_FINISHED.name}[$__rate_interval]))", 1),
            (f'sum({series.JOBS_RETURNED.name}{{reason="agent_lost"}})', SLOTS),
            (f'sum({series.SUBMISSIONS_REFUSED.name}{{reason="IDEMPOTENCY_KEY_REUSED"}})', 1),
        ):
            assert max(await running.prometheus.history(filled(expression))) >= least, expression


@pytest.mark.system("promtool")
def test_example_configuration_is_one_that_prometheus_takes() -> None:
    command = ["promtool", "check", "config", str(ROOT / "grafana/prometheus.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
