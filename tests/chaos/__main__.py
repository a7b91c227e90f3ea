"""`make chaos`: every fault of the matrix against real processes, and what became of it.

    python -m tests.chaos [--row ID ...] [--short] [--seed N] [--resume] [--list] [--json] [--write]

Words go to stderr; with `--json` the result goes to stdout (docs/schemas/chaos.json); `--write` puts the table of all
results until now into docs/reliability.md; `--resume` takes what the same sources gave before and was good. Exit 0
when in every row that could run here each run's fault fired, nothing was violated and the control was caught; with
CI=true a row that was not run is a failure.

`MESH_SABOTAGE=no-defect` plays each control without its defect, and must turn it red.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.chaos.campaign import row_result, wrong
from tests.chaos.reliability import Kept, kept, sources, write_table
from tests.chaos.remains import sweep
from tests.chaos.row import Row
from tests.chaos.rows import BY_ID, ROWS


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(argv)
    if options.list:
        print("\n".join(f"{row.id:32} {row.fault}" for row in ROWS))
        return 0
    unknown = [name for name in options.row if name not in BY_ID]
    if unknown:
        print(f"chaos: no row {', '.join(unknown)}; see --list", file=sys.stderr)
        return 2
    rows = [BY_ID[name] for name in options.row] or ROWS
    for left in sweep():
        _say(f"taken away, left by a run that was killed: {left}")
    began_s = time.monotonic()
    results = [_result(row, options) for row in rows]
    must_run = os.environ.get("CI") == "true"
    bad = {one["id"]: texts for one in results if (texts := wrong(one, must_run=must_run))}
    for name, texts in bad.items():
        _say(f"{name}: NOT GOOD: {'; '.join(texts[:3])}")
    _say(f"{len(results) - len(bad)} of {len(results)} rows are good, {time.monotonic() - began_s:.0f} s")
    if options.json:
        print(json.dumps({"rows": results}, indent=2))
    if options.write:
        write_table(ROWS)
    return 1 if bad else 0


def _result(row: Row, options: argparse.Namespace) -> dict[str, Any]:
    """What the row gives, or gave before; filed at once."""
    form = "short" if options.short else "full"
    before = kept(row) if options.resume else None
    is_same = before is not None and (before.form, before.seed, before.sources) == (form, options.seed, sources())
    if before is not None and is_same and not wrong(before.result, must_run=True):
        _say(f"{row.id}: good before")
        return before.result
    result = asyncio.run(row_result(row, seed=options.seed, is_full=not options.short, say=_say))
    if not os.environ.get("MESH_SABOTAGE"):
        Kept.of(result, seed=options.seed, is_full=not options.short).file()
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
    parser.add_argument("--list", action="store_true", help="name the rows and end")
    parser.add_argument("--json", action="store_true", help="the result as JSON on standard output")
    parser.add_argument("--write", action="store_true", help="put the table into docs/reliability.md")
    return parser


if __name__ == "__main__":
    sys.exit(main())
