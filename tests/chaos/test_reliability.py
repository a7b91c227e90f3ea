"""The table of the page: what ran, what did not, and what must not be overlooked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.reliability import BEGIN, END, Kept, kept, table, write_table
from tests.chaos.row import Ran, Row, Trial


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

    assert told.startswith("| the disk is full | 20")
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
    assert "| the disk is full | not run yet |" in table([ROW], tmp_path)


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
