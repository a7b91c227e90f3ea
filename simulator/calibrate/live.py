"""The live part of a profile: a broker and agents are started on this machine, loaded for some seconds, and measured.

Costs come from the processor time of the event loop's thread over phases of different mixtures (a queue filled by
batches and one by one, drained, a steady load); commit times from the broker's own histogram; the network from bytes
sent to and fro over loopback. What remains of the way of a job is what agents add: its spread is that of single jobs,
its mean is fitted so that the simulation of the very run that was measured has the latency that was measured.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mesh_client import JobSpec, MeshClient
from simulator.calibrate import counters
from simulator.calibrate.costs import fitted, quantiles_of_buckets
from simulator.calibrate.counters import Counters
from simulator.emulate.play import EmulationError, Played, Tell, load, read_back
from simulator.emulate.playable import OPERATION, as_simulated
from simulator.emulate.simulated import play
from simulator.emulate.stage import Stage, Starts, add_group
from simulator.laws import Law
from simulator.profile import Live, parts_of, quantiles_law
from simulator.scenario import Costs, Scenario
from simulator.units import duration_text, rate_text

GROUP: Final = "loaded"
QUEUE: Final = "queue"
SETTLE_S: Final = 2.0
MEAN_S: Final = 0.1
"""What jobs take in the steady phase."""
SLOTS: Final = 32
BATCH: Final = 256
BATCHES: Final = 8
SINGLES: Final = 300
IDLE_S: Final = 2.0
PINGS: Final = 2_000
STEPS: Final = 200
"""Quantiles of a law."""
ROUNDS: Final = 4
"""Simulations that fit the mean: each takes out what the one before was off."""
LEAST_S: Final = 1e-6
POLL_S: Final = 0.25
DRAIN_LIMIT_S: Final = 120.0

Floats = npt.NDArray[np.float64]


def scenario_of(rate: float, run_s: float) -> Scenario:
    """What is measured under: agents with room for all that arrives, so that no job waits for a slot."""
    agents = max(2, round(3 * rate * MEAN_S / SLOTS))
    return Scenario.model_validate(
        {
            "name": "calibration",
            "horizon": {"settle": f"{SETTLE_S} s", "run": f"{run_s} s", "finish": "60 s"},
            "groups": {GROUP: {"agents": {"count": agents, "slots": SLOTS}}},
            "work": {
                "jobs": {"group": GROUP, "arrivals": {"poisson": f"{rate}/s"}, "duration": {"exponential": "100 ms"}}
            },
        }
    )


@dataclass(slots=True)
class Measured:
    """What a run gave, before anything is made of it. `phases` are (counters, seconds) by name."""

    starts: Starts = field(default_factory=Starts)
    phases: dict[str, tuple[Counters, float]] = field(default_factory=dict)
    played: Played = field(default_factory=Played)
    one_way_s: Floats = field(default_factory=lambda: np.zeros(0))


async def calibrate(rate: float, run_s: float, seed: int, folder: Path, tell: Tell) -> Live:
    """Measure, in an empty folder. Raises ProcessError, MeshClientError, EmulationError, OSError."""
    scenario = scenario_of(rate, run_s)
    measured = await _measure(scenario, seed, folder, tell)
    tell("fitting what agents add to the run that was measured")
    return profile_of(scenario, rate, seed, measured)


async def _measure(scenario: Scenario, seed: int, folder: Path, tell: Tell) -> Measured:
    measured = Measured(one_way_s=await asyncio.to_thread(one_way_seconds))
    async with Stage(folder, scenario, Starts()) as stage:
        measured.starts = await stage.start()
        tell(f"a broker took {measured.starts.broker_s:.2f} s to start, an agent {measured.starts.agent_s:.2f} s")
        gauge = _Gauge(stage, measured.phases)
        await gauge.phase("idle", asyncio.sleep(IDLE_S))
        await gauge.phase("steady", load(stage, seed, measured.played, tell))
        await read_back(stage, seed, measured.played)
        client = stage.clients[GROUP]
        await add_group(client, QUEUE)
        await gauge.phase("batches", _submit(stage, [BATCH] * BATCHES))
        await gauge.phase("singles", _submit(stage, [1] * SINGLES))
        tell("a queue is filled; draining it")
        await gauge.phase("drained", _drain(stage))
    return measured


class _Gauge:
    """Reads the broker's counters around phases."""

    def __init__(self, stage: Stage, phases: dict[str, tuple[Counters, float]]) -> None:
        self._stage = stage
        self._phases = phases

    async def phase(self, name: str, work: Any) -> None:
        """Await `work`, and keep what the broker counted meanwhile."""
        before, began_s = await self._read(), time.monotonic()
        await work
        spent_s = time.monotonic() - began_s
        self._phases[name] = (await self._read() - before, spent_s)

    async def _read(self) -> Counters:
        mesh = self._stage.mesh
        return await asyncio.to_thread(counters.read, mesh.addresses.metrics, mesh.broker.pid)


async def _submit(stage: Stage, sizes: Sequence[int]) -> None:
    async with MeshClient(stage.mesh.addresses.api, group=QUEUE) as client:
        for size in sizes:
            for answer in await client.submit_many(JobSpec(OPERATION, json={"seconds": 0}) for _ in range(size)):
                answer.accepted()


async def _drain(stage: Stage) -> None:
    """Let an agent have what is queued, and wait until it is done."""
    await stage.mesh.start_agent("drainer", slots=SLOTS, options=("--group", QUEUE))
    for _ in range(round(DRAIN_LIMIT_S / POLL_S)):
        await asyncio.sleep(POLL_S)
        if not await _live(stage):
            return
    raise EmulationError(f"the queue was not drained within {DRAIN_LIMIT_S:g} s")


async def _live(stage: Stage) -> float:
    """How many jobs are not final."""
    mesh = stage.mesh
    seen = await asyncio.to_thread(counters.read, mesh.addresses.metrics, mesh.broker.pid)
    return seen.submissions - seen.finished


def one_way_seconds(pings: int = PINGS) -> Floats:
    """Half of what a byte takes over loopback to another thread and back, so many times."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=_echo, args=(server, pings), daemon=True)
        thread.start()
        with socket.create_connection(server.getsockname()) as near:
            near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            taken = np.empty(pings)
            for index in range(pings):
                began_s = time.perf_counter()
                near.sendall(b".")
                near.recv(1)
                taken[index] = time.perf_counter() - began_s
        thread.join()
    return taken / 2


def _echo(server: socket.socket, pings: int) -> None:
    far, _ = server.accept()
    with far, suppress(OSError):
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(pings):
            far.sendall(far.recv(1))


# --- what is made of it ---------------------------------------------------------------------------------------------


def profile_of(scenario: Scenario, rate: float, seed: int, measured: Measured) -> Live:
    """The profile of a run."""
    submit_s, residual_s = ways_of(scenario, measured.played)
    steady, _ = measured.phases["steady"]
    live = Live.model_validate(
        {
            "made-at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "seed": seed,
            "jobs": len(measured.played.jobs),
            "rate": rate_text(rate),
            "busy": round(measured.played.busy, 4),
            "costs": costs_of(measured.phases),
            "commits": {"time": law_of(quantiles_of_buckets(steady.buckets, steady.commit_s))},
            "network": law_of(measured.one_way_s),
            "submit": law_of(submit_s),
            "overhead": law_of(residual_s),
            "broker-start": duration_text(round(measured.starts.broker_s, 3)),
            "agent-start": duration_text(round(measured.starts.agent_s, 3)),
        }
    )
    return fit(live, scenario, submit_s, residual_s)


def fit(live: Live, scenario: Scenario, submit_s: Floats, residual_s: Floats) -> Live:
    """The profile with `submit` and `overhead` moved, so that the simulation of the measured run has its means.

    What single jobs took on either way also holds turns and commits, which the simulation has again.
    """
    submit_off_s = overhead_off_s = 0.0
    for _ in range(ROUNDS):
        laws = {"submit": law_of(submit_s - submit_off_s), "overhead": law_of(residual_s - overhead_off_s)}
        live = live.model_copy(update=laws)
        seen = play(as_simulated(scenario, parts_of(live)), live.seed)
        submitted_s, residual_seen_s = ways_of(scenario, seen)
        submit_off_s += float(submitted_s.mean() - submit_s.mean())
        overhead_off_s += float(residual_seen_s.mean() - residual_s.mean())
    return live


def ways_of(scenario: Scenario, played: Played) -> tuple[Floats, Floats]:
    """Of each good job: from when it was due until it was accepted, and from then until its end without its own time.

    Raises EmulationError if there is none.
    """
    jobs = [job for job in played.jobs if job.is_good and job.due_s >= scenario.horizon.settle]
    if not jobs:
        raise EmulationError("no job succeeded: nothing was measured")
    submit_s = np.asarray([job.accepted_s - job.due_s for job in jobs])
    return submit_s, np.asarray([job.finished_s - job.accepted_s - job.duration_s for job in jobs])


def law_of(values_s: Floats) -> Law:
    """The quantiles of these, in whole microseconds."""
    steps = np.linspace(0.0, 1.0, STEPS + 1)
    return quantiles_law(np.round(np.maximum(np.quantile(values_s, steps), LEAST_S), 6))


def costs_of(phases: dict[str, tuple[Counters, float]]) -> Costs:
    """What the event loop spends: a submission is one by itself, with its call."""
    idle, idle_s = phases["idle"]
    prior = Costs()
    kinds = {
        "turn": prior.turn,
        "submission": prior.submission / 4,
        "call": prior.submission * 4,
        "report": prior.report,
        "frame": prior.frame,
    }
    calls = {"steady": phases["steady"][0].submissions, "batches": float(BATCHES), "singles": float(SINGLES)}
    rows = []
    for name, (seen, spent_s) in phases.items():
        beside = spent_s / idle_s
        loop_s = seen.loop_s - idle.loop_s * beside
        if name == "idle" or loop_s <= 0:
            continue
        counts = {
            "turn": seen.turns - idle.turns * beside,
            "submission": seen.submissions,
            "call": calls.get(name, 0.0),
            "report": max(0.0, seen.events - seen.submissions - idle.events * beside),
            "frame": max(0.0, seen.frames - idle.frames * beside),
        }
        rows.append((counts, loop_s))
    found = fitted(rows, kinds)
    found["submission"] += found.pop("call")
    return Costs.model_validate({kind: duration_text(round(value, 7)) for kind, value in found.items()})
