"""`mesh-sim` as a person calls it."""

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest

from simulator.cli import app
from simulator.scenario_file import dump, parse
from tests.simulator.worlds import scenario


def call(*words: object) -> int:
    """Run a command; its exit code."""
    return int(app([str(word) for word in words], result_action="return_value"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.yaml"
    faults = [{"at": "20 s", "crash": "erp/1", "for": "5 s"}]
    path.write_text(dump(scenario(run="30 s", faults=faults, statistics={"seed": 3})))
    return path


def test_help_is_there_at_once() -> None:
    # Processor time of a fresh interpreter: the machine may be busy with other things.
    code = (
        "import sys, time; from simulator.cli import app\n"
        "try: app(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'simpy', 'pydantic', 'altair'} & set(sys.modules)\n"
        "print(time.process_time(), *heavy)"
    )
    spent = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert "Usage: mesh-sim" in done.stdout
        seconds, *heavy = done.stdout.splitlines()[-1].split()
        assert heavy == []
        spent.append(float(seconds))
    assert min(spent) < 0.5


def test_check_says_in_which_line_a_file_is_wrong(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", file) == 0
    assert capsys.readouterr().out == f"{file}: ok\n"
    file.write_text("version: 1\nhorizn: {run: 1 s}\n")
    assert call("check", file) == 2
    assert f"{file}:2: horizn: unknown key `horizn`; did you mean `horizon`?" in capsys.readouterr().err


def test_check_prints_every_default_when_asked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("check", file, "--resolved") == 0
    assert parse(capsys.readouterr().out) == parse(file.read_text())
    assert call("check", file, "--json") == 0
    assert json.loads(capsys.readouterr().out)["scenario"]["broker"]["lease"] == "10 s"


def test_schema_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("schema") == 0
    jsonschema.Draft202012Validator.check_schema(json.loads(capsys.readouterr().out))


def test_init_lists_the_library_and_writes_a_file_that_can_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("init") == 0
    assert "zone-loss-at-peak" in capsys.readouterr().out
    new = tmp_path / "mine.yaml"
    assert call("init", new, "-q", "steady") == 0
    assert call("check", new) == 0
    capsys.readouterr()
    assert call("init", new, "-q", "steady") == 2
    assert "cannot be written: File exists" in capsys.readouterr().err
    assert call("init", "-q", "stedy") == 2
    assert "did you mean `steady`" in capsys.readouterr().err


def test_init_writes_nothing_and_says_so_when_nobody_chose_a_scenario(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    file = tmp_path / "mine.yaml"
    assert app(["init", str(file)], result_action="return_value") == 2
    assert "name a scenario with --question" in capsys.readouterr().err
    assert not file.exists()


def test_version_is_that_of_the_mesh(capsys: pytest.CaptureFixture[str]) -> None:
    app(["--version"], result_action="return_value")
    assert capsys.readouterr().out.strip() == version("jobmesh")


def test_change_that_names_nothing_is_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    steady = str(Path(__file__).parents[2] / "simulator/scenarios/steady.yaml")
    assert app(["run", steady, "--with", "groups.erp.agnts=3"], result_action="return_value") == 2
    said = capsys.readouterr().err
    assert "groups.erp.agnts: unknown key `agnts`; did you mean `agents`?" in said
    assert "pydantic" not in said
