"""Tables of cases: what is refused, in which line, and what was probably meant."""

import json
from pathlib import Path
from typing import Any

import pytest

from simulator.truth_table import Bound, Case, TableError, read_table


def case(**changes: Any) -> dict[str, Any]:
    """A case of a file, with other values; None leaves a key out."""
    whole = {
        "id": "X1",
        "name": "M/M/1",
        "setup": "lam=.5, 1 agent x 1 slot",
        "truth": {"sojourn_mean": 2.0},
        "bounds": {"sojourn_mean": {"rel": 0.02}},
        **changes,
    }
    return {key: value for key, value in whole.items() if value is not None}


def file_of(tmp_path: Path, tree: object) -> Path:
    path = tmp_path / "cases.json"
    path.write_text(tree if isinstance(tree, str) else json.dumps(tree, indent=1))
    return path


def test_table_of_further_cases_is_read(tmp_path: Path) -> None:
    table = read_table(file_of(tmp_path, {"note": "ours", "cases": [case(tolerance="2 %", how="closed form")]}))
    assert [(name, truth, bound.of(truth)) for name, truth, bound in table.cases[0].judged()] == [
        ("sojourn_mean", 2.0, 0.04)
    ]


@pytest.mark.parametrize(
    ("tree", "reason"),
    [
        ("{", ":1: not JSON: Expecting property name"),
        ('{"cases": [\n  {"id": "X1",}\n]}', ":2: not JSON: Illegal trailing comma|:2: not JSON: Expecting property"),
        ("[]", "not a table of cases"),
        ("[" * 100_000, "not JSON"),
        ({}, ":1: cases: Field required"),
        ({"cases": []}, ":1: cases: List should have at least 1 item"),
        ({"case": [case()]}, "case: this key is not known; did you mean `cases`?"),
        ({"cases": [{"id": "X1"}]}, "case X1.name: Field required"),
        ({"cases": [case(id="")]}, "id: String should match"),
        ({"cases": [case(), case()]}, "case X1 is there twice"),
        ({"cases": [case()], "quick": ["X2"]}, "no case `X2`; did you mean `X1`"),
        ({"cases": [case(set_up="lam=1", setup=None)]}, "set_up: this key is not known; did you mean `setup`?"),
        ({"cases": [case(truth={})]}, "truth: Dictionary should have at least 1 item"),
        ({"cases": [case(truth={"sojourn_mean": "two"})]}, "every truth is a number"),
        ('{"cases": [{"id": "X1", "name": "a", "setup": "b", "truth": {"v": NaN}, "bounds": {}}]}', "finite number"),
        ({"cases": [case(bounds={"sojorn_mean": {"rel": 0.02}})]}, "no truth `sojorn_mean`; did you mean `sojourn_m"),
        ({"cases": [case(bounds={"sojourn_mean": {}})]}, "give either `rel`"),
        ({"cases": [case(bounds={"sojourn_mean": {"rel": 0.1, "abs": 1}})]}, "give either `rel`"),
        ({"cases": [case(bounds={"sojourn_mean": {"rel": -0.1}})]}, "greater than or equal to 0"),
        ({"cases": [case(bounds={"sojourn_mean": {"relative": 0.1}})]}, "relative: .*did you mean `rel`?"),
        ({"cases": [case(figures={"sojourn_mean": "work.latency.mean"})]}, "`figures` read a `scenario`"),
        ({"cases": [case(scenario={"horizn": {"run": "1 s"}})]}, ":4: case X1: scenario.*did you mean `horizon`"),
    ],
)
def test_table_that_cannot_be_meant_is_refused_with_its_line(tmp_path: Path, tree: object, reason: str) -> None:
    path = file_of(tmp_path, tree)
    with pytest.raises(TableError, match=reason) as refused:
        read_table(path)
    assert str(refused.value).startswith(f"{path}:")


def test_table_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"none.json: cannot be read"):
        read_table(tmp_path / "none.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe")
    with pytest.raises(TableError, match=r"binary.json: cannot be read"):
        read_table(tmp_path / "binary.json")


def test_bounds_of_lists_and_tables_reach_their_members() -> None:
    nested = Case.model_validate(
        case(truth={"a": [1.0, 3.0], "b": {"c": 2.0}}, bounds={"a": {"rel": 0.1}, "b.c": {"abs": 0.5}})
    )
    found = [(name, bound.of(truth)) for name, truth, bound in nested.judged()]
    assert found == [("a[0]", pytest.approx(0.1)), ("a[1]", pytest.approx(0.3)), ("b.c", 0.5)]
    assert Bound(rel=0.5).of(-4.0) == 2.0
