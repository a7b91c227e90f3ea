"""`make chaos`: every fault of the matrix against real processes, and what became of it.

    python -m tests.chaos [--row ID ...] [--short] [--seed N] [--resume] [--list] [--json] [--write]

Words go to stderr; with `--json` the result goes to stdout (docs/schemas/chaos.json). `--write` puts the table of all
results until now into docs/reliability.md, where a line that says more than they do stays. `--resume` takes what the
same sources gave before in the same form and was good. Exit 0 when in every row that could run here each run's fault
fired, nothing was violated and the control was caught; with CI=true a row that was not run is a failure.

`MESH_SABOTAGE=no-defect` plays each control without its defect, and must turn it red; no other name is taken.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from tests.chaos.campaign import row_result, wrong
from tests.chaos.reliability import FILES, PAGE, Kept, kept, mark, sources, write_table
from tests.chaos.remains import sweep
from tests.chaos.row import Row
from tests.chaos.rows import BY_ID, ROWS

SABOTAGES: Final = ("no-defect",)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(argv)
    if refusal := _refusal(options):
        _say(refusal)
        return 2
    _say(f"the sources are {mark(sources())}")
    if options.list:
        print("\n".join(f"{row.id:32} {row.fault}" for row in ROWS))
        return 0
    rows = [BY_ID[name] for name in options.row] or ROWS
    for left in sweep():
        _say(f"taken away, left by a run that was killed: {left}")
    began_s = time.monotonic()
    results = [_result(row, options) for row in rows]
    must_run = os.environ.get("CI") == "true"
    bad = {one["id"]: texts for one in results if (texts := wrong(one, must_run=must_run))}
    for name, texts in bad.items():
        _say(f"{name}: NOT GOOD: {'; '.join(texts[:3])}")
    _say(f"{_counts(results)}; {time.monotonic() - began_s:.0f} s")
    if options.json:
        print(json.dumps({"rows": results}, indent=2))
    if options.write:
        write_table(ROWS, PAGE, FILES)
    return 1 if bad else 0


def _refusal(options: argparse.Namespace) -> str:
    """What was asked for and is not there; empty if nothing."""
    sabotage = os.environ.get("MESH_SABOTAGE", "")
    if sabotage and sabotage not in SABOTAGES:
        return f"no sabotage {sabotage!r}; known: {', '.join(SABOTAGES)}"
    unknown = [name for name in options.row if name not in BY_ID]
    return f"no row {', '.join(unknown)}; see --list" if unknown else ""


def _counts(results: Sequence[dict[str, Any]]) -> str:
    """How many rows were good, bad and not run: a row that was not run is neither."""
    ran = [one for one in results if one["status"] == "ran"]
    bad = sum(bool(wrong(one, must_run=True)) for one in ran)
    return f"{len(ran) - bad} good, {bad} bad, {len(results) - len(ran)} not run"


def _result(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """What the row gives, or gave before; filed at once."""
    form = "short" if options.short else "full"
    before = kept(row.id, form, FILES) if options.resume else None
    is_same = before is not None and (before.seed, before.sources) == (options.seed, sources())
    if before is not None and is_same and not wrong(before.result, must_run=True):
        _say(f"{row.id}: good before")
        return before.result
    result = asyncio.run(row_result(row, seed=options.seed, is_full=not options.short, say=_say))
    if not os.environ.get("MESH_SABOTAGE"):
        Kept.of(result, seed=options.seed, is_full=not options.short).file(FILES)
    return result


def _say(text: str) -> None:
    print(f"chaos: {text}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__.split("\n")[0] if __doc__ else ""
    )
    parser.add_argument("--row", action="append", default=[], metavar="ID", help="only this row (may be repeated)")
    parser.add_argument("--short", action="store_true", help="the short form that the test suite runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="do not run again what the same sources did well before")
    parser.add_argument(
        "--list", action="store_true", help="say what the sources are called in the table, name the rows and end"
    )
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
