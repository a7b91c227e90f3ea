"""The table of docs/reliability.md, from the result files of `make chaos`: the last one of each row and form.

They lie in build/chaos, each with its form, seed, day and a hash of the sources that ran, so that hours of runs can be
cut short and gone on with (`--resume`). The table takes what is worth most: a result that ran before one that did not,
a full one before a short one; and a line of the page stays where no file says as much, or only an older one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from tests.chaos.row import Row
from tests.meta.check import ROOT

PAGE: Final = ROOT / "docs/reliability.md"
FILES: Final = ROOT / "build/chaos"
SOURCES: Final = (
    *("broker", "agent_stub", "mesh_client", "command_line", "protos", "simulator"),
    *("tests/broker", "tests/chaos", "tests/e2e", "tests/mutants"),
)
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"
HEAD: Final = (
    "| fault | measured | runs | fired | load | violations | recovery p50 / p99 | control |\n"
    "|---|---|---|---|---|---|---|---|\n"
)
FORMS: Final = ("full", "short")
"""The one that the table prefers is first."""
MARK_CHARACTERS: Final = 8
"""So much of the hash stands in the table."""
NEVER: Final = "not run yet"
_LINE: Final = re.compile(r"^\| `([^`]+)`: (?:[^|\\]|\\.)* \| (.*) \|$", re.MULTILINE)


class Kept(NamedTuple):
    """A result file. `result` is a row of docs/schemas/chaos.json, `form` one of FORMS."""

    form: str
    seed: int
    day: str
    sources: str
    result: dict[str, Any]

    @classmethod
    def of(cls, result: dict[str, Any], *, seed: int, is_full: bool) -> Self:
        """What ran just now."""
        form = "full" if is_full else "short"
        return cls(form, seed, f"{datetime.now(UTC):%Y-%m-%d}", sources(), result)

    @property
    def has_run(self) -> bool:
        """Whether the row could run."""
        return bool(self.result["status"] == "ran")

    def file(self, folder: Path) -> None:
        """Write it in place of an earlier one of the same row and form, unless only that one ran."""
        before = kept(self.result["id"], self.form, folder)
        if before is not None and before.has_run and not self.has_run:
            return
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{self.result['id']}.{self.form}"
        unfinished = folder / f"{name}.part"
        unfinished.write_text(json.dumps(self._asdict(), indent=1))
        unfinished.rename(folder / f"{name}.json")


def kept(row_id: str, form: str, folder: Path) -> Kept | None:
    """The last result of a row in this form, if there is one; also of when both forms shared the file `ROW.json`."""
    for file in (folder / f"{row_id}.{form}.json", folder / f"{row_id}.json"):
        if file.exists() and (one := Kept(**json.loads(file.read_text()))).form == form:
            return one
    return None


def best(row_id: str, folder: Path) -> Kept | None:
    """The result of a row that the table shows, if there is one."""
    found = [one for form in FORMS if (one := kept(row_id, form, folder)) is not None]
    return max(found, key=lambda one: one.has_run, default=None)


@cache
def sources() -> str:
    """A hash of the sources that decide what a row gives."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def mark(digest: str) -> str:
    """How the table names a state of the sources."""
    return digest[:MARK_CHARACTERS]


def table(rows: Sequence[Row], folder: Path, standing: str = "") -> str:
    """The table as Markdown: every row, also those without a result. `standing`: the table until now."""
    told = dict(_LINE.findall(standing))
    return HEAD + "".join(f"| `{row.id}`: {_cell(row.fault)} | {_best_told(row, folder, told)} |\n" for row in rows)


def write_table(rows: Sequence[Row], page: Path, folder: Path) -> None:
    """Put the table between the marks of the page. Raises ValueError if it has no marks."""
    text = page.read_text()
    before, begin, rest = text.partition(BEGIN)
    standing, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page.name} has no lines {BEGIN.strip()} and {END.strip()}")
    written = table(rows, folder, standing)
    page.write_text(f"{before}{begin}Version {version('jobmesh')}.\n\n{written}{end}{after}")


def _best_told(row: Row, folder: Path, standing: Mapping[str, str]) -> str:
    """All cells but the first: of the best result, or those that stand there and are worth more."""
    told = _told(row, best(row.id, folder))
    return max(told, standing.get(row.id, told), key=_worth)


def _worth(told: str) -> tuple[int, str]:
    """Among equals the later day is worth more."""
    measured, _, _ = told.partition(" | ")
    if measured.startswith("not run"):
        return int(measured != NEVER), ""
    day, _, form = measured.partition(", ")
    return 3 if form.startswith("full") else 2, day


def _told(row: Row, one: Kept | None) -> str:
    if one is None:
        return _cells(NEVER)
    result = one.result
    if not one.has_run:
        return _cells(f"not run: {result['reason']}")
    recovery, control = result["recovery_ms"], result["control"]
    violations = len(result["violations"])
    return _cells(
        f"{one.day}, {one.form}, {mark(one.sources)}",
        f"{result['runs']}",
        f"{result['fired']:,}",
        result["load"],
        f"**{violations}**" if violations else "0",
        f"{recovery['p50'] / 1000:.2f} / {recovery['p99'] / 1000:.2f} s" if recovery else "",
        _control_text(row, control),
    )


def _control_text(row: Row, control: dict[str, Any] | None) -> str:
    """Whether it was caught; else whose stands for it, or that it has not been played."""
    if control is not None:
        return f"{control['name']}: {'caught' if control['caught'] else '**not caught**'}"
    if row.control_of:
        return f"that of `{row.control_of}`"
    return "not in the short form" if row.control is not None else ""


def _cells(*texts: str) -> str:
    """The cells after the first, empty ones at the end."""
    empty = [""] * (HEAD.split("\n", 1)[0].count("|") - 2 - len(texts))
    return " | ".join([*map(_cell, texts), *empty])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
