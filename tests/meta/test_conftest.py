"""Tests whose programs are missing are skipped in words, and fail where the programs must be there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.check import ROOT

SUITE = """
import pytest

@pytest.mark.system("sh")
def test_with_what_is_there():
    pass

@pytest.mark.system("sh", "no-such-program")
def test_with_what_is_missing():
    raise AssertionError("never runs")
"""


def run_suite(folder: Path, ci: str) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    system: needs programs\n")
    (folder / "test_it.py").write_text(SUITE)
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-ra", "-p", "no:cacheprovider", "-p", "no:asyncio", str(folder)],
        cwd=folder,
        env={**os.environ, "CI": ci},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("ci", "outcome"), [("false", "1 passed, 1 skipped"), ("true", "1 passed, 1 error")])
def test_suite_says_which_program_is_missing_when_one_is(tmp_path: Path, ci: str, outcome: str) -> None:
    done = run_suite(tmp_path, ci)

    assert outcome in done.stdout
    assert "not installed: no-such-program (make system)" in done.stdout
