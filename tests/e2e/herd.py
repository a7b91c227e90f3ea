"""A herd of agents that lose their broker all at once, and come back when it is there again.

    python -m tests.e2e.herd --agents 500 --json
    python -m tests.e2e.herd --agents 5000 --kill

Agents in a few processes (`tests.e2e.fleet --light`), `echo` jobs at a steady rate, a restart of the broker in order or
(`--kill`) by SIGKILL. The run is good if all agents are active again, none of them is taken for dead afterwards for
longer than a lease, submissions go on and nothing is lost or runs again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from broker import series
from broker.dispatch.model import SECOND_US, DispatchPolicy
from mesh_client import MeshClientError
from tests.e2e.course import Course
from tests.e2e.history import Findings
from tests.e2e.load import Load
from tests.e2e.page import rss_kib, told
from tests.e2e.processes import BROKER_PROGRAM, Process, ProcessError
from tests.e2e.stored import percentile, percentile_s

PROCESSES: Final = 2
RATE: Final = 50.0
ACTIVE: Final = ("active",)
RETURN_S: Final = 120.0
LOOK_S: Final = 0.2
"""Between two looks at the broker's metrics: with thousands of agents each costs it some milliseconds."""
LEAVE_S: Final = 60.0
"""Thousands of agents say Goodbye."""
WATCH_S: Final = DispatchPolicy().lease_us / SECOND_US + 1.0
"""Whoever is not heard after its return is given up within a lease."""


@dataclass(slots=True)
class Figures:
    """What was measured besides the findings."""

    agents: int
    processes: int = PROCESSES
    connected_s: float = 0.0
    away_s: float = 0.0
    half_again_s: float = 0.0
    all_again_s: float = 0.0
    falsely_dead: int = 0
    came_again: int = 0
    acknowledged_returning: int = 0
    acknowledged_meanwhile: int = 0
    p99_s: float = 0.0
    submit_p99_s: float = 0.0
    kib_per_agent: dict[str, float] = field(default_factory=dict)


class Herd:
    """One run of `agents` agents in `folder`, which must be empty."""

    def __init__(
        self, folder: Path, *, agents: int, is_killed: bool = False, program: Sequence[str] = BROKER_PROGRAM
    ) -> None:
        self.figures = Figures(agents)
        self._is_killed = is_killed
        self._returning = (0.0, 0.0)  # wall clock: the broker is ready, all agents are back
        self._course = Course(folder, settings={}, broker_program=program)
        share = -(-agents // PROCESSES)
        self._fleets = [
            Process(f"fleet-{first}", self._program(first, min(share, agents - first)))
            for first in range(0, agents, share)
        ]

    def _program(self, first: int, number: int) -> list[str]:
        where = ["--broker", self._course.mesh.addresses.mesh, "--first", str(first), "--agents", str(number)]
        return ["-m", "tests.e2e.fleet", str(self._course.agents_file), "--light", *where]

    async def run(self) -> Findings:
        """Connect, restart, watch, judge. Raises ProcessError, MeshClientError, TimeoutError."""
        course, figures = self._course, self.figures
        async with course:
            try:
                await self._connect()
                async with course.load(rate=RATE, run_s=None) as load:
                    await load.until_acknowledged(int(RATE))
                    await self._restart(load)
                    before = len(load.acknowledged)
                    await self._watch()
                    figures.acknowledged_meanwhile = len(load.acknowledged) - before
                for fleet in self._fleets:
                    await fleet.stop(LEAVE_S)
                findings = await course.judge()
            finally:
                for fleet in self._fleets:
                    await fleet.kill()
        figures.came_again = self._came_again()
        figures.p99_s = percentile_s(course.jobs, 0.99)
        figures.submit_p99_s = percentile(self._submit_s() or [0.0], 0.99)  # none was made while they came back
        return findings

    async def _connect(self) -> None:
        empty_kib = rss_kib(self._course.mesh.broker.pid)
        began_s = time.monotonic()
        for fleet in self._fleets:
            await fleet.start()
        await self._until_active(self.figures.agents)
        self.figures.connected_s = time.monotonic() - began_s
        full_kib = rss_kib(self._course.mesh.broker.pid)
        fleets_kib = sum(rss_kib(fleet.pid) for fleet in self._fleets)
        agents = self.figures.agents
        self.figures.kib_per_agent = {"broker": (full_kib - empty_kib) / agents, "agent": fleets_kib / agents}

    async def _restart(self, load: Load) -> None:
        mesh = self._course.mesh
        began_s = time.monotonic()
        with self._course.during("kill" if self._is_killed else "restart", "broker"):
            await (mesh.broker.kill() if self._is_killed else mesh.broker.stop())
            await mesh.start_broker()
        ready_s, ready_at_s, before = time.monotonic(), time.time(), len(load.acknowledged)
        self.figures.away_s = ready_s - began_s
        await self._until_active(self.figures.agents // 2)
        self.figures.half_again_s = time.monotonic() - ready_s
        await self._until_active(self.figures.agents)
        self.figures.all_again_s = time.monotonic() - ready_s
        self.figures.acknowledged_returning = len(load.acknowledged) - before
        self._returning = ready_at_s, time.time()

    def _came_again(self) -> int:
        """Agents whose first session after the return did not last."""
        entries = self._course.entries()
        sessions = Counter(entry.key for entry in entries if entry.op == "session" and entry.t >= self._returning[0])
        return sum(number > 1 for number in sessions.values())

    def _submit_s(self) -> list[float]:
        """How long each submission waited for its acknowledgement that was made while the agents came back."""
        ready_s, back_s = self._returning
        entries = [entry for entry in self._course.entries() if entry.op == "submit"]
        asked_s = {entry.key: entry.t for entry in entries if entry.phase == "invoke" and ready_s <= entry.t <= back_s}
        return [entry.t - asked_s[entry.key] for entry in entries if entry.phase == "ok" and entry.key in asked_s]

    async def _watch(self) -> None:
        """How many are not active at the worst moment, although all of them are there."""
        until_s = time.monotonic() + WATCH_S
        while time.monotonic() < until_s:
            self.figures.falsely_dead = max(self.figures.falsely_dead, self.figures.agents - await self._active())
            await asyncio.sleep(LOOK_S)

    async def _until_active(self, number: int) -> None:
        async with asyncio.timeout(RETURN_S):
            while True:
                if await self._active() >= number:
                    return
                await asyncio.sleep(LOOK_S)

    async def _active(self) -> int:
        return int((await told(self._course.mesh, series.AGENTS)).get(ACTIVE, 0))


def main() -> int:
    """Run as the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.herd", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--agents", type=int, default=500)
    parser.add_argument("--kill", action="store_true", help="SIGKILL instead of a restart in order")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    asked = parser.parse_args()

    async def run(folder: Path) -> tuple[Findings, Figures]:
        herd = Herd(folder, agents=asked.agents, is_killed=asked.kill)
        return await herd.run(), herd.figures

    with tempfile.TemporaryDirectory(prefix="mesh-herd-") as name:
        try:
            findings, figures = asyncio.run(run(Path(name)))
        except (ProcessError, MeshClientError, ExceptionGroup, TimeoutError) as error:
            traceback.print_exception(error)
            return 1
    if asked.json:
        print(json.dumps(as_json(findings, figures)))
    is_ok = not findings.wrong() and not figures.falsely_dead and bool(figures.acknowledged_meanwhile)
    for wrong, found in findings.wrong().items():
        print(f"{wrong}: {len(found)}, the first of them {found[0]}", file=sys.stderr)
    print(
        f"{figures.agents} agents: away for {figures.away_s:.2f} s, all active again {figures.all_again_s:.2f} s after "
        f"the broker was ready; {figures.kib_per_agent['broker']:.0f} KiB of the broker each: "
        f"{'ok' if is_ok else 'FAILED'}",
        file=sys.stderr,
    )
    return 0 if is_ok else 1


def as_json(findings: Findings, figures: Figures) -> dict[str, object]:
    """What `--json` prints; its schema is `docs/schemas/herd.json`."""
    return {
        "agents": figures.agents,
        "processes": figures.processes,
        "connected_s": round(figures.connected_s, 3),
        "restart": {
            "away_s": round(figures.away_s, 3),
            "half_again_s": round(figures.half_again_s, 3),
            "all_again_s": round(figures.all_again_s, 3),
            "falsely_dead": figures.falsely_dead,
        },
        "jobs": {
            "acknowledged": findings.acknowledged,
            "acknowledged_meanwhile": figures.acknowledged_meanwhile,
            "final": findings.final,
            "lost": len(findings.lost),
            "double": len(findings.double),
            "wasted": len(findings.wasted),
            "p99_ms": round(1_000 * figures.p99_s, 1),
            "submit_p99_ms": round(1_000 * figures.submit_p99_s, 1),
        },
        "evenness": round(findings.evenness, 4),
        "kib_per_agent": {where: round(kib, 1) for where, kib in figures.kib_per_agent.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
