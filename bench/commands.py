"""What people wait for, as processes: the help of each command, the demo, failover, and what `mesh-sim solve` answers.

Wall time, as a user has it. Failover is what the row `agent-sigkill` of `tests.chaos` gives in its short form.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from bench.figures import Figure, figure

ROOT: Final = Path(__file__).resolve().parents[1]
HELPS: Final = {"mesh_help": "mesh", "mesh_agent_help": "mesh-agent", "mesh_sim_help": "mesh-sim"}
SIZED: Final = "simulator/scenarios/sizing.yaml"
REPORTED: Final = "simulator/scenarios/zone-loss-at-peak.yaml"
ZONES: Final = ("equal", "any")
ERROR_CHARACTERS: Final = 2_000


class CommandError(Exception):
    """A command that gave no answer. The text says what it said instead."""


def measure(help_rounds: int, demo_rounds: int) -> dict[str, object]:
    """Seconds of `--help` of each command after one round that warms the files, and of the demo."""
    seconds: dict[str, list[float]] = {name: [] for name in HELPS}
    for _ in range(1 + help_rounds):
        for name, command in HELPS.items():
            seconds[name].append(help_s(command))
    helps = {f"{name}_s": figure(each[1:], "s") for name, each in seconds.items()}
    return helps | {
        "demo": demo_of([answer(sys.executable, "-m", "tests.e2e.demo", "--json") for _ in range(demo_rounds)])
    }


def help_s(command: str) -> float:
    """How long `command --help` takes, from the start of the process to its end."""
    began_s = time.perf_counter()
    subprocess.run([_program(command), "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began_s


def demo_of(told: Sequence[dict[str, Any]]) -> dict[str, object]:
    """The figures of what the demo printed, once for each round."""
    return {
        "elapsed_s": figure([one["elapsed_s"] for one in told], "s"),
        "ok": all(one["ok"] for one in told),
    }


def failover(rounds: int) -> dict[str, object]:
    """When the work of killed agents began elsewhere; each round has a seed of its own."""
    asked = (sys.executable, "-m", "tests.chaos", "--row", "agent-sigkill", "--short", "--json", "--seed")
    return failover_of([answer(*asked, str(seed))["rows"][0] for seed in range(1, rounds + 1)])


def failover_of(rows: Sequence[dict[str, Any]]) -> dict[str, object]:
    """The figures of what the row printed. A run that missed its work, or was none, gives none but a violation."""
    not_run = [f"not run: {row['reason']}" for row in rows if row.get("status") == "not_run"]
    hit = [row for row in rows if row["recovery_ms"] is not None]
    return {
        "accepted_p50_ms": figure([row["recovery_ms"]["p50"] for row in hit], "ms"),
        "accepted_p99_ms": figure([row["recovery_ms"]["p99"] for row in hit], "ms"),
        "unaccepted_p99_ms": figure([row["figures"]["unaccepted_p99_ms"] for row in hit], "ms"),
        "accepted_moved": sum(row["figures"]["accepted_moved"] for row in hit),
        "unaccepted_moved": sum(row["figures"]["unaccepted_moved"] for row in hit),
        "violations": not_run + [text for row in rows for text in row["violations"]],
    }


def solve(*, is_measured: bool) -> dict[str, object]:
    """The smallest fleet of the sizing scenario with either kind of zones, and the size of a report."""
    if not is_measured:
        return {zones: solved_of([], []) for zones in ZONES} | {"report_bytes": figure([], "B")}
    return {zones: _solved(zones) for zones in ZONES} | {"report_bytes": figure([_report_bytes()], "B", 0)}


def _solved(zones: str) -> dict[str, Figure]:
    began_s = time.perf_counter()
    told = answer(_program("mesh-sim"), "solve", SIZED, "--zones", zones, "--no-cache", "--json")
    return solved_of([told], [time.perf_counter() - began_s])


def solved_of(told: Sequence[dict[str, Any]], seconds: Sequence[float]) -> dict[str, Figure]:
    """The figures of what `mesh-sim solve` printed, and how long it took."""
    return {"agents": figure([one["agents"] for one in told], "1", 0), "seconds": figure(seconds, "s", 1)}


def _report_bytes() -> int:
    """Of two replications: more of them change the size by a few kB."""
    with TemporaryDirectory(prefix="mesh-bench-") as folder:
        page = Path(folder) / "report.html"
        answer(
            _program("mesh-sim"), "run", REPORTED, "--replications", "2", "--no-cache", "--json", "--html", str(page)
        )
        return page.stat().st_size


def answer(*command: str) -> dict[str, Any]:
    """The JSON that a command prints. Its exit code does not count: a demo that fails still says what it saw.

    Raises:
        CommandError: it printed no JSON.
    """
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    try:
        told: dict[str, Any] = json.loads(done.stdout)
    except json.JSONDecodeError as error:
        said = done.stderr[-ERROR_CHARACTERS:].strip()
        raise CommandError(f"{' '.join(command)} ended with code {done.returncode}: {said}") from error
    return told


def _program(command: str) -> str:
    return str(Path(sys.executable).with_name(command))
