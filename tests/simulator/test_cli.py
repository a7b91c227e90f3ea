"""`mesh-sim` as a person calls it."""

import json
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


def test_run_prints_one_json_object_when_asked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", file, "--json") == 0
    document = json.loads(capsys.readouterr().out)
    assert document["seed"] == 3
    assert document["figures"]["lost"] == 0
    assert document["figures"]["orders.succeeded"] == document["figures"]["orders.arrived"] > 0
    assert [phase["name"] for phase in document["phases"]] == ["before", "crash erp/1", "after crash erp/1"]
    assert document["scenario"]["groups"]["erp"]["agents"][0]["count"] == 6
    lengths = {len(series) for series in document["timeline"].values()}
    assert lengths == {240}


def test_run_prints_figures_and_phases_for_people(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("run", file) == 0
    printed = capsys.readouterr().out
    assert "orders.latency.p99" in printed
    assert "after crash erp/1, from 25 s to 40 s" in printed


def test_run_takes_another_seed_and_other_values(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for words in ((), ("--seed", "4"), ("--replication", "1"), ("--with", "groups.erp.agents.count=9")):
        assert call("run", file, "--json", *words) == 0
        digests.append(json.loads(capsys.readouterr().out)["digest"])
    assert len(set(digests)) == 4


@pytest.mark.parametrize(
    ("change", "says"), [("groups.erp.agnts.count=9", "did you mean `agents`"), ("count", "is not `key.path=value`")]
)
def test_run_refuses_a_change_that_names_nothing(
    file: Path, capsys: pytest.CaptureFixture[str], change: str, says: str
) -> None:
    assert call("run", file, "--with", change) == 2
    assert says in capsys.readouterr().err


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
