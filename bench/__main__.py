"""`python -m bench [--quick]`: measures everything, writes `bench/results/latest.json`, prints it, shows a table.

The table goes to standard error, the JSON object (schema: `docs/schemas/bench.json`) to standard output. `--quick`
takes fewer or shorter rounds for the same figures, and leaves `mesh-sim solve` out. `--profile DIRECTORY` measures
nothing: it leaves the profiler's statistics of a broker and an agent under load there.
"""

import argparse
import asyncio
import json
import subprocess
import sys
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from bench import commands, end_to_end
from bench.figures import figure
from bench.machine import loop_ns, machine
from bench.table import show
from compiled import building
from compiled.building import CompileError
from compiled.copies import FOLDER

LATEST: Final = Path(__file__).parent / "results/latest.json"
AGENT_COUNTS: Final = (1, 10, 1_000)
BACKLOGS: Final = (0, 100_000, 1_000_000)
RATES: Final = (500.0, 2_000.0)
BACKLOG_LARGE: Final = 1_000_000
STEP_CASES: Final = (
    ("filled", 1_000_000),
    ("deadlines", 1_000_000),
    ("cancels", 1_000_000),
    ("closed", 512_000),
    ("silent", 512_000),
    ("stalled", 512_000),
    ("removed", 1_000_000),
)


def _measured_apart(module: str, *arguments: str, python: str = sys.executable) -> Any:
    """The JSON of a module that runs in a process of its own: no measurement leaves memory to the next one."""
    done = subprocess.run([python, "-m", module, *arguments], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def _dispatch(console: Console, *, is_quick: bool) -> list[dict[str, Any]]:
    rows = []
    for agents, queued in product(AGENT_COUNTS, BACKLOGS):
        rounds = (1 if is_quick else 3) if queued == BACKLOG_LARGE else (2 if is_quick else 5)
        console.print(f"dispatch: {agents} agents, {queued:,} jobs queued, {rounds} rounds")
        asked = ("--agents", str(agents), "--queued", str(queued), "--rounds", str(rounds))
        rows.append(_measured_apart("bench.dispatch", *asked))
    return rows


def _steps(console: Console) -> list[dict[str, Any]]:
    rows = []
    for case, size in STEP_CASES:
        console.print(f"longest step: {case}, {size:,}")
        rows.append(_measured_apart("bench.steps", "--case", case, "--size", str(size)))
    return rows


def _simulation(console: Console, *, is_quick: bool) -> dict[str, Any]:
    jobs, rounds = (5_000, 3) if is_quick else (20_000, 5)
    console.print(f"simulation: {jobs:,} jobs a play, {rounds} rounds, beside SimPy and Ciw")
    asked = ("--jobs", str(jobs), "--rounds", str(rounds))
    measured: dict[str, Any] = _measured_apart("bench.simulation", *asked)
    try:
        console.print("simulation, compiled: `make compile` first, if it was not done")
        building.make()
    except CompileError as error:
        return measured | {"not_compiled": str(error)}
    compiled = _measured_apart("bench.simulation", *asked, python=str(FOLDER / "python"))
    return measured | {"mesh": measured["mesh"] + compiled["mesh"]}


async def _end_to_end(console: Console, *, is_quick: bool) -> tuple[dict[str, object], list[dict[str, object]]]:
    jobs, rounds = 30_000 if is_quick else 60_000, 5
    console.print(f"end to end: {jobs:,} jobs, durable and not, {rounds} rounds")
    flood = await end_to_end.measure(jobs, rounds)
    paced = []
    for rate in RATES:
        console.print(f"open loop: {rate:,.0f} jobs/s")
        paced.append(await end_to_end.open_loop(rate, 5.0 if is_quick else 20.0))
    return flood, paced


def _commands(console: Console, *, is_quick: bool) -> dict[str, Any]:
    help_rounds, rounds = (5, 1) if is_quick else (9, 3)
    console.print(f"commands: {help_rounds} rounds of each help, {rounds} of the demo and of failover")
    measured: dict[str, Any] = {
        "commands": commands.measure(help_rounds, rounds),
        "failover": commands.failover(rounds),
    }
    if not is_quick:
        console.print("commands: mesh-sim solve, with equal zones and with any")
    return measured | {"solve": commands.solve(is_measured=not is_quick)}


def measure(console: Console, *, is_quick: bool) -> dict[str, Any]:
    """All figures."""
    calibration = {"loop_ns": figure([loop_ns() for _ in range(5)], "ns", 2)}
    memory = _measured_apart("bench.memory", "--jobs", "100000" if is_quick else "500000")
    dispatch = _dispatch(console, is_quick=is_quick)
    steps = _steps(console)
    simulation = _simulation(console, is_quick=is_quick)
    flood, paced = asyncio.run(_end_to_end(console, is_quick=is_quick))
    return {
        "version": version("jobmesh"),
        "quick": is_quick,
        "machine": machine(),
        "calibration": calibration,
        "dispatch": dispatch,
        "steps": steps,
        "end_to_end": flood,
        "open_loop": paced,
        "memory": memory,
        "simulation": simulation,
        **_commands(console, is_quick=is_quick),
    }


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="What the mesh reaches on this machine.")
    parser.add_argument("--quick", action="store_true", help="fewer or shorter rounds")
    parser.add_argument("--profile", type=Path, metavar="DIRECTORY", help="profile a broker and an agent instead")
    asked = parser.parse_args()
    console = Console(stderr=True, highlight=False)
    if asked.profile is not None:
        asked.profile.mkdir(parents=True, exist_ok=True)
        asyncio.run(end_to_end.flood_round(30_000, is_durable=True, profiles=asked.profile.absolute()))
        console.print(f"read them with: python -m pstats {asked.profile}/broker.prof")
        return
    results = measure(console, is_quick=asked.quick)
    LATEST.parent.mkdir(exist_ok=True)
    LATEST.write_text(f"{json.dumps(results, indent=2)}\n")
    show(console, results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
