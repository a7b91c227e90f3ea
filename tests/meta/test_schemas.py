"""The published schemas are schemas, and refuse what they should."""

from __future__ import annotations

import json
import os

import jsonschema
import pytest

from tests.meta.check import ROOT
from tests.meta.schemas import FOLDER, schema, validate

NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
REQUIREMENTS = {"R01": {"tests": ["tests/test_a.py::test_one"], "status": "done"}}


@pytest.mark.parametrize("name", NAMES)
def test_schema_is_one_and_refuses_an_empty_result(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(schema(name))

    with pytest.raises(AssertionError):
        validate(name, {})


def test_validate_accepts_a_result_of_the_published_form() -> None:
    validate("requirements", REQUIREMENTS)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"R1": REQUIREMENTS["R01"]}, "R1"),
        ({"R02": {"tests": [], "status": "finished"}}, "'finished'"),
        ({"R02": {"tests": ["/home/somebody/test_a.py"], "status": "done"}}, "names a path or this machine"),
        ({"R02": {"tests": [f"on {os.uname().nodename}"], "status": "done"}}, "names a path or this machine"),
    ],
)
def test_validate_refuses_what_is_wrong_and_says_where(change: dict[str, object], words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        validate("requirements", {**REQUIREMENTS, **change})


def test_results_that_lie_in_the_tree_have_the_published_form() -> None:
    results = sorted((ROOT / "bench").glob("results/*.json"))
    assert "reference.json" in [path.name for path in results], "docs/operations.md cites it"

    for path in results:
        validate("bench", json.loads(path.read_text()))
