"""`mesh-sim` as a person calls it."""

import json

import pytest

from simulator.cli import app


def test_run_prints_one_json_object_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    code = app(["run", "--jobs", "2000", "--agents", "2", "--seed", "3", "--json"], result_action="return_value")
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["seed"] == 3
    assert document["figures"]["jobs"] == 2000
    assert document["figures"]["lost"] == 0


def test_run_refuses_an_unstable_group_and_says_what_would_do(capsys: pytest.CaptureFixture[str]) -> None:
    code = app(["run", "--rate", "100", "--mean", "1", "--agents", "4", "--slots", "4"], result_action="return_value")
    printed = capsys.readouterr()
    assert code == 3
    assert "at least 26 agents" in printed.err
    assert not printed.out
