"""A hostile program in a process of its own, so that it takes from a broker what a stranger could, and nothing else.

    python -m tests.chaos.attacker mutated 127.0.0.1:7401 --seed 1 --number 20000

Says what it has done as `attack.ended {...}` on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Final

from tests.chaos import floods, frames
from tests.chaos.frames import Attack, Counts
from tests.chaos.row import MissedError
from tests.e2e.processes import Process

ENDED: Final = "attack.ended"
ATTACKS: Final[dict[str, Attack]] = {
    "mutated": frames.mutated,
    "rapid-reset": frames.rapid_reset,
    "settings": frames.settings,
    "pings": frames.pings,
    "empty-data": frames.empty_data,
    "continuation": frames.continuation,
    "silent": frames.silent,
    "submissions": floods.submissions,
    "reports": floods.reports,
    "neighbour": floods.neighbour,
}


async def attack(name: str, address: str, *, seed: int, number: int, timeout_s: float = 900.0) -> Counts:
    """Run one to its end; what it counted. Raises ProcessError if it breaks off, MissedError if it sent nothing."""
    arguments = ["-m", "tests.chaos.attacker", name, address, "--seed", str(seed), "--number", str(number)]
    attacker = Process(f"attacker-{name}", arguments)
    await attacker.start()
    try:
        said = await attacker.said(ENDED, timeout_s)
    finally:
        await attacker.kill()
    counts: Counts = json.loads(said.partition(ENDED)[2])
    if not any(counts.values()):
        raise MissedError(f"the attack {name} sent nothing")
    return counts


def main() -> int:
    """Run one attack."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.attacker")
    parser.add_argument("name", choices=sorted(ATTACKS))
    parser.add_argument("address")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--number", type=int, required=True)
    asked = parser.parse_args()
    counts = ATTACKS[asked.name](asked.address, asked.seed, asked.number)
    print(ENDED, json.dumps(counts), file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
