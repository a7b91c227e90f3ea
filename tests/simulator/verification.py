"""The truth table as `mesh-sim verify` runs it, and a sabotage that must turn it red.

    python -m tests.simulator.verification --quick --seed 3
    MESH_SABOTAGE=service=1.05 python -m tests.simulator.verification --quick

With `MESH_SABOTAGE=service=1.05` everything that takes time takes 5 % longer: at least four of five cases must fail.
Evenness (E01, E02) and the back-off of agents (F16) have no such time in them, and F06 has a bound of more than that.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

from simulator.backends import Loky
from simulator.trial import Tree
from simulator.truth import Report, dump, verify
from simulator.truth_table import read_table

_SECONDS = re.compile(r"([0-9.]+(?:e-?[0-9]+)?) (ms|s|min|h)")


def slower(tree: Tree, factor: float) -> Tree:
    """The same scenario, with jobs, repairs and heartbeats that take `factor` times as long; patience stays."""

    def stretched(value: object) -> object:
        if isinstance(value, dict):
            return {key: stretched(one) for key, one in value.items()}
        if isinstance(value, str) and (found := _SECONDS.fullmatch(value)):
            return f"{float(found[1]) * factor!r} {found[2]}"
        return value

    bent: Tree = json.loads(json.dumps(tree))
    for work in bent["work"].values():
        work["duration"] = stretched(work["duration"])
    for fault in bent.get("faults", ()):
        fault |= {key: stretched(value) for key, value in fault.items() if key in ("mttr", "each", "repair")}
    for key in ("heartbeat", "idle-heartbeat", "suspect", "lease"):
        if key in bent["broker"]:
            bent["broker"][key] = stretched(bent["broker"][key])
    return bent


def bend(tree: Tree) -> Tree:
    """What the sabotage asks for."""
    name, _, factor = os.environ.get("MESH_SABOTAGE", "").partition("=")
    return slower(tree, float(factor)) if name == "service" else tree


def verified(*ids: str, quick: bool = True, seed: int = 1, factor: float | None = None) -> Report:
    """The report on these cases; all of the table (or of its quick part) without."""
    table = read_table()
    wanted = ids or (table.quick if quick else [case.id for case in table.cases])
    bent = bend if factor is None else lambda tree: slower(tree, factor)
    cases = [case for case in table.cases if case.id in wanted]
    return verify(cases, seed=seed, quick=quick, bend=bent, backend=Loky(2))


def main() -> int:
    """Print the report; 0 when every case passes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ids", nargs="*")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path)
    chosen = parser.parse_args()
    report = verified(*chosen.ids, quick=chosen.quick, seed=chosen.seed)
    (chosen.out.write_text if chosen.out else sys.stdout.write)(dump(report) + "\n")
    return int(bool(report.failed or report.skipped))


if __name__ == "__main__":
    sys.exit(main())
