"""`make demo`: the demonstration, with the sabotages that show that it can fail.

`MESH_SABOTAGE` is read here and nowhere in the product: `drop-row` and `double-row` change the target behind the
mesh's back before the judge looks, `no-kill` leaves the faults out.

    python -m tests.e2e.demo [--json] [--keep] [--files DIRECTORY] [--picture FILE.svg]
"""

from __future__ import annotations

import argparse
import os
import re
import sqlite3
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from broker.cli.demo import Rig, main

DOUBLED_KEY = 9_000_000
PICTURE_COLUMNS = 118


def drop_row(target: Path) -> None:
    """What a lost write looks like."""
    _change(target, "DELETE FROM orders WHERE order_no = 777")


def double_row(target: Path) -> None:
    """What an insert without an upsert looks like: the same order under a new number."""
    columns = "reference, customer, country, cents, pieces"
    _change(
        target,
        f"INSERT INTO orders (order_no, {columns}) SELECT {DOUBLED_KEY}, {columns} FROM orders WHERE order_no = 777",
    )


SABOTAGES = {
    "": Rig(),
    "drop-row": Rig(before_judging=drop_row),
    "double-row": Rig(before_judging=double_row),
    "no-kill": Rig(with_kills=False),
}


def _change(target: Path, statement: str) -> None:
    with closing(sqlite3.connect(target)) as database, database:
        database.execute(statement)


def picture_of(console: Console) -> str:
    """What was printed, as one SVG that fetches nothing: a reader's own fixed-width font has to do."""
    drawn = console.export_svg(title="make demo", theme=MONOKAI)
    return re.sub(r"@font-face \{.*?\}\s*", "", drawn, flags=re.DOTALL)


def run() -> int:
    """Run it as the command line and the environment say; the exit code."""
    parser = argparse.ArgumentParser(prog="make demo", description="A mesh at work, with real faults.")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--keep", action="store_true", help="leave the mesh running afterwards, until Ctrl-C")
    parser.add_argument("--files", type=Path, metavar="DIRECTORY", help="leave all files there")
    parser.add_argument("--picture", type=Path, metavar="FILE.svg", help="draw what was printed, for the README")
    asked = parser.parse_args()
    sabotage = os.environ.get("MESH_SABOTAGE", "")
    if sabotage not in SABOTAGES:
        parser.error(f"no sabotage is called {sabotage!r}; there are {', '.join(filter(None, SABOTAGES))}")
    rig = SABOTAGES[sabotage]
    if asked.picture is None:
        return main(json=asked.json, keep=asked.keep, files=asked.files, rig=rig)
    console = Console(stderr=True, highlight=False, record=True, width=PICTURE_COLUMNS, color_system="truecolor")
    code = main(json=asked.json, keep=asked.keep, files=asked.files, rig=replace(rig, console=console))
    asked.picture.write_text(picture_of(console), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(run())
