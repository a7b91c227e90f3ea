"""`make requirements`: which tests show which row of docs/requirements.md.

    python -m tests.meta.requirements [--json] [--write]

Collects the suite, soaks included, and reads the `req` markers. Words go to stderr; with `--json` the result goes to
stdout (docs/schemas/requirements.json). `--write` brings the last column of the table up to date. Exit 1 when the
table and the markers contradict one another, 2 when the suite cannot be collected.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs/requirements.md"
STATUSES = ("planned", "partial", "done")
_ROW = re.compile(r"^\| (?P<id>R\d{2}) \| (?P<behaviour>.+?) \| (?P<status>\w+) \| (?P<tests>[^|]*) \|$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Requirement:
    """One row: `files` are the test files that the table names, relative to the root."""

    behaviour: str
    status: str
    files: tuple[str, ...]


class CollectError(Exception):
    """pytest could not collect the suite; the text is what it said."""


class MarkerCollector:
    """A pytest plugin that notes the id of every test for every row that its `req` markers name."""

    def __init__(self) -> None:
        self.tests: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        for item in items:
            for name in sorted({str(name) for marker in item.iter_markers("req") for name in marker.args}):
                self.tests.setdefault(name, []).append(item.nodeid)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(argv)
    try:
        markers = collect()
    except CollectError as error:
        print(f"requirements: the suite cannot be collected\n{error}", file=sys.stderr)
        return 2
    text = TABLE.read_text()
    if options.write:
        text = written(text, markers)
        TABLE.write_text(text)
    rows = parse(text)
    wrong = contradictions(rows, markers)
    if options.json:
        print(json.dumps({name: {"tests": markers.get(name, []), "status": row.status} for name, row in rows.items()}))
    _tell(rows, markers, wrong)
    return 1 if wrong else 0


def collect() -> dict[str, list[str]]:
    """Test ids by requirement id, over the whole suite.

    Raises:
        CollectError: a test file cannot be imported, or a marker is unknown.
    """
    plugin = MarkerCollector()
    arguments = ["--collect-only", "-qq", "--capture=no", "-m", "", "-p", "no:cacheprovider"]
    with contextlib.redirect_stdout(io.StringIO()) as words:
        status = pytest.main([*arguments, "--rootdir", str(ROOT), str(ROOT / "tests")], plugins=[plugin])
    if status != pytest.ExitCode.OK:
        raise CollectError(words.getvalue())
    return plugin.tests


def parse(text: str) -> dict[str, Requirement]:
    """The rows of the table by id, in its order.

    Raises:
        ValueError: an id has two rows.
    """
    found = list(_ROW.finditer(text))
    twice = [name for name, count in Counter(row["id"] for row in found).items() if count > 1]
    if twice:
        raise ValueError(f"more than one row: {', '.join(twice)}")
    return {row["id"]: Requirement(row["behaviour"], row["status"], _files(row["tests"])) for row in found}


def contradictions(rows: Mapping[str, Requirement], markers: Mapping[str, Sequence[str]]) -> list[str]:
    """What the table claims and the markers do not show, or the other way round, one sentence each."""
    wrong = [f"{name}: {row.status!r} is no status" for name, row in rows.items() if row.status not in STATUSES]
    wrong += [f"{name}: is done, and no test is marked with it" for name in rows if _is_unshown(rows, markers, name)]
    unknown = [name for name in markers if name not in rows]
    wrong += [f"{name}: {markers[name][0]} is marked with it, and there is no such row" for name in unknown]
    for name, row in rows.items():
        stale = sorted(set(row.files) - _files_of(markers.get(name, [])))
        wrong += [f"{name}: names {file}, where no test is marked with it" for file in stale]
    return wrong


def written(text: str, markers: Mapping[str, Sequence[str]]) -> str:
    """The table with its last column made from the markers."""

    def row(match: re.Match[str]) -> str:
        files = ", ".join(f"`{file}`" for file in sorted(_files_of(markers.get(match["id"], []))))
        return f"| {match['id']} | {match['behaviour']} | {match['status']} | {files or '-'} |"

    return _ROW.sub(row, text)


def _is_unshown(rows: Mapping[str, Requirement], markers: Mapping[str, Sequence[str]], name: str) -> bool:
    return rows[name].status == "done" and not markers.get(name)


def _files(cell: str) -> tuple[str, ...]:
    return tuple(re.findall(r"`([^`]+)`", cell))


def _files_of(tests: Sequence[str]) -> set[str]:
    return {test.partition("::")[0] for test in tests}


def _tell(rows: Mapping[str, Requirement], markers: Mapping[str, Sequence[str]], wrong: Sequence[str]) -> None:
    for name, row in rows.items():
        count = len(markers.get(name, []))
        if count or row.status != "planned":
            print(f"{name}  {row.status:8}{count:4} tests  {row.behaviour}", file=sys.stderr)
    counts = Counter(row.status for row in rows.values())
    print("requirements:", ", ".join(f"{counts[status]} {status}" for status in STATUSES), file=sys.stderr)
    for sentence in wrong:
        print(f"requirements: {sentence}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make requirements", description="Which tests show which requirement.")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    parser.add_argument("--write", action="store_true", help="write the last column of docs/requirements.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
