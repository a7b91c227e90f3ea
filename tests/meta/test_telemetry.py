"""The reference of the metrics, the definitions and a live broker say the same; the command finds out if not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.app import Broker
from tests.broker.running import http, settings_of
from tests.grafana.panels import Executed
from tests.meta import telemetry
from tests.meta.check import ROOT
from tests.meta.schemas import validate
from tests.meta.telemetry import REFERENCE, Documented, Watched, documented, expected, exposed, told

TABLE = """\
| series | type | labels | what it says | what to do with it |
|---|---|---|---|---|
| `mesh_one_total` | counter | `group`, `state` | something | nothing |
| `mesh_two` | gauge | | something else | look |
"""


def test_rows_of_the_reference_are_read() -> None:
    assert documented(TABLE) == [
        Documented("mesh_one_total", "counter", ("group", "state")),
        Documented("mesh_two", "gauge", ()),
    ]


def test_reference_has_every_series_with_its_type_and_labels() -> None:
    rows = documented(REFERENCE.read_text(encoding="utf-8"))
    assert sorted(rows) == sorted(expected())


async def test_reference_has_every_series_of_a_live_broker(tmp_path: Path) -> None:
    async with Broker(settings_of(tmp_path)) as broker:
        _, _, page = await http(broker.metrics_address, "/metrics")
    assert exposed(page) == {row.name: row.type for row in documented(REFERENCE.read_text(encoding="utf-8"))}


def test_report_names_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    cost = {"page_ms": 9.0, "snapshot_ms": 99.0, "bytes": 1.0, "count_us_per_job": 0.4}
    monkeypatch.setattr(telemetry, "measure", lambda agents, queued: cost)
    page = "# TYPE mesh_strange gauge\nmesh_strange 1.0\nmesh_sessions 3.0\n"
    result = telemetry.report(Watched(Executed(2, ["fleet: Waiting: no"], ["fleet: Store"]), page))
    validate("telemetry", result)
    wrong = "\n".join(telemetry.complaints(result))
    for words in (
        "a query fails: fleet: Waiting: no",
        "no data: fleet: Store",
        "told and not documented: mesh_strange",
        "documented and never told: mesh_commits_total",
        "stops the event loop for 99.0 ms",
    ):
        assert words in wrong
    assert "mesh_sessions" not in wrong


def test_histograms_are_told_by_their_buckets() -> None:
    assert {"mesh_job_wait_seconds", "mesh_sessions"} <= told(
        'mesh_job_wait_seconds_sum{a="b"} 1.0\nmesh_sessions 3.0\n'
    )


def run_telemetry(sabotage: str) -> tuple[int, dict[str, Any]]:
    environment = {**os.environ, "MESH_SABOTAGE": sabotage}
    command = [sys.executable, "-m", "tests.meta.telemetry", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    validate("telemetry", found)
    return done.returncode, found


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.system("prometheus")
def test_telemetry_finds_the_panel_without_data_and_nothing_else_wrong() -> None:
    code, found = run_telemetry("dead-panel")
    assert code == 1
    assert [one["panel"] for one in found["empty"]] == ["fleet: Finished"]
    assert found["executed"] >= found["panels"] > 30
    assert found["errors"] == found["metrics"]["undocumented"] == found["metrics"]["dead"] == []


def test_telemetry_refuses_a_sabotage_that_there_is_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MESH_SABOTAGE", "nothing-like-it")
    assert telemetry.main([]) == 2
    assert "dead-panel" in capsys.readouterr().err


@pytest.mark.parametrize(("ci", "code"), [("true", 1), ("", 0)])
def test_telemetry_without_prometheus_says_so_and_is_an_error_on_ci(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: str, code: int
) -> None:
    monkeypatch.delenv("MESH_SABOTAGE", raising=False)
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", ci)
    assert telemetry.main([]) == code
    assert "prometheus is not installed" in capsys.readouterr().err
