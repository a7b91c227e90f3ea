from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from broker.cli import main
from mesh_client.loopback import Mesh
from tests.meta.check import ROOT


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--dev", "--api-listen", "0.0.0.0:7402"], "refused on any address but loopback"),
        (["--dev", "--mesh-listen", "here"], "'here' is not HOST:PORT"),
        (["--dev", "--log-level", "loud"], "log_level = 'loud'"),
        (["--dev", "--config", "/nowhere/mesh.toml"], "does not exist"),
    ],
)
def test_serve_refuses_settings_that_cannot_work(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 2
    written = capsys.readouterr().err
    assert written.startswith("mesh: ")
    assert words in written


def test_serve_takes_flags_over_the_environment_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "mesh.toml"
    config.write_text('api_listen = "from-file"\nmesh_listen = "from-file"\nmetrics_listen = "from-file"')
    monkeypatch.setenv("MESH_API_LISTEN", "from-environment")
    monkeypatch.setenv("MESH_MESH_LISTEN", "from-environment")
    assert main(["serve", "--dev", "--config", str(config), "--api-listen", "from-flag"]) == 2
    lines = capsys.readouterr().err.removeprefix("mesh: ").splitlines()
    assert [line.partition(" is not")[0] for line in lines] == [
        "mesh_listen: 'from-environment'",
        "api_listen: 'from-flag'",
        "metrics_listen: 'from-file'",
    ]


@pytest.mark.e2e
async def test_served_broker_runs_a_job_of_the_command_line(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        await mesh.start_broker()
        await mesh.start_agent("a1", slots=1)
        options = ["--payload", '{"n": 1}', "--json", "--wait", "-o", "json", "--api", mesh.addresses.api]
        command = [sys.executable, "-m", "broker.cli", "jobs", "submit", "echo", *options]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: ASYNC221
        assert done.returncode == 0, done.stderr
        job = json.loads(done.stdout)
        assert (job["state"], job["agent"]) == ("succeeded", "a1")
        assert await mesh.agents["a1"].stop() == 0
        assert await mesh.broker.stop() == 0
