"""Every golden scenario says what happens, and opens with the rule that it shows."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from broker.dispatch.transitions import ROWS
from tests.scenarios.language import INDENT, told_again

FOLDER = Path(__file__).parent
FILES = sorted(FOLDER.glob("*.txt"))
SESSION_ROWS = "bcdefghijklmnop"
"""Rows of the table of sessions; row a is decided before the dispatcher (`tests/broker/rpc`)."""


SHOWING = {
    "promise_p7_same_key": "R80",
    "promise_p9_levels": "R80",
    "operator_labels": "R80",
    "job_scheduled": "R80",
    "job_not_started_in_time": "R80",
    "row12_run_deadline": "R80",
    "row12_total_deadline": "R80",
    "job_group_inactive": "R71",
    "promise_p8_load": "R72",
    "promise_p9_fair": "R85",
    "promise_p9_limit": "R85",
    "promise_p8_rank_ordered": "R87",
    "row08_cancelled_while_away": "R82",
    "row11_cancelled_while_running": "R82",
    "row20_cancelled_while_waiting": "R82",
}
"""Requirements of which a scenario shows a clause."""


MARKED = [
    pytest.param(path, id=path.stem, marks=pytest.mark.req(*SHOWING.get(path.stem, "").split())) for path in FILES
]


@pytest.mark.parametrize("path", MARKED)
def test_scenario_leads_to_what_it_says(path: Path, request: pytest.FixtureRequest) -> None:
    text = path.read_text()
    told = told_again(text)
    if request.config.getoption("--rewrite-scenarios"):
        path.write_text(told)
    else:
        assert told == text, f"{path.name}: rewrite with --rewrite-scenarios and read the difference"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario_opens_with_its_rule(path: Path) -> None:
    assert re.match(r"# (Rows? [0-9a-p]|Promise P\d|Job alone|Recovery)", path.read_text())


def rule_of(path: Path) -> str:
    """What the file opens with, up to the colon: the rows or the promise that it shows."""
    return path.read_text().partition(":")[0].removeprefix("# ")


def test_scenarios_show_every_row_of_the_table_of_attempts() -> None:
    shown = {int(number) for path in FILES for number in re.findall(r"\b\d+\b", rule_of(path))}
    assert shown >= set(range(1, 21))
    assert shown >= {row.number for row in ROWS if row.number}


def test_scenarios_show_every_row_of_the_table_of_sessions() -> None:
    rules = [rule_of(path) for path in FILES if path.read_text().startswith("# Row")]
    shown = {letter for rule in rules for letter in re.findall(r"\b[a-p]\b", rule)}
    assert shown >= set(SESSION_ROWS)


def test_scenarios_that_show_requirements_exist() -> None:
    assert set(SHOWING) <= {path.stem for path in FILES}


def test_there_are_as_many_scenarios_as_the_tables_have_rules() -> None:
    assert len(FILES) >= 60


def test_told_again_drops_old_effects_and_keeps_comments() -> None:
    text = "# Row 1: a rule.\n\nagents a\n    send  nonsense\nsubmit j1\n"
    told = told_again(text)
    assert "nonsense" not in told
    assert told.startswith("# Row 1: a rule.\n\nagents a\n")
    assert f"{INDENT}send  a: assign j1#1\n" in told


def test_told_again_refuses_a_command_that_does_not_exist() -> None:
    with pytest.raises(AssertionError, match="unknown command 'explode'"):
        told_again("# Row 1: a rule.\nexplode a\n")
