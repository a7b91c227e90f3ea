"""What the commands say about real scenarios, and their exit codes."""

import json
from pathlib import Path

import pytest

from simulator.cli import app
from tests.meta.schemas import validate

STEADY = """\
version: 1
name: steady
horizon: {settle: 20 s, run: 80 s}
groups:
  erp:
    agents: {count: 4, slots: 2, spread: [zone-a, zone-b]}
work:
  orders:
    group: erp
    arrivals: {poisson: 12/s}
    duration: {exponential: 400 ms}
broker: {fidelity: exact}
objectives: [orders.latency.p99 < 4 s, lost == 0]
statistics: {seed: 7}
"""


@pytest.fixture
def steady(tmp_path: Path) -> Path:
    path = tmp_path / "steady.yaml"
    path.write_text(STEADY)
    return path


def call(*words: object, cache: Path | None = None) -> int:
    """The exit code; in this process, without the user's cache."""
    kept = ["--cache", str(cache)] if cache else ["--no-cache"]
    return int(app([*map(str, words), "--backend", "serial", *kept, "--json"], result_action="return_value"))


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    document = json.loads(capsys.readouterr().out)
    assert isinstance(document, dict)
    return document


def test_solve_finds_the_fleet_and_shows_its_neighbour(steady: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("solve", steady, "--zones", "any") == 0
    document = said(capsys)
    validate("solve", document)
    evaluated = document["evaluated"]
    assert isinstance(evaluated, list)
    met = {row["n"]: row["met"] for row in evaluated}
    agents = document["agents"]
    assert isinstance(agents, int)
    assert met[agents]
    assert not met[agents - 1]
    assert (document["group"], document["zones"], document["exit_code"]) == ("erp", "any", 0)
    assert document["neighbour"] == next(row for row in evaluated if row["n"] == agents - 1)


def test_solve_keeps_the_zones_equal(steady: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("solve", steady) == 0
    document = said(capsys)
    evaluated = document["evaluated"]
    assert isinstance(evaluated, list)
    assert all(row["n"] % 2 == 0 for row in evaluated)


def test_sweep_has_a_row_for_each_point_and_remembers_them(
    steady: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("sweep", steady, "groups.erp.agents.count=2,4", "--replications", 3)
    assert call(*words, cache=tmp_path / "cache") == 3
    first = said(capsys)
    validate("sweep", first)
    points = first["points"]
    assert isinstance(points, list)
    assert [point["changes"] for point in points] == [
        {"groups.erp.agents.count": 2},
        {"groups.erp.agents.count": 4},
    ]
    assert points[0]["unstable"].startswith("UNSTABLE: backlog grows")
    assert points[1]["figures"]["orders.latency.p99"]["n"] == 3
    assert call(*words, cache=tmp_path / "cache") == 3
    assert said(capsys) == first


def test_compare_sees_what_a_faster_agent_changes(
    steady: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faster = tmp_path / "faster.yaml"
    faster.write_text(STEADY.replace("slots: 2", "slots: 2, speed: 1.2"))
    assert call("compare", steady, faster, "--replications", 4) == 0
    document = said(capsys)
    validate("compare", document)
    figures, days = document["figures"], document["days"]
    assert isinstance(figures, dict)
    assert isinstance(days, dict)
    assert sum(days["orders.latency.mean"]) / 4 == pytest.approx(figures["orders.latency.mean"]["difference"])
    assert figures["orders.latency.mean"]["clear"]
    assert figures["orders.latency.mean"]["difference"] < 0
    assert figures["orders.arrived"]["difference"] == 0


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("sweep", "FILE", "groups.erp.agents.cuont=3"), "cuont"),
        (("sweep", "FILE", "groups.erp.agents.count"), "KEY=VALUES"),
        (("sweep", "FILE", "groups.erp.agents.count=-3"), "count"),
        (("solve", "FILE", "--group", "crm"), "one of: erp"),
        (("solve", "NONE"), "none.yaml"),
        (("verify", "Q99"), "there is no case `Q99`; "),
    ],
    ids=["key", "axis", "value", "group", "file", "case"],
)
def test_command_refuses_what_it_cannot_use_with_exit_code_two(
    words: tuple[str, ...], reason: str, steady: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"FILE": str(steady), "NONE": str(steady.with_name("none.yaml"))}
    assert call(*(places.get(word, word) for word in words)) == 2
    printed = capsys.readouterr()
    assert reason in printed.err
    assert json.loads(printed.out)["exit_code"] == 2


def test_sweep_refuses_an_objective_that_names_nothing(steady: Path, capsys: pytest.CaptureFixture[str]) -> None:
    steady.write_text(STEADY.replace("orders.latency.p99", "order.latency.p99"))
    assert call("sweep", steady, "groups.erp.agents.count=4") == 2
    assert "did you mean `orders.latency.p99`" in capsys.readouterr().err


def test_verify_says_the_truth_beside_the_simulation(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("verify", "E02", "--seed", 3) == 0
    document = said(capsys)
    validate("verify", document)
    cases = document["cases"]
    assert isinstance(cases, list)
    assert [(row["id"], row["figure"], row["pass"]) for row in cases] == [("E02", "max_minus_min", True)]
    assert (document["passed"], document["failed"], document["skipped"], document["seed"]) == (1, 0, [], 3)
