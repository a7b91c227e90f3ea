"""docs/requirements.md and the `req` markers say the same."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.meta.requirements import ROOT, TABLE, Requirement, contradictions, parse, written
from tests.meta.schemas import validate

ROW = Requirement("jobs are placed", "done", ("tests/test_a.py",))
MARKED = {"R01": ["tests/test_a.py::test_one", "tests/b/test_b.py::test_two[x]"]}


@pytest.mark.slow
def test_table_and_markers_agree_over_the_whole_suite() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.meta.requirements", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    validate("requirements", document)
    assert list(document) == list(parse(TABLE.read_text()))


def test_table_has_every_row_once() -> None:
    assert sorted(parse(TABLE.read_text())) == [f"R{number:02}" for number in range(1, 95)]


def test_parse_refuses_an_id_with_two_rows() -> None:
    with pytest.raises(ValueError, match="R07"):
        parse("| R07 | one | planned | - |\n| R07 | other | planned | - |\n")


def test_contradictions_are_none_when_marker_and_row_agree() -> None:
    assert contradictions({"R01": ROW}, MARKED) == []


@pytest.mark.parametrize(
    ("row", "markers", "sentence"),
    [
        (ROW, {}, "R01: is done, and no test is marked with it"),
        (Requirement("x", "planned", ()), {"R99": ["tests/test_a.py::test_one"]}, "there is no such row"),
        (Requirement("x", "finished", ()), {}, "'finished' is no status"),
        (Requirement("x", "partial", ("tests/test_gone.py",)), MARKED, "names tests/test_gone.py"),
    ],
)
def test_contradictions_name_what_is_wrong(row: Requirement, markers: dict[str, list[str]], sentence: str) -> None:
    assert any(sentence in found for found in contradictions({"R01": row}, markers))


def test_written_fills_the_last_column_and_leaves_the_judgement_alone() -> None:
    text = "# Words\n\n| R01 | jobs are placed | partial | - |\n| R02 | more | planned | `tests/old.py` |\n"

    assert written(text, MARKED) == (
        "# Words\n\n| R01 | jobs are placed | partial | `tests/b/test_b.py`, `tests/test_a.py` |\n"
        "| R02 | more | planned | - |\n"
    )
