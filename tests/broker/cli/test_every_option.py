"""No command answers with a traceback, whatever stands behind whichever of its options."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.cli import app, main
from mesh_client import SyncMeshClient
from tests.broker.cli.live import live_broker
from tests.meta.check import ROOT
from tests.odd import ODD, Command, commands

ASKING = ("agents", "environments", "groups", "jobs", "organizations")
ACCESS = ("--api", "--organization", "--api-timeout", "--output")
VALUES = 6
"""Odd values for every option of every command; those of `ACCESS`, which all commands share, get all of them once."""
COMMANDS = [command for command in commands(app) if command.path not in (("serve",), ("demo",))]
USUAL = {"DECISION": "retry", "SHELL": "bash", "OPERATION": "echo", "FILE": "mesh.toml"}


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Words that make sense, and a broker that has what they name."""
    with pytest.MonkeyPatch.context() as patch, live_broker(tmp_path_factory.mktemp("broker")) as broker:
        patch.setenv("MESH_API", broker.api_address)
        with SyncMeshClient(broker.api_address) as client:
            client.create_organization("o1")
            client.create_group("g1")
            client.create_environment("e1", groups=["g1"])
            client.create_agent("default", "a1")
            job_id = client.submit("echo").job_id
        yield {**USUAL, "AGENT": "a1", "GROUP": "g1", "ENVIRONMENT": "e1", "ORGANIZATION": "o1", "JOB_ID": job_id}


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SHELL", "/bin/bash")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))


def refused_badly(lines: Iterator[list[str]], capsys: pytest.CaptureFixture[str]) -> list[tuple[list[str], object]]:
    """Command lines that ended in another way than they should, and how."""
    bad: list[tuple[list[str], object]] = []
    for line in lines:
        capsys.readouterr()
        try:
            code = main(line)
        except Exception as error:  # noqa: BLE001 - what is looked for
            bad.append((line, error))
            continue
        if code not in (0, 2, 3, 4, 5, 6) or (code and not capsys.readouterr().err.startswith("mesh: ")):
            bad.append((line, code))
    return bad


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command.path))
def test_command_refuses_in_words_when_a_value_is_odd(
    command: Command, usual: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    sure = ["--yes"] if any(place.name == "--yes" for place in command.places) else []
    quick = ["--api-timeout=5"] if command.path[0] in ASKING else []
    lines = (
        [*command.path, *sure, *quick, *line[len(command.path) :]]
        for line in command.lines(usual, VALUES, without=(*ACCESS, "--yes"))
    )
    assert refused_badly(lines, capsys) == []


@pytest.mark.parametrize("option", ACCESS)
@pytest.mark.usefixtures("usual")
def test_option_of_every_command_is_refused_in_words_when_it_is_odd(
    option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = [] if option == "--api-timeout" else ["--api-timeout=0.2"]
    lines = (["groups", "get", "default", *quick, f"{option}={value}"] for value in ODD)
    assert refused_badly(lines, capsys) == []


@pytest.mark.parametrize("variable", ["MESH_API", "MESH_ORGANIZATION"])
def test_variable_that_is_no_text_is_refused(
    variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "a\udcffb")
    assert main(["groups", "list"]) == 2
    assert "no text in UTF-8" in capsys.readouterr().err


def test_serve_refuses_in_words_when_a_value_is_odd(capsys: pytest.CaptureFixture[str]) -> None:
    [serve] = (command for command in commands(app) if command.path == ("serve",))
    # With an address that cannot work no broker comes to life, whatever else is said.
    lines = ([*line, "--metrics-listen=nowhere"] for line in serve.lines({}, len(ODD), without=("--metrics-listen",)))
    assert refused_badly(lines, capsys) == []


@pytest.mark.e2e
@pytest.mark.parametrize("data", ["/proc/no/such", "a" * 5_000, "mine/data"])
def test_serve_refuses_a_folder_that_it_cannot_have(data: str, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("a file")
    where = [f"--{kind}-listen=127.0.0.1:0" for kind in ("mesh", "api", "metrics")]
    command = [sys.executable, "-m", "broker.cli", "serve", "--dev", *where, f"--data={data}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, "data_dir" in done.stderr, "Traceback" in done.stderr) == (2, True, False)


@pytest.mark.parametrize("files", ["/proc/no/such", "a" * 5_000, "mine", "mine/files"])
def test_demo_refuses_a_folder_that_it_cannot_have(files: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine").write_text("a file")
    assert main(["demo", f"--files={files}"]) == 2
    assert capsys.readouterr().err
