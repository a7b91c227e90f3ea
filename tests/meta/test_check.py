"""The gate opens for a clean tree only: every part of it is seen to refuse a breakage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.meta import check, sabotage
from tests.meta.schemas import validate

CLEAN = check.Report(
    tools=[check.Verdict("format", "1.0", ok=True, seconds=0.1)],
    type_ignores=0,
    lint_ignores=0,
    import_exceptions=0,
    generated_drift=False,
)

# What the refusal must name, so that a tree that is red for another reason does not pass for a sabotage that was seen.
EVIDENCE = {
    "format": "sabotaged.py",
    "lint": "sabotaged.py",
    "types": "sabotaged.py:3",
    "imports": "broker.dispatch.sabotaged may not import time",
    "generated": "changed: protos/mesh/v1/job_pb2.pyi",
    "contract": "not_in_camel_case",
}


def run_check(*arguments: str, breakage: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.meta.check", *arguments],
        cwd=check.ROOT,
        env={**os.environ, "MESH_SABOTAGE": breakage},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("tool", [tool.name for tool in check.TOOLS])
def test_gate_turns_red_when_a_tool_has_something_to_refuse(tool: str) -> None:
    done = run_check("--json", "--only", tool, breakage=tool)

    report = json.loads(done.stdout)
    validate("check", report)
    assert done.returncode == 1
    assert [verdict["ok"] for verdict in report["tools"]] == [False]
    assert EVIDENCE[tool] in done.stderr


@pytest.mark.parametrize(("breakage", "field"), [("ignores", "type_ignores"), ("exceptions", "import_exceptions")])
def test_gate_turns_red_when_an_exception_is_added(breakage: str, field: str) -> None:
    clean = json.loads(run_check("--json", "--only", "contract").stdout)

    done = run_check("--json", "--only", "contract", breakage=breakage)

    assert done.returncode == 1
    assert json.loads(done.stdout)[field] > clean[field]


def test_gate_names_the_sabotages_when_asked_for_an_unknown_one() -> None:
    done = run_check(breakage="nonsense")

    assert done.returncode == 1
    assert "'nonsense'" in done.stderr
    assert all(name in done.stderr for name in sabotage.BREAKAGES)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("report", "is_open"),
    [
        (CLEAN, True),
        (replace(CLEAN, type_ignores=20, lint_ignores=50), True),
        (replace(CLEAN, type_ignores=21), False),
        (replace(CLEAN, import_exceptions=1), False),
        (replace(CLEAN, generated_drift=True), False),
        (replace(CLEAN, tools=[*CLEAN.tools, check.Verdict("lint", "1.0", ok=False, seconds=0.1)]), False),
    ],
)
def test_gate_is_open_only_when_nothing_is_wrong(report: check.Report, is_open: bool) -> None:
    assert report.is_ok is is_open


def test_gate_looks_at_every_package_of_the_tree() -> None:
    packages = {path.parent.name for path in check.ROOT.glob("*/__init__.py")}

    assert packages <= set(check.TYPED)
