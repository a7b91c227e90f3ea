"""How many jobs a core simulates a second, at three fidelities, beside the textbook's queue in SimPy and in Ciw.

The queue is M/M/20 at a load of 0.8. The mesh simulates it with the whole dispatcher: on five agents of four slots
(`steady`: about one event for each turn of the modelled broker), and a hundred times of it on larger agents (`busy`:
turns take many events). All take turns in one process and are measured in processor time, and a ratio is of one round,
so ratios hold on a machine that others use too. `python -m bench` measures the compiled form as well, by
`build/compiled/python -m bench.simulation`: each row says which one it is of.

    python -m bench.simulation --jobs 20000 --rounds 3
"""

import argparse
import importlib
import json
import random
import time
import tracemalloc
from collections.abc import Callable, Generator
from functools import partial
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any, Final

import simpy

from agent_stub.session import session
from bench.figures import figure
from simulator.scenario import Scenario
from simulator.world import World

SERVERS: Final = 20
SERVICE_S: Final = 0.4
RATE_PER_S: Final = 40.0
CASES: Final = {"steady": (5, 4, RATE_PER_S), "busy": (20, 100, 100 * RATE_PER_S)}
"""Agents, slots of each, jobs a second."""
FIDELITIES: Final = ("exact", "broker", "wire")
QUEUED: Final = 30_000
JOB_ID: Final = bytes(16)
"""As the world makes it and the dispatcher keeps it."""

Played = tuple[int, float]
"""How many jobs, and their mean time in the system in seconds."""


def by_mesh(case: str, fidelity: str, jobs: int, seed: int) -> Played:
    """About so many jobs through the dispatcher."""
    agents, slots, rate_per_s = CASES[case]
    arrivals, duration = {"poisson": f"{rate_per_s}/s"}, {"exponential": f"{SERVICE_S} s"}
    run = World(_scenario(fidelity, agents, slots, arrivals, duration, jobs / rate_per_s), seed, 0).run()
    return run.jobs, run.figures["orders.latency.mean"]


def _scenario(
    fidelity: str, agents: int, slots: int, arrivals: dict[str, str], duration: dict[str, str], run_s: float
) -> Scenario:
    work = {"group": "erp", "arrivals": arrivals, "duration": duration}
    return Scenario.model_validate(
        {
            "horizon": {"run": f"{run_s} s"},
            "groups": {"erp": {"agents": {"count": agents, "slots": slots}}},
            "work": {"orders": work},
            "broker": {"fidelity": fidelity},
        }
    )


def by_simpy(jobs: int, seed: int) -> Played:
    """The textbook's: a resource, and a process for each job."""
    env = simpy.Environment()
    servers = simpy.Resource(env, SERVERS)
    chance = random.Random(seed)
    spent_s: list[float] = []

    def job() -> Generator[simpy.Event, Any, None]:
        came_s = env.now
        with servers.request() as turn:
            yield turn
            yield env.timeout(chance.expovariate(1 / SERVICE_S))
        spent_s.append(env.now - came_s)

    def source() -> Generator[simpy.Event, Any, None]:
        for _ in range(jobs):
            yield env.timeout(chance.expovariate(RATE_PER_S))
            env.process(job())

    env.process(source())
    env.run()
    return len(spent_s), sum(spent_s) / len(spent_s)


def by_ciw(jobs: int, seed: int) -> Played:
    """The same queue in Ciw, which is made for networks of queues."""
    ciw: Any = importlib.import_module("ciw")
    network = ciw.create_network(
        arrival_distributions=[ciw.dists.Exponential(rate=RATE_PER_S)],
        service_distributions=[ciw.dists.Exponential(rate=1 / SERVICE_S)],
        number_of_servers=[SERVERS],
    )
    ciw.seed(seed)
    simulation = ciw.Simulation(network)
    simulation.simulate_until_max_customers(jobs, method="Finish")
    records = simulation.get_all_records()
    return len(records), sum(one.exit_date - one.arrival_date for one in records) / len(records)


def queued_bytes(jobs: int) -> float:
    """What the world keeps of a job that waits, beyond what the dispatcher keeps of it."""
    scenario = _scenario("exact", 1, 1, {"even": "500/s"}, {"constant": "1 d"}, jobs / 500)
    world = World(scenario.changed({"horizon.finish": "0 s"}), 1, 0)
    tracemalloc.start()
    try:
        world.run()
        ours = tracemalloc.Filter(True, "*/simulator/*")
        seen = tracemalloc.take_snapshot().filter_traces([ours]).statistics("filename")
    finally:
        tracemalloc.stop()
    waiting = len(world.recorder.jobs)
    return sum(one.size for one in seen) / waiting - JOB_ID.__sizeof__()


def _jobs_per_s(play: Callable[[int], Played], seed: int) -> float:
    began_s = time.process_time()
    jobs, _ = play(seed)
    return jobs / (time.process_time() - began_s)


def is_compiled() -> bool:
    """Whether it is the compiled form that is measured (`make compile`)."""
    return str(session.__file__).endswith(tuple(EXTENSION_SUFFIXES))


def measure(jobs: int, rounds: int, queued: int) -> dict[str, object]:
    """Jobs a second and core of each, ratios round by round, bytes."""
    peers: dict[str, Callable[[int], Played]] = {"simpy": partial(by_simpy, jobs), "ciw": partial(by_ciw, jobs)}
    ours: dict[tuple[str, str], Callable[[int], Played]] = {
        (case, fidelity): partial(by_mesh, case, fidelity, jobs) for case in CASES for fidelity in FIDELITIES
    }
    for play in (*peers.values(), *ours.values()):
        play(0)  # what is imported and compiled once is not counted
    of_peers: dict[str, list[float]] = {name: [] for name in peers}
    of_ours: dict[tuple[str, str], list[float]] = {name: [] for name in ours}
    for seed in range(1, rounds + 1):
        for name, peer in peers.items():
            of_peers[name].append(_jobs_per_s(peer, seed))
        for key, play in ours.items():
            of_ours[key].append(_jobs_per_s(play, seed))
    return {
        "jobs": jobs,
        "rounds": rounds,
        "peers": [{"name": name, "jobs_per_s": figure(speeds, "1/s", 0)} for name, speeds in of_peers.items()],
        "mesh": [_row(*key, speeds, of_peers) for key, speeds in of_ours.items()],
        "memory": {"bytes_per_queued_job": round(queued_bytes(queued), 1), "n": queued},
    }


def _row(case: str, fidelity: str, speeds: list[float], of_peers: dict[str, list[float]]) -> dict[str, object]:
    agents, slots, rate_per_s = CASES[case]
    ratios = {
        f"ratio_to_{name}": figure([our / their for our, their in zip(speeds, theirs, strict=True)], "1", 3)
        for name, theirs in of_peers.items()
    }
    return {
        "case": case,
        "fidelity": fidelity,
        "compiled": is_compiled(),
        "agents": agents,
        "slots": slots,
        "rate_per_s": rate_per_s,
        "jobs_per_s": figure(speeds, "1/s", 0),
        "us_per_job": figure([1e6 / speed for speed in speeds], "us", 2),
        **ratios,
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.simulation", description="Simulated jobs a second and core.")
    parser.add_argument("--jobs", type=int, default=20_000, help="of each play")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--queued", type=int, default=QUEUED, help="jobs that wait when memory is measured")
    asked = parser.parse_args()
    print(json.dumps(measure(asked.jobs, asked.rounds, asked.queued)))


if __name__ == "__main__":
    main()
