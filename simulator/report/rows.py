"""Documents of answers as flat rows: CSV for anything, Parquet for data frames. All rows of one file have one form."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from broker.errors import ConfigError

Row = dict[str, Any]
NEEDS: Final = {"parquet": ("polars",), "html": ("altair", "jinja2", "vl_convert")}
"""What each kind of file needs beyond the simulator."""


class MissingExtraError(ConfigError):
    """A kind of file needs packages that are not installed; the text says which extra has them."""

    reason = "MISSING_EXTRA"


class FileError(ConfigError):
    """A file cannot be written; the text says which and why."""

    reason = "CANNOT_WRITE"


def check_extra(kind: str) -> None:
    """Refuse a kind of file whose packages are missing, before anything is computed. Raises MissingExtraError."""
    missing = [name for name in NEEDS[kind] if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"--{kind} needs {' and '.join(missing)}, which the extra `report` has: pip install 'jobmesh[report]'"
        )


def rows_of(document: Mapping[str, Any]) -> list[Row]:
    """The rows of any answer: of `run` a figure each, of `sweep` a point and figure each, of `compare` a figure each,
    of `solve` a fleet each. Raises KeyError for what is no answer.
    """
    kind = "solve" if "evaluated" in document else document["kind"]
    return list(_KINDS[kind](document))


def _run_rows(document: Mapping[str, Any]) -> Iterator[Row]:
    for part in ({"name": "whole", "figures": document["figures"]}, *document["phases"]):
        for figure, seen in part["figures"].items():
            yield _figure_row({"part": part["name"], "replication": None}, figure, seen)
    for number, one in enumerate(document["runs"]):
        for figure, value in one["figures"].items():
            seen = {"value": value, "half_width": None, "n": 1}
            yield _figure_row({"part": "whole", "replication": number}, figure, seen)


def _sweep_rows(document: Mapping[str, Any]) -> Iterator[Row]:
    for number, point in enumerate(document["points"]):
        place = {"point": number, **point["changes"], "unstable": point["unstable"] or ""}
        if not point["figures"]:
            yield _figure_row(place, "", {"value": None, "half_width": None, "n": point["replications"]})
        for figure, seen in point["figures"].items():
            yield _figure_row(place, figure, seen)


def _figure_row(place: Row, figure: str, seen: Mapping[str, Any]) -> Row:
    return {**place, "figure": figure, **{name: seen[name] for name in ("value", "half_width", "n")}}


def _compare_rows(document: Mapping[str, Any]) -> Iterator[Row]:
    columns = ("first", "second", "difference", "half_width", "n", "share", "clear")
    for figure, seen in document.get("figures", {}).items():
        yield {"figure": figure, **{name: seen[name] for name in columns}}


def _solve_rows(document: Mapping[str, Any]) -> Iterator[Row]:
    yield from document["evaluated"]


_KINDS: Final = {"run": _run_rows, "sweep": _sweep_rows, "compare": _compare_rows, "solve": _solve_rows}


def write_csv(rows: Sequence[Row], path: Path) -> None:
    """Comma-separated, with a heading, UTF-8; what is unknown or infinite is empty. Raises FileError."""
    try:
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]) if rows else ["figure"])
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from error


def write_parquet(rows: Sequence[Row], path: Path) -> None:
    """Parquet, with the same columns. Raises MissingExtraError, FileError."""
    check_extra("parquet")
    import polars

    try:
        polars.DataFrame(rows, infer_schema_length=None, strict=False).write_parquet(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror or error}") from error
