"""The table of docs/reliability.md, from the result files of `make chaos`: one for each row, the last one that ran.

They lie in build/chaos, each with its form, seed, day and a hash of the sources that ran, so that hours of runs can be
cut short and gone on with (`--resume`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
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


class Kept(NamedTuple):
    """A result file. `result` is a row of docs/schemas/chaos.json, `form` is `full` or `short`."""

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

    def file(self, folder: Path = FILES) -> None:
        """Write it, in place of an earlier one of the same row."""
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / f"{self.result['id']}.part"
        unfinished.write_text(json.dumps(self._asdict(), indent=1))
        unfinished.rename(folder / f"{self.result['id']}.json")


def kept(row: Row, folder: Path = FILES) -> Kept | None:
    """The last result of a row, if there is one."""
    file = folder / f"{row.id}.json"
    return Kept(**json.loads(file.read_text())) if file.exists() else None


@cache
def sources() -> str:
    """A hash of the sources that decide what a row gives."""
    digest = hashlib.sha256()
    for folder in SOURCES:
        for file in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def table(rows: Sequence[Row], folder: Path = FILES) -> str:
    """The table as Markdown: every row, also those without a result."""
    return HEAD + "".join(_line(row, kept(row, folder)) for row in rows)


def write_table(rows: Sequence[Row], page: Path = PAGE, folder: Path = FILES) -> None:
    """Put the table between the marks of the page. Raises ValueError if it has no marks."""
    text = page.read_text()
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"{page.name} has no lines {BEGIN.strip()} and {END.strip()}")
    page.write_text(f"{before}{mark}Version {version('jobmesh')}.\n\n{table(rows, folder)}{end}{after}")


def _line(row: Row, one: Kept | None) -> str:
    fault = f"`{row.id}`: {row.fault}"
    if one is None:
        return _cells(fault, "not run yet")
    result = one.result
    if result["status"] == "not_run":
        return _cells(fault, f"not run: {result['reason']}")
    recovery, control = result["recovery_ms"], result["control"]
    violations = len(result["violations"])
    return _cells(
        fault,
        f"{one.day}, {one.form}",
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
    filled = [text.replace("|", "\\|") for text in texts] + [""] * (HEAD.split("\n", 1)[0].count("|") - 1 - len(texts))
    return f"| {' | '.join(filled)} |\n"
