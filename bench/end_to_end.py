"""The whole mesh as processes on this machine: one broker, four agents, one client, plaintext over loopback.

Throughput: from the first submission until the last outcome is durable. Not durable means the same with the data
directory in memory (tmpfs) and `synchronous = NORMAL`: no commit waits for a disk. Both are measured in turns, because
a machine changes from minute to minute.

The broker has the first core for itself, agents and client have the others: whichever agent the scheduler lets wait for
the broker's core holds its work longer and gets less of it, and evenness would be the scheduler's. A few rounds without
that (`ROUNDS_SHARED`) say how much it is.
"""

import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.client import PAYLOAD_BYTES
from bench.figures import figure, jain
from bench.machine import cpu_s, rss_max_mb
from tests.e2e.processes import AGENT_PROGRAM, BROKER_PROGRAM, Mesh, Process, read_jobs, store_file

AGENTS: Final = ("a1", "a2", "a3", "a4")
SLOTS: Final = 128
PREFETCH: Final = 3
WARM_UP_JOBS: Final = 4_000
LIMIT_S: Final = 300.0
ROUNDS_SHARED: Final = 3
MEMORY_FOLDER: Final = Path("/dev/shm")  # noqa: S108 - a file system in memory is what is measured


@dataclass(frozen=True, slots=True)
class Round:
    """What one flood came to. Processor times are in microseconds a job."""

    seconds: float
    jobs_per_s: float
    commits: float
    jain: float
    max_minus_min: float
    broker_us: float
    agents_us: float
    client_us: float
    rss_mb: float


class Site:
    """A mesh that is measured: started, warm, with what it says of itself.

    `has_own_core`: the broker runs on the first core, agents and client on the others.
    """

    def __init__(self, folder: Path, synchronous: str, profiles: Path | None, *, has_own_core: bool = True) -> None:
        self._folder = folder
        first, *others = sorted(os.sched_getaffinity(0))
        is_split = has_own_core and bool(others)
        self._at_broker = _on_cores([first]) if is_split else ()
        self._at_others = _on_cores(others) if is_split else ()
        profiled = ("-m", "bench.profiled")
        self.mesh = Mesh(
            folder / "broker",
            settings={"MESH_STORE__SYNCHRONOUS": synchronous},
            broker_program=(*profiled, str(profiles / "broker.prof"), "broker.cli") if profiles else BROKER_PROGRAM,
            agent_program=(*profiled, str(profiles / "agent.prof"), "agent_stub") if profiles else AGENT_PROGRAM,
        )

    async def start(self, placing: str = "") -> None:
        """Broker and agents; returns when all are connected. `placing`: how the group places, if not by load."""
        await self.mesh.start_broker(self._at_broker)
        if placing:
            address = ("--api", self.mesh.addresses.api)
            mesh = str(Path(sys.executable).with_name("mesh"))
            told = await asyncio.create_subprocess_exec(
                mesh, "groups", "update", "default", "--placing", placing, *address, stdout=subprocess.DEVNULL
            )
            assert await told.wait() == 0, "the group's placing could not be set"
        for name in AGENTS:
            options = ("--prefetch", str(PREFETCH))
            await self.mesh.start_agent(name, slots=SLOTS, options=options, prefix=self._at_others)

    async def client(self, *arguments: str) -> dict[str, float]:
        """Run a client to its end; what it saw."""
        out = self._folder / "client.json"
        where = ("--api", self.mesh.addresses.api, "--out", str(out))
        client = Process("client", ["-m", "bench.client", *where, *arguments], prefix=self._at_others)
        try:
            await client.start()
            await client.said("client.done", LIMIT_S)
        finally:
            await client.kill()
        seen: dict[str, float] = json.loads(out.read_text())
        return seen

    async def flood(self, jobs: int) -> tuple[dict[str, float], float]:
        """Submit and wait for the last outcome: what the client saw, and when (wall clock) all was finished."""
        goal = self.finished() + jobs
        seen = await self.client("flood", "--jobs", str(jobs))
        assert not seen["refused"], f"{seen['refused']} submissions were refused"
        while self.finished() < goal:  # noqa: ASYNC110 - another process counts; the last outcome is near
            await asyncio.sleep(0.005)
        return seen, time.time()

    def finished(self) -> int:
        """Jobs that reached a final state since the broker started."""
        return int(self.metric("mesh_jobs_finished_total"))

    def metric(self, name: str) -> float:
        """A series of the broker, summed over its labels."""
        with urllib.request.urlopen(f"http://{self.mesh.addresses.metrics}/metrics") as answer:
            text: str = answer.read().decode()
        lines = [line for line in text.splitlines() if line.startswith((f"{name} ", f"{name}{{"))]
        return sum(float(line.rpartition(" ")[2]) for line in lines)


def _on_cores(cores: list[int]) -> tuple[str, ...]:
    return ("taskset", "--cpu-list", ",".join(map(str, cores)))


async def flood_round(
    jobs: int, *, is_durable: bool, profiles: Path | None = None, placing: str = "", has_own_core: bool = True
) -> Round:
    """One measured flood in a mesh of its own."""
    with ExitStack() as stack:
        where = None if is_durable else MEMORY_FOLDER
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-bench-", dir=where))
        site = Site(Path(name), "FULL" if is_durable else "NORMAL", profiles, has_own_core=has_own_core)
        async with site.mesh:
            await site.start(placing)
            await site.flood(WARM_UP_JOBS)
            brokers, agents = [site.mesh.broker.pid], [agent.pid for agent in site.mesh.agents.values()]
            broker_s, agents_s, commits = _cpu_of(brokers), _cpu_of(agents), site.metric("mesh_commits_total")
            seen, ended_s = await site.flood(jobs)
            broker_s, agents_s = _cpu_of(brokers) - broker_s, _cpu_of(agents) - agents_s
            commits = site.metric("mesh_commits_total") - commits
            rss_mb = rss_max_mb(brokers[0])
            await site.mesh.stop()
        each = shares(site.mesh.data)
    seconds = ended_s - seen["began_s"]
    return Round(
        seconds=seconds,
        jobs_per_s=jobs / seconds,
        commits=commits,
        jain=jain(each),
        max_minus_min=max(each) - min(each),
        broker_us=broker_s / jobs * 1e6,
        agents_us=agents_s / jobs * 1e6,
        client_us=seen["cpu_s"] / jobs * 1e6,
        rss_mb=rss_mb,
    )


def shares(data: Path) -> list[int]:
    """How many jobs each agent had, without those of the warm-up."""
    counts = Counter(job.agent for job in read_jobs(store_file(data))[WARM_UP_JOBS:])
    return [counts[name] for name in AGENTS]


def _cpu_of(pids: list[int]) -> float:
    return sum(map(cpu_s, pids))


async def measure(jobs: int, rounds: int) -> dict[str, object]:
    """Durable and not, in turns."""
    durable, fleeting = [], []
    for _ in range(rounds):
        durable.append(await flood_round(jobs, is_durable=True))
        fleeting.append(await flood_round(jobs, is_durable=False))
    shared = [await flood_round(jobs, is_durable=True, has_own_core=False) for _ in range(ROUNDS_SHARED)]
    by_turn = await flood_round(jobs, is_durable=True, placing="round-robin")
    ratios = [one.jobs_per_s / other.jobs_per_s for one, other in zip(durable, fleeting, strict=True)]
    return {
        "jobs": jobs,
        "seconds": figure([one.seconds for one in durable], "s"),
        "jobs_per_s": figure([one.jobs_per_s for one in durable], "1/s", 0),
        "agents": len(AGENTS),
        "capacity": SLOTS * (1 + PREFETCH),
        "payload_bytes": PAYLOAD_BYTES,
        "synchronous": "FULL",
        "tls": False,
        "commits": figure([one.commits for one in durable], "1", 0),
        # Nothing on this machine counts them without slowing the broker down.
        "fsyncs": figure([], "1"),
        "jain": figure([one.jain for one in durable], "1", 6),
        "max_minus_min": figure([one.max_minus_min for one in durable], "1", 0),
        "jobs_per_s_shared_cores": figure([one.jobs_per_s for one in shared], "1/s", 0),
        "jain_shared_cores": figure([one.jain for one in shared], "1", 6),
        "jain_round_robin": figure([by_turn.jain], "1", 6),
        "cpu_us_per_job": {
            "broker": figure([one.broker_us for one in durable], "us", 1),
            "agents": figure([one.agents_us for one in durable], "us", 1),
            "client": figure([one.client_us for one in durable], "us", 1),
        },
        "rss_mb": figure([one.rss_mb for one in durable], "MB", 1),
        "ratio_durable_to_not": figure(ratios, "1"),
        "jobs_per_s_not_durable": figure([one.jobs_per_s for one in fleeting], "1/s", 0),
        "not_durable": "data directory in memory (tmpfs), synchronous NORMAL",
    }


async def open_loop(rate: float, seconds: float) -> dict[str, object]:
    """Latency from the moment at which a job is due until its outcome is seen by a watcher."""
    with tempfile.TemporaryDirectory(prefix="mesh-bench-") as name:
        site = Site(Path(name), "FULL", None)
        async with site.mesh:
            await site.start()
            await site.flood(WARM_UP_JOBS)
            seen = await site.client("paced", "--rate", str(rate), "--seconds", str(seconds))
            await site.mesh.stop()
        each = shares(site.mesh.data)
    assert seen["seen"] == seen["submitted"], f"{seen['seen']:.0f} of {seen['submitted']:.0f} outcomes were seen"
    return {
        "rate": rate,
        "achieved": figure([seen["achieved"]], "1/s", 1),
        "seconds": figure([seen["seconds"]], "s"),
        "p50_ms": figure([seen["p50_ms"]], "ms"),
        "p99_ms": figure([seen["p99_ms"]], "ms"),
        "p999_ms": figure([seen["p999_ms"]], "ms"),
        "jain": figure([jain(each)], "1", 6),
        "max_minus_min": figure([max(each) - min(each)], "1", 0),
    }
