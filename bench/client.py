"""One submitting process of a measurement; it writes what it saw to `--out` as JSON.

    python -m bench.client --api 127.0.0.1:7402 --out flood.json flood --jobs 30000
    python -m bench.client --api 127.0.0.1:7402 --out paced.json paced --rate 500 --seconds 10

*flood* submits as fast as the broker accepts and ends with the last acknowledgement. *paced* submits at a fixed rate
whatever the answers do (open loop) and watches the outcomes; a latency runs from the moment at which a job was due.
"""

import argparse
import asyncio
import json
import os
import resource
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from uuid_utils import uuid7

from bench.figures import percentile
from mesh_client import JobSpec, MeshClient

PAYLOAD_BYTES: Final = 128
WINDOW: Final = 32
DRAIN_S: Final = 30.0


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _say(event: str) -> None:
    print(event, file=sys.stderr, flush=True)


async def flood(client: MeshClient, jobs: int) -> dict[str, float]:
    """Submit `jobs` jobs; times are of the wall clock, for the process that measures."""

    def specs() -> Iterator[JobSpec]:
        for _ in range(jobs):
            yield JobSpec("echo", os.urandom(PAYLOAD_BYTES))

    # The connection is made first.
    async for _ in client.list(limit=1):
        pass
    cpu_s, began_s = _cpu_s(), time.time()
    refused = 0
    async for answer in client.submit_stream(specs(), window=WINDOW):
        refused += answer.error is not None
    ended_s = time.time()
    return {"began_s": began_s, "acknowledged_s": ended_s, "cpu_s": _cpu_s() - cpu_s, "refused": refused}


class Paced:
    """Jobs that are due at fixed times, and when each outcome was seen. All times are of the event loop's clock."""

    def __init__(self, client: MeshClient, rate: float, seconds: float) -> None:
        self._client = client
        self._rate = rate
        self._count = int(rate * seconds)
        self._due_s: dict[str, float] = {}
        self._latencies_s: list[float] = []
        self._changed = asyncio.Event()
        self._done = asyncio.Event()

    async def run(self) -> dict[str, float]:
        """The latencies of all jobs."""
        loop = asyncio.get_running_loop()
        watching = asyncio.create_task(self._watch(), name="watch")
        try:
            await self._until_watched()
            began_s = loop.time()
            async for answer in self._client.submit_stream(self._specs(), window=WINDOW):
                answer.accepted()
            submitted_s = loop.time() - began_s
            with suppress(TimeoutError):
                await asyncio.wait_for(self._done.wait(), DRAIN_S)
        finally:
            watching.cancel()
        return self._figures(submitted_s)

    async def _until_watched(self) -> None:
        """Jobs beforehand until the watch tells of one: it stands, and everything is warm."""
        while not self._changed.is_set():
            await self._client.submit("echo", b"warm-up")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), 0.2)

    async def _specs(self) -> AsyncIterator[JobSpec]:
        loop = asyncio.get_running_loop()
        first_s = loop.time()
        for number in range(self._count):
            due_s = first_s + number / self._rate
            if (wait_s := due_s - loop.time()) > 0:
                await asyncio.sleep(wait_s)
            job_id = str(uuid7())
            self._due_s[job_id] = due_s
            yield JobSpec("echo", os.urandom(PAYLOAD_BYTES), job_id=job_id)

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        async for change in self._client.watch(group="default"):
            self._changed.set()
            seen_s = loop.time()
            for job in change.jobs:
                if job.is_final and (due_s := self._due_s.pop(job.job_id, None)) is not None:
                    self._latencies_s.append(seen_s - due_s)
            if len(self._latencies_s) == self._count:
                self._done.set()

    def _figures(self, submitted_s: float) -> dict[str, float]:
        ordered = sorted(self._latencies_s)
        return {
            "submitted": self._count,
            "seen": len(ordered),
            "achieved": len(ordered) / submitted_s,
            "seconds": submitted_s,
            "p50_ms": percentile(ordered, 0.5) * 1e3,
            "p99_ms": percentile(ordered, 0.99) * 1e3,
            "p999_ms": percentile(ordered, 0.999) * 1e3,
        }


async def _run(asked: argparse.Namespace) -> dict[str, float]:
    async with MeshClient(asked.api) as client:
        if asked.load == "flood":
            return await flood(client, asked.jobs)
        return await Paced(client, asked.rate, asked.seconds).run()


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.client", description="One submitting process.")
    parser.add_argument("--api", required=True)
    parser.add_argument("--out", type=Path, required=True)
    loads = parser.add_subparsers(dest="load", required=True)
    loads.add_parser("flood").add_argument("--jobs", type=int, default=30_000)
    paced = loads.add_parser("paced")
    paced.add_argument("--rate", type=float, default=500.0)
    paced.add_argument("--seconds", type=float, default=10.0)
    asked = parser.parse_args()
    seen = asyncio.run(_run(asked))
    asked.out.write_text(json.dumps(seen))
    _say("client.done")


if __name__ == "__main__":
    main()
