"""`mesh-sim init`: what is written can be used, by options and by a person at a terminal."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from broker.errors import ConfigError
from simulator.library import names_and_titles
from simulator.menu import scenario_of
from simulator.options import Answers
from simulator.scenario_file import load, parse
from tests.simulator.test_cli import call


@pytest.mark.parametrize("name", list(names_and_titles()))
def test_every_scenario_of_the_menu_is_written_with_comments_and_its_own_numbers(name: str) -> None:
    text = scenario_of(Answers(name, slots=6))
    assert text.startswith("# ")
    assert text.count("\n# ") >= 5
    group = next(iter(parse(text).groups.values()))
    assert group.agents[0].slots == 6


def test_answers_go_where_they_belong() -> None:
    told = Answers("zone-loss-at-peak", rate="6/h", duration="3 s", agents=8, slots=2, zones=4, p99="9 s")
    scenario = parse(scenario_of(told))
    pool = scenario.groups["erp"].agents[0]
    assert (pool.count, pool.slots, pool.spread) == (8, 2, ("zone-a", "zone-b", "zone-c", "zone-d"))
    assert scenario.work["orders"].arrivals.poisson == pytest.approx(6 / 3_600)
    assert scenario.work["orders"].duration.exponential == 3.0
    assert scenario.objectives[0] == "orders.latency.p99 < 9 s"
    assert [text for text in scenario.objectives if "p99" in text] == [scenario.objectives[0]]


@pytest.mark.parametrize(
    ("told", "says"),
    [
        (Answers("stedy"), "did you mean `steady`"),
        (Answers("steady", rate="40"), "`40` is not a rate such as `100/s`"),
        (Answers("steady", p99="2 sec"), "unit `sec` is not known"),
        (Answers("zone-loss-at-peak", zones=1), "`zone-b` is not there"),
        (Answers("drain-at-noon", agents=2), "has agents 1 to 2"),
    ],
    ids=["name", "rate", "bound", "zones", "agents"],
)
def test_answers_that_do_not_fit_are_refused_in_words(told: Answers, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        scenario_of(told)


def test_init_takes_every_answer_by_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = tmp_path / "mine.yaml"
    assert call("init", new, "-q", "steady", "--rate", "9/s", "--agents", 3, "--p99", "4 s") == 0
    assert "next: mesh-sim check" in capsys.readouterr().err
    assert load(new).work["orders"].arrivals.poisson == 9.0
    assert call("check", new) == 0
    assert call("init", "-q", "steady", "--rate", "9") == 2
    assert "is not a rate" in capsys.readouterr().err


@pytest.mark.slow
def test_init_asks_a_person_until_the_answers_fit(tmp_path: Path) -> None:
    new = tmp_path / "mine.yaml"
    terminal, other = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", "from simulator.cli import main; main()", "init", str(new)],
        stdin=other,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "TERM": "dumb", "COLUMNS": "200"},
        text=True,
    )
    os.close(other)
    try:
        os.write(terminal, b"nonsense\nagent-loss\n40\n25/s\n\nmany\n7\n\n\n3 s\n")
        _, printed = process.communicate(timeout=100)
    finally:
        process.kill()
        os.close(terminal)
    assert process.returncode == 0, printed
    for words in ("there is no scenario `nonsense`", "`40` is not a rate", "`many` is not a number", "Which one"):
        assert words in printed
    scenario = load(new)
    assert (scenario.name, scenario.groups["erp"].count, scenario.objectives[0]) == (
        "agent loss",
        7,
        "orders.latency.p99 < 3 s",
    )
    assert scenario.work["orders"].arrivals.poisson == 25.0
