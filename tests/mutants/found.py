"""Which seed finds which mutant first, so that the everyday suite looks there first.

mesh-sim fuzz --mutant all --seeds 0-200 --json | python -m tests.mutants.found
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

FILE = Path(__file__).parent / "found.txt"
HEAD = "# Written by `python -m tests.mutants.found`: the first seed that finds each mutant.\n"


def read() -> dict[str, int]:
    """The first seed of each mutant, by its name."""
    pairs = (line.split() for line in FILE.read_text().splitlines() if not line.startswith("#"))
    return {name: int(seed) for name, seed in pairs}


def write(trials: list[dict[str, object]]) -> None:
    """Note what `mesh-sim fuzz --mutant all --json` found."""
    lines = [f"{trial['name']} {trial['seed']}\n" for trial in trials if trial["killed"]]
    FILE.write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    write(json.load(sys.stdin)["mutants"])
