"""What a live broker did under load, with an agent and itself killed, is what its dispatcher does again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.course import FAST, Course
from tests.meta.check import ROOT
from tests.meta.schemas import validate

pytestmark = pytest.mark.e2e

JOURNAL = {**FAST, "MESH_JOURNAL__ENABLED": "true"}


def replayed(folder: Path) -> tuple[dict[str, Any], str]:
    """What `mesh-sim replay` says on stdout and stderr; it must be content."""
    code = "import sys; from simulator.cli import main; sys.argv[0] = 'mesh-sim'; main()"
    command = [sys.executable, "-c", code, "replay", str(folder), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    validate("replay", found)
    return found, done.stderr


async def test_journal_of_a_broker_under_load_is_replayed_without_a_difference(tmp_path: Path) -> None:
    async with Course(tmp_path, settings=JOURNAL) as course:
        for name in ("a1", "a2", "a3"):
            await course.start_agent(name, slots=4)
        async with course.load(rate=150) as load:
            await load.until_acknowledged(150)
            with course.during("kill", "a1"):
                await course.mesh.agents["a1"].kill()
            await load.until_acknowledged(150)
            with course.during("kill", "broker"):
                await course.mesh.broker.kill()
            await course.mesh.start_broker()
            await load.until_acknowledged(150)
        findings = await course.judge()
        folder = course.mesh.data / "journal"
    assert findings.lost == []
    found, said = replayed(folder)
    assert (found["differing"], found["segments"]) == (0, 2)
    assert found["events"] > 3 * findings.final
    assert found["effects"] > found["events"]
    assert "000000001.journal: " in said  # that one was killed: it has no end, or is cut short
