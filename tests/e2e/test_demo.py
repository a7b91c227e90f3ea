"""The demonstration as a stranger runs it: it shows what it promises, and each sabotage turns it red."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.meta.check import ROOT
from tests.meta.schemas import validate

pytestmark = pytest.mark.e2e


def run_demo(*arguments: str, sabotage: str = "", temporary: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MESH_SABOTAGE": sabotage}
    if temporary is not None:
        environment["TMPDIR"] = str(temporary)
    command = [sys.executable, "-m", "tests.e2e.demo", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def report_of(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(done.stdout)
    validate("demo", report)
    return report


def test_demo_shows_that_nothing_is_lost_when_broker_and_agent_are_killed(tmp_path: Path) -> None:
    done = run_demo("--json", temporary=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "Nothing was lost." in done.stderr
    report = report_of(done)
    assert report["ok"]
    assert report["rows"]["target"] == report["rows"]["expected"] == 20_000
    assert report["sums"]["source"] == report["sums"]["target"]
    assert report["jobs"]["succeeded"] == report["jobs"]["submitted"] == 400
    assert report["faults"]["broker_kill"]["held"] > 0
    [killed] = [agent for agent in report["agents"] if agent["killed"]]
    assert report["attempts"]["rerun"] >= killed["held_when_killed"] > 0
    assert list(tmp_path.iterdir()) == [], "the demonstration left files behind"


@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        ("drop-row", "1 missing"),
        ("double-row", "1 twice"),
        ("no-kill", "the broker was never killed"),
    ],
)
def test_demo_fails_and_says_why_when_sabotaged(sabotage: str, words: str) -> None:
    done = run_demo("--json", sabotage=sabotage)

    assert done.returncode == 1, done.stderr
    assert words in done.stderr
    assert not report_of(done)["ok"]


def test_demo_refuses_a_directory_with_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("mine\n")

    done = run_demo("--keep", str(tmp_path))

    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert (tmp_path / "orders.csv").read_text() == "mine\n"


def test_demo_refuses_a_sabotage_that_it_does_not_know() -> None:
    done = run_demo(sabotage="drop-everything")

    assert done.returncode == 2
    assert "drop-row" in done.stderr
