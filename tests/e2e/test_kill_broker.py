"""A short run against a broker that is killed, and the negative control: the checker does find a lost job."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.meta.check import ROOT
from tests.meta.schemas import validate

pytestmark = pytest.mark.e2e

KILLS = 2


def run_kills(*arguments: str, sabotage: str = "") -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    # How long a start takes is for benchmarks: here the machine may be busy with other things.
    patient = ("--ready-max", "60")
    command = [sys.executable, "-m", "tests.e2e.kill_broker", "--json", "--seed", "7", *patient, *arguments]
    environment = {**os.environ, "MESH_SABOTAGE": sabotage}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    validate("kill_broker", found)
    return done, found


def test_broker_keeps_every_acknowledged_job_when_it_is_killed_under_load() -> None:
    done, found = run_kills("--kills", str(KILLS), "--rate", "200")

    assert done.returncode == 0, done.stderr
    assert found["kills_fired"] == len(found["ready_s"]) == KILLS
    assert all(held > 0 for held in found["in_flight_at_kill"])
    assert found["acknowledged"] == found["final"] > 0
    assert not any(found[name] for name in ("lost", "double", "phantom", "needless_reruns", "ran_twice"))


def test_run_fails_when_a_job_was_acknowledged_that_never_was() -> None:
    done, found = run_kills("--kills", "1", "--rate", "50", sabotage="forget-ack")

    assert done.returncode == 1
    assert found["lost"] == 1
    assert found["acknowledged"] == found["final"] + 1
