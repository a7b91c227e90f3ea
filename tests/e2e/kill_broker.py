"""A broker that is killed again and again under load: nothing that it acknowledged may be lost or happen twice.

    python -m tests.e2e.kill_broker --kills 5 --rate 200 --seed 1 --json

Jobs of 20 to 200 ms are submitted at a steady rate, whether the broker answers or not (open loop), to four agents that
stay up. A seeded time after a seeded number of acknowledgements the broker gets SIGKILL and is started again on the
same file; a kill counts only if agents held work at that moment, as the store says. In the end the histories of the
submitter and of the agents are held against the store. The exit code is 0 only if nothing is lost, double, phantom or
run again without need, and the broker was ready within two seconds each time.

`MESH_SABOTAGE=forget-ack`: the submitter claims an acknowledgement that no broker gave; the run must fail.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from uuid import UUID

from mesh_client import MeshClient, MeshClientError
from tests.e2e.course import Course
from tests.e2e.history import Findings
from tests.e2e.load import Load
from tests.e2e.processes import ProcessError, count_held, store_file

AGENTS: Final = ("a1", "a2", "a3", "a4")
SLOTS: Final = 16
RUN_S: Final = (0.02, 0.2)
READY_MAX_S: Final = 2.0
QUIET_S: Final = 120.0
IDLE_KILLS_MAX: Final = 10
MOMENT_S: Final = 0.5
"""Within it every part of a turn of the broker comes by, also of one that a control makes slow."""
SABOTAGES: Final = ("", "forget-ack")


@dataclass(slots=True)
class Kills:
    """What the kills hit, in their order."""

    in_flight: list[int] = field(default_factory=list)
    ready_s: list[float] = field(default_factory=list)


class KillBroker:
    """One run in `folder`, which must be empty."""

    def __init__(
        self, folder: Path, *, kills: int, rate: float, seed: int, program: Sequence[str] = ("-m", "broker.cli")
    ) -> None:
        self._kills_wanted = kills
        self._rate = rate
        self._course = Course(folder, settings={}, seed=seed, broker_program=program)
        self.kills = Kills()

    async def run(self) -> Findings:
        """Load, faults, quiet, check. Raises ProcessError, MeshClientError."""
        async with self._course:
            for name in AGENTS:
                await self._course.start_agent(name, slots=SLOTS)
            async with self._course.load(rate=self._rate, run_s=RUN_S) as load:
                await self._kill_all(load)
            return await self._course.judge(QUIET_S)

    # --- faults -----------------------------------------------------------------------------------------------------

    async def _kill_all(self, load: Load) -> None:
        idle = 0
        while len(self.kills.in_flight) < self._kills_wanted and idle < IDLE_KILLS_MAX:
            await load.until_acknowledged(self._course.generator.randint(int(self._rate / 3), int(1.5 * self._rate)))
            # Right after an answer a commit has just ended: a kill there would always meet the broker between two.
            await asyncio.sleep(self._course.generator.uniform(0, MOMENT_S))
            held = await self._kill()
            if not held:
                idle += 1
        await load.until_acknowledged(int(self._rate / 3))

    async def _kill(self) -> int:
        """Kill and start again; how many attempts agents held. Only a kill with work in flight is noted."""
        mesh = self._course.mesh
        await mesh.broker.kill()
        held = count_held(store_file(mesh.data))
        began_s = time.monotonic()
        await mesh.start_broker()
        async with MeshClient(mesh.addresses.api) as client:
            async for _ in client.list(limit=1):
                pass
        if held:
            self.kills.in_flight.append(held)
            self.kills.ready_s.append(round(time.monotonic() - began_s, 3))
            print(f"killed with {held} attempts in flight, ready after {self.kills.ready_s[-1]} s", file=sys.stderr)
        return held

    def forget(self) -> None:
        """Sabotage: an acknowledgement that no broker gave."""
        self._course.history.add("submit", UUID(int=1).hex, "ok")


def main() -> int:
    """Run as the command line says; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.kill_broker", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--rate", type=float, default=200.0, help="submissions a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ready-max", type=float, default=READY_MAX_S, help="seconds that a start may take")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    asked = parser.parse_args()
    sabotage = os.environ.get("MESH_SABOTAGE", "")
    if sabotage not in SABOTAGES:
        parser.error(f"no sabotage is called {sabotage!r}")
    with tempfile.TemporaryDirectory(prefix="mesh-kill-broker-") as name:
        return _run(asked, Path(name), sabotage)


def _run(asked: argparse.Namespace, folder: Path, sabotage: str) -> int:
    async def run() -> tuple[Findings, Kills]:
        course = KillBroker(folder, kills=asked.kills, rate=asked.rate, seed=asked.seed)
        if sabotage:
            course.forget()
        return await course.run(), course.kills

    try:
        findings, kills = asyncio.run(run())
    except (ProcessError, MeshClientError, ExceptionGroup) as error:
        traceback.print_exception(error)
        return 1
    if asked.json:
        print(json.dumps(as_json(findings, kills)))
    slow = [seconds for seconds in kills.ready_s if seconds > asked.ready_max]
    is_ok = not findings.wrong() and not slow and len(kills.in_flight) == asked.kills
    for name, found in findings.wrong().items():
        print(f"{name}: {len(found)}, the first of them {found[0]}", file=sys.stderr)
    if slow:
        print(f"ready too late: {slow} s, allowed are {asked.ready_max} s", file=sys.stderr)
    print(
        f"{findings.acknowledged} acknowledged, {findings.final} final: {'ok' if is_ok else 'FAILED'}", file=sys.stderr
    )
    return 0 if is_ok else 1


def as_json(findings: Findings, kills: Kills) -> dict[str, object]:
    """What `--json` prints; its schema is `docs/schemas/kill_broker.json`."""
    return {
        "kills_fired": len(kills.in_flight),
        "acknowledged": findings.acknowledged,
        "final": findings.final,
        "lost": len(findings.lost),
        "double": len(findings.double),
        "phantom": len(findings.phantom),
        "needless_reruns": len(findings.wasted),
        "unfenced": len(findings.unfenced),
        "ran_twice": len(findings.ran_twice),
        "unfounded": len(findings.unfounded),
        "ran_after_terminal": len(findings.ran_after_terminal),
        "over_max": len(findings.over_max),
        "stuck": len(findings.stuck),
        "counters": len(findings.counters),
        "ready_s": kills.ready_s,
        "in_flight_at_kill": kills.in_flight,
    }


if __name__ == "__main__":
    sys.exit(main())
