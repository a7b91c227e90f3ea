"""`make telemetry`: what the broker tells, what the documentation says of it, and what the dashboards make of it.

    python -m tests.meta.telemetry [--json]

Starts a broker, three agents and a real Prometheus, makes trouble (`tests.grafana.fleet`), runs the query of every
panel, and measures a scrape of a large broker. Words go to stderr; with `--json` the result goes to stdout
(docs/schemas/telemetry.json). Exit 0 when every panel has data (or is allowed to have none), every series is documented
and told, and a snapshot costs the event loop no more than `LOOP_MS_MAX`.

`MESH_SABOTAGE` must turn it red: `dead-panel` has a panel ask for a series that nobody tells, `undocumented` forgets a
line of the documentation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from broker import series
from tests.broker.observe.bench import measure
from tests.grafana.fleet import fleet
from tests.grafana.panels import ALLOWED_EMPTY, Executed, dashboards, execute, panels_of
from tests.meta.check import ROOT

REFERENCE = ROOT / "docs/telemetry.md"
AGENTS, QUEUED = 1_000, 100_000
LOOP_MS_MAX = 10.0
SABOTAGES = ("dead-panel", "undocumented")
_ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \|(?P<labels>[^|]*)\|[^|]+\|[^|]+\|$", re.MULTILINE)
_EXPOSED = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)
_SAMPLE = re.compile(r"^(\w+)[ {]", re.MULTILINE)
_SUFFIX = re.compile(r"_(bucket|sum|count)$")


class Documented(NamedTuple):
    """A row of the reference."""

    name: str
    type: str
    labels: tuple[str, ...]


class Watched(NamedTuple):
    """What the fleet gave: what became of the panels, and the page of the broker afterwards."""

    panels: Executed
    page: str


def documented(text: str) -> list[Documented]:
    """The series of the reference, in its order."""
    return [
        Documented(row["name"], row["type"], tuple(re.findall(r"`(\w+)`", row["labels"])))
        for row in _ROW.finditer(text)
    ]


def exposed(page: str) -> dict[str, str]:
    """Series of a metrics page and their types."""
    return dict(_EXPOSED.findall(page))


def told(page: str) -> set[str]:
    """Series of a metrics page that have a sample."""
    names = set(_SAMPLE.findall(page))
    return names | {_SUFFIX.sub("", name) for name in names}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    options = _parser().parse_args(argv)
    sabotage = os.environ.get("MESH_SABOTAGE", "")
    if sabotage and sabotage not in SABOTAGES:
        _say(f"telemetry: no sabotage {sabotage!r}; there are {', '.join(SABOTAGES)}")
        return 2
    if shutil.which("prometheus") is None:
        _say("telemetry: nothing was run: prometheus is not installed (make system)")
        return 1 if os.environ.get("CI") == "true" else 0
    result = report(asyncio.run(_watch(sabotage)), sabotage)
    wrong = complaints(result)
    for sentence in wrong or ["every panel has data, every series is documented and told"]:
        _say(f"telemetry: {sentence}")
    if options.json:
        print(json.dumps(result))
    return 1 if wrong else 0


async def _watch(sabotage: str) -> Watched:
    boards = dashboards()
    if sabotage == "dead-panel":
        panels_of(boards["fleet"])[0]["targets"][0]["expr"] = "mesh_nobody_tells_this"
    with tempfile.TemporaryDirectory(prefix="mesh-telemetry-") as folder:
        async with fleet(Path(folder)) as running:
            _say("telemetry: a fleet runs, loses an agent, and finds it again (about ten seconds)")
            await running.seen()
            return Watched(await execute(running.prometheus, boards), running.page())


def report(watched: Watched, sabotage: str = "") -> dict[str, Any]:
    """The result, in the form of docs/schemas/telemetry.json."""
    boards = dashboards()
    rows = documented(REFERENCE.read_text(encoding="utf-8"))
    if sabotage == "undocumented":
        rows = rows[1:]
    names, on_page = {row.name for row in rows}, exposed(watched.page)
    _say(f"telemetry: measuring a scrape with {AGENTS} agents and {QUEUED} queued jobs")
    cost = measure(AGENTS, QUEUED)
    panels = watched.panels
    return {
        "dashboards": len(boards),
        "panels": sum(len(panels_of(board)) for board in boards.values()),
        "executed": panels.queries,
        "errors": panels.errors,
        "empty": [{"panel": panel, "allowed_because": ALLOWED_EMPTY.get(panel, "")} for panel in panels.empty],
        "alerts": 0,
        "alerts_fired_and_resolved": 0,
        "metrics": {
            "documented": len(rows),
            "exposed": len(on_page),
            "undocumented": sorted(on_page.keys() - names),
            "dead": sorted(names - told(watched.page)),
            "max_series": sum(not line.startswith("#") for line in watched.page.splitlines()),
        },
        "scrape": {
            "ms": round(cost["page_ms"], 2),
            "bytes": int(cost["bytes"]),
            "agents": AGENTS,
            "queued": QUEUED,
            "loop_ms": round(cost["snapshot_ms"], 2),
            "count_us_per_job": round(cost["count_us_per_job"], 3),
        },
    }


def complaints(result: dict[str, Any]) -> list[str]:
    """What is wrong, one sentence each."""
    metrics = result["metrics"]
    wrong = [f"a query fails: {error}" for error in result["errors"]]
    wrong += [f"no data: {one['panel']}" for one in result["empty"] if not one["allowed_because"]]
    wrong += [f"told and not documented: {name}" for name in metrics["undocumented"]]
    wrong += [f"documented and never told: {name}" for name in metrics["dead"]]
    wrong += ["no query was run"] if not result["executed"] else []
    loop_ms = result["scrape"]["loop_ms"]
    wrong += [f"a snapshot stops the event loop for {loop_ms} ms, above {LOOP_MS_MAX}"] if loop_ms > LOOP_MS_MAX else []
    return wrong


def expected() -> list[Documented]:
    """What the reference must say, from the definitions."""
    return [Documented(one.name, one.type, one.labels) for one in (*series.ALL, *series.PROCESS)]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make telemetry", description="What the broker tells, and who shows it.")
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object on stdout")
    return parser


if __name__ == "__main__":
    sys.exit(main())
