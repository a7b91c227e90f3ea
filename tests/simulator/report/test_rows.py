"""Answers as tables."""

import csv
import importlib.util
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from simulator.document import document
from simulator.report.rows import FileError, MissingExtraError, check_extra, rows_of, write_csv, write_parquet
from tests.simulator.test_answer import FAULT, asked


@pytest.fixture(scope="module")
def answer() -> dict[str, Any]:
    return document(asked(2, faults=[FAULT]))


def test_rows_have_every_figure_of_the_whole_of_each_phase_and_of_each_replication(answer: dict[str, Any]) -> None:
    rows = [row for row in rows_of(answer) if row["figure"] == "orders.latency.p99"]
    assert [(row["part"], row["replication"], row["n"]) for row in rows] == [
        ("whole", None, 2),
        ("before", None, 2),
        ("crash erp/1", None, 2),
        ("after crash erp/1", None, 2),
        ("whole", 0, 1),
        ("whole", 1, 1),
    ]
    assert rows[0]["value"] == pytest.approx((rows[4]["value"] + rows[5]["value"]) / 2)


def test_csv_and_parquet_hold_the_same(answer: dict[str, Any], tmp_path: Path) -> None:
    polars = pytest.importorskip("polars")
    rows = rows_of(answer)
    write_csv(rows, tmp_path / "a.csv")
    write_parquet(rows, tmp_path / "a.parquet")
    with (tmp_path / "a.csv").open(newline="") as stream:
        read = list(csv.DictReader(stream))
    frame = polars.read_parquet(tmp_path / "a.parquet")
    assert frame.columns == list(read[0])
    assert frame["value"].to_list() == [float(row["value"]) if row["value"] else None for row in read]
    assert len(read) == len(rows)


def test_rows_of_a_sweep_name_their_point_and_keep_unstable_ones() -> None:
    seen = {"value": 1.5, "half_width": 0.1, "n": 3}
    points = [
        {"changes": {"a.b": 1}, "unstable": "UNSTABLE: backlog grows 2 jobs/s", "figures": {}, "replications": 2},
        {"changes": {"a.b": 2}, "unstable": None, "figures": {"lost": seen}, "replications": 3},
    ]
    rows = rows_of({"kind": "sweep", "points": points})
    assert [tuple(row) for row in rows] == [("point", "a.b", "unstable", "figure", "value", "half_width", "n")] * 2
    assert [(row["a.b"], row["value"], row["n"]) for row in rows] == [(1, None, 2), (2, 1.5, 3)]


def test_missing_package_is_refused_with_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "polars" else find(name, package)

    monkeypatch.setattr("simulator.report.rows.find_spec", without)
    with pytest.raises(MissingExtraError, match=r"--parquet needs polars, .* pip install 'jobmesh\[report\]'"):
        check_extra("parquet")


def test_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="Is a directory"):
        write_csv([{"figure": "a"}], tmp_path)
