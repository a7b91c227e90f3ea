"""Five hundred agents lose their broker at once: all of them come back, and the work goes on."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.meta.check import ROOT
from tests.meta.schemas import validate

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(300)]

AGENTS = 500
KIB_MAX = 1_024.0


def test_five_hundred_agents_come_back_to_a_broker_that_was_restarted() -> None:
    command = [sys.executable, "-m", "tests.e2e.herd", "--agents", str(AGENTS), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    print(done.stderr, done.stdout)
    found = json.loads(done.stdout)
    validate("herd", found)
    assert found["agents"] == AGENTS
    assert found["restart"]["falsely_dead"] == 0
    assert found["jobs"]["acknowledged"] == found["jobs"]["final"]
    assert found["jobs"]["acknowledged_meanwhile"] > 0
    assert not any(found["jobs"][name] for name in ("lost", "double", "wasted"))
    assert found["kib_per_agent"]["broker"] < KIB_MAX
