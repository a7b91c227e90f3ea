"""The demonstration as a stranger runs it: it shows what it promises, and each sabotage turns it red."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from mesh_client import SyncMeshClient
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
    assert killed["returned"]
    assert [agent["name"] for agent in report["agents"] if agent["drained"]] == ["a3"]
    assert report["faults"]["drain"]["held"] > 0 == report["faults"]["drain"]["cut_off"]
    assert list(tmp_path.iterdir()) == [], "the demonstration left files behind"


@pytest.mark.parametrize(
    ("sabotage", "words"),
    [
        ("drop-row", "1 missing"),
        ("double-row", "1 twice"),
        ("no-kill", "no agent was killed"),
    ],
)
def test_demo_fails_and_says_why_when_sabotaged(sabotage: str, words: str) -> None:
    done = run_demo("--json", sabotage=sabotage)

    assert done.returncode == 1, done.stderr
    assert words in done.stderr
    assert not report_of(done)["ok"]


def test_demo_refuses_a_directory_with_files_of_others(tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_text("mine\n")

    done = run_demo("--files", str(tmp_path))

    assert done.returncode == 2
    assert "is not empty" in done.stderr
    assert (tmp_path / "orders.csv").read_text() == "mine\n"


def test_demo_leaves_the_mesh_running_when_asked(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.e2e.demo", "--keep"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        said: list[str] = []
        for line in demo.stderr:
            said.append(line)
            if "Ctrl-C ends it" in line:
                break
        text = "".join(said)
        assert "Nothing was lost." in text
        [api] = re.findall(r"MESH_API=(\S+)", text)
        [metrics] = re.findall(r"http://(\S+)/metrics", text)
        with SyncMeshClient(api) as client:
            assert [agent.status for agent in client.list_agents()] == ["active"] * 3
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=10) as page:
            assert b"mesh_jobs_submitted_total" in page.read()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(30) == 0
    assert list(tmp_path.iterdir()) == []


def test_demo_refuses_a_sabotage_that_it_does_not_know() -> None:
    done = run_demo(sabotage="drop-everything")

    assert done.returncode == 2
    assert "drop-row" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_demo_ends_all_that_it_started_when_it_is_told_to_leave(number: signal.Signals, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.e2e.demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        assert any("one broker, agents" in line for line in demo.stderr)
        assert len(processes_of(tmp_path)) == 4, "a broker and three agents"
        demo.send_signal(number)
        demo.stderr.read()
        code = demo.wait(30)
    left = processes_of(tmp_path)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []
    assert code != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with the one that started it")
def test_nothing_that_the_demo_started_outlives_it_when_it_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.e2e.demo"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        assert any("one broker, agents" in line for line in demo.stderr)
        started = {pid: os.pidfd_open(pid) for pid in processes_of(tmp_path)}
        demo.kill()
    assert len(started) == 4, "a broker and three agents"
    left = []
    for pid, handle in started.items():
        if not select.select([handle], [], [], 20)[0]:  # readable when the process has ended
            left.append(pid)
            os.kill(pid, signal.SIGKILL)
        os.close(handle)
    assert left == []


def processes_of(folder: Path) -> list[int]:
    """Processes that have files of the folder on their command lines."""
    found: list[int] = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has just ended
            if os.fsencode(folder) in (process / "cmdline").read_bytes():
                found.append(int(process.name))
    return found
