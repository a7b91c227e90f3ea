"""Kept answers, made into files."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.cli import app
from simulator.document import document
from simulator.options import Files
from simulator.report.files import ResultError, refuse_files, report
from simulator.report.rows import FileError
from tests.simulator.test_answer import FAULT, asked


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    return document(asked(2, faults=[FAULT]))


def call(*words: object) -> int:
    """Run a command; its exit code."""
    return int(app([str(word) for word in words], result_action="return_value"))


def test_report_writes_a_page_beside_the_answer(
    answer: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "answer.json"
    kept.write_text(json.dumps(answer))
    assert call("report", kept) == 0
    assert capsys.readouterr().out == f"{kept.with_suffix('.html')}\n"
    assert "<title>unnamed</title>" in kept.with_suffix(".html").read_text()
    assert call("report", kept, "--csv", tmp_path / "a.csv") == 0
    assert (tmp_path / "a.csv").read_text().startswith("part,replication,figure,value,half_width,n\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "cannot be read"), ("{", "is not JSON"), ("[]", "is not one JSON object"), ('{"figures": {}, "a": 1}', "")],
)
def test_report_refuses_what_is_no_answer(
    text: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "answer.json"
    if text is not None:
        kept.write_text(text)
    assert call("report", kept) == 2
    assert says in capsys.readouterr().err


def test_table_holds_one_answer(answer: dict[str, Any], tmp_path: Path) -> None:
    kept = tmp_path / "answer.json"
    kept.write_text(json.dumps(answer))
    with pytest.raises(ResultError, match="hold one answer"):
        report([kept, kept], Files(csv=tmp_path / "a.csv"))


def test_folder_that_is_not_there_is_refused_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="there is no folder"):
        refuse_files(Files(csv=tmp_path / "none" / "a.csv"))
