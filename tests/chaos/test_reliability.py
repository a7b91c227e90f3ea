"""The table of the page: what ran, what did not, and what must not be overlooked."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.reliability import BEGIN, END, SOURCES, Kept, kept, table, write_table
from tests.chaos.row import Control, Ran, Row, Trial
from tests.meta.check import ROOT


async def unused(trial: Trial) -> Ran:
    return Ran("")


ROW = Row("disk-full", "the disk is full", unused)
GOOD: dict[str, Any] = {
    "id": "disk-full",
    "fault": "the disk is full",
    "status": "ran",
    "reason": "",
    "fired": 1_200,
    "runs": 2,
    "load": "20 jobs/s",
    "violations": [],
    "recovery_ms": {"p50": 300.0, "p99": 1_250.0},
    "figures": {},
    "control": {"name": "eatmydata", "caught": True, "how": ["lost"]},
}


def line(tmp_path: Path, **changes: object) -> str:
    """The line of the table for a result that differs so from a good one."""
    Kept.of({**GOOD, **changes}, seed=1, is_full=True).file(tmp_path)
    return table([ROW], tmp_path).splitlines()[-1]


def test_table_tells_what_a_row_gave(tmp_path: Path) -> None:
    told = line(tmp_path)

    assert told.startswith("| `disk-full`: the disk is full | 20")
    assert told.endswith(", full | 2 | 1,200 | 20 jobs/s | 0 | 0.30 / 1.25 s | eatmydata: caught |")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"violations": ["lost: 7"]}, "| **1** |"),
        ({"control": {"name": "tame", "caught": False, "how": []}}, "tame: **not caught**"),
        ({"status": "not_run", "reason": "it needs root"}, "| not run: it needs root |"),
    ],
    ids=["violated", "control-missed", "not-run"],
)
def test_table_shows_what_is_not_good(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    told = line(tmp_path, **changes)

    assert words in told
    assert told.count("|") == line(tmp_path).count("|")


def test_table_names_rows_that_never_ran(tmp_path: Path) -> None:
    assert kept(ROW, tmp_path) is None
    assert "| `disk-full`: the disk is full | not run yet |" in table([ROW], tmp_path)


def test_table_says_whose_control_stands_for_a_row_and_that_one_was_not_played(tmp_path: Path) -> None:
    Kept.of({**GOOD, "control": None}, seed=1, is_full=False).file(tmp_path)
    dear = replace(ROW, control=Control("eatmydata", unused, is_in_suite=False))

    assert table([replace(ROW, control_of="power-cut")], tmp_path).endswith("| that of `power-cut` |\n")
    assert table([dear], tmp_path).endswith("| not in the short form |\n")


PROGRAMS = """
import sys
import tests.chaos.__main__, tests.chaos.attacker, tests.chaos.forgetful, tests.chaos.relay
import tests.chaos.careless, tests.e2e.defects, tests.mutants.dispatcher, tests.mutants.session
import tests.e2e.agent, tests.e2e.fleet, tests.e2e.herd
print(*(module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)), sep="\\n")
"""


def test_results_are_those_of_all_sources_that_rows_and_their_controls_import() -> None:
    said = subprocess.run((sys.executable, "-c", PROGRAMS), cwd=ROOT, capture_output=True, text=True, check=True)
    files = (Path(line) for line in said.stdout.splitlines())
    ours = (file.relative_to(ROOT) for file in files if file.is_relative_to(ROOT) and ".venv" not in file.parts)

    known = (*SOURCES, "tests/__init__.py", "tests/meta")  # from there come names of folders only
    assert [str(one) for one in ours if not any(map(one.is_relative_to, known))] == []


def test_table_takes_the_place_of_the_one_before_and_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")

    write_table([ROW], page, tmp_path)

    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}Version ")
    assert text.endswith(f"|\n{END}after\n")
    assert "old" not in text


def test_page_without_marks_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")

    with pytest.raises(ValueError, match="has no lines"):
        write_table([ROW], page, tmp_path)
    assert page.read_text() == "nothing\n"
