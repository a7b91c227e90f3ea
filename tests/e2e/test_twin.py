"""The same scenario by real processes and simulated; a live broker's history and journal as answers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mesh_client import MeshClient
from mesh_client.loopback import Mesh, Process
from simulator.profile import Profile, text_of
from tests.meta.check import ROOT
from tests.meta.schemas import validate
from tests.simulator.test_profile import live

pytestmark = pytest.mark.e2e

SCENARIO = """
name: short twin
horizon: {settle: 1 s, run: 6 s, finish: 1 min}
groups:
  erp:
    policy: round-robin
    agents: {count: 3, slots: 20, spread: [zone-a, zone-b, zone-c]}
work:
  orders:
    group: erp
    arrivals: {poisson: 40/s}
    duration: {exponential: 500 ms}
faults:
  - {at: 3 s, zone-down: zone-b, for: 3 s}
"""
JOBS = 60
PROGRAM = "import sys; from simulator.cli import main; sys.argv[0] = 'mesh-sim'; main()"


async def mesh_sim(*arguments: str, codes: tuple[int, ...] = (0,)) -> tuple[dict[str, Any], str]:
    """What `mesh-sim ... --json` says on standard output and standard error, without holding up this loop."""
    command = [sys.executable, "-c", PROGRAM, *arguments, "--json"]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode in codes, done.stdout + done.stderr
    return json.loads(done.stdout or "{}"), done.stderr


@pytest.mark.slow
async def test_scenario_is_played_by_real_processes_and_compared_with_its_simulation(tmp_path: Path) -> None:
    file, profile = tmp_path / "short.yaml", tmp_path / "profile.yaml"
    file.write_text(SCENARIO)
    measured, _ = await mesh_sim("calibrate", str(profile), "--rate", "40", "--seconds", "2")
    validate("calibrate", measured)
    assert measured["seconds"]["costs.turn"] > 0
    assert measured["seconds"]["commit.mean"] > 0

    # A busy machine may miss a bar: that is no fault of the program.
    twin, _ = await mesh_sim("emulate", str(file), "--profile", str(profile), codes=(0, 3))

    validate("emulate", twin)
    assert twin["calibrated_on"] != twin["evaluated_on"]
    figures = twin["figures"]
    assert figures["orders.latency.mean"]["real_n"] > 120
    assert figures["orders.throughput"]["error"] == pytest.approx(0, abs=0.2)
    failover = figures["failover.restart.mean"]
    assert failover["real_n"] >= 2
    assert 2 <= failover["simulated"] < 3
    assert 2 <= failover["real"] < 10


async def test_scenario_that_cannot_be_played_starts_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cut.yaml"
    file.write_text(SCENARIO.replace("zone-down: zone-b", "partition: zone-b"))

    _, said = await mesh_sim("emulate", str(file), codes=(2,))

    assert "fault 1 (partition zone-b): only what can be done to a process" in said


async def test_emulation_that_is_told_to_end_leaves_no_process(tmp_path: Path) -> None:
    file, profile = tmp_path / "short.yaml", tmp_path / "profile.yaml"
    file.write_text(SCENARIO)
    profile.write_text(text_of(Profile(live=live())))
    twin = Process(
        "mesh-sim",
        ["-c", PROGRAM, "emulate", str(file), "--profile", str(profile)],
        environment={"TMPDIR": str(tmp_path), "PYTHONPATH": str(ROOT)},
    )
    await twin.start()
    await twin.said("agents run")
    assert started_in(tmp_path)

    assert await twin.stop(60) == 4
    assert started_in(tmp_path) == []


def started_in(folder: Path) -> list[str]:
    """Processes that name the temporary folder of a twin in `folder`."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            line = (process / "cmdline").read_bytes().decode(errors="replace")
            found += [line] if f"{folder}/mesh-twin-" in line else []
    return found


async def test_live_brokers_history_and_journal_tell_what_was_and_what_would_have_been(tmp_path: Path) -> None:
    profile = tmp_path / "profile.yaml"
    async with Mesh(tmp_path / "broker", settings={"MESH_JOURNAL__ENABLED": "true"}) as mesh:
        await mesh.start_broker()
        await mesh.start_agent("only", slots=2)
        async with MeshClient(mesh.addresses.api) as client:
            jobs = [await client.submit("sleep", json={"seconds": 0.05}) for _ in range(JOBS)]
            await client.wait([job.job_id for job in jobs], timeout_s=60)
        found, _ = await mesh_sim("calibrate", str(profile), "--history", mesh.addresses.api)
        await mesh.stop()
    validate("calibrate", found)
    assert found["work"]["sleep"]["jobs"] == JOBS
    assert 0.05 <= found["work"]["sleep"]["median_s"] < 1

    replayed, _ = await mesh_sim("replay", str(tmp_path / "broker" / "journal"), "--with", "agents=+2")

    validate("replay", replayed)
    assert replayed["differing"] == 0
    figures = replayed["counterfactual"]["figures"]
    assert figures["sleep.jobs"] == {"was": JOBS, "simulated": JOBS, "would": JOBS}
    waits = figures["sleep.wait.mean"]
    assert waits["would"] < waits["simulated"]
    assert waits["would"] < waits["was"]
    assert waits["simulated"] == pytest.approx(waits["was"], rel=0.5)
