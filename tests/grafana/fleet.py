"""A fleet that has seen something: what a dashboard must show is made to happen to real processes.

A broker and three agents with work all the time. One agent is killed with work in its hands; one stands still for
longer than its lease, so that its work is done elsewhere and what it reports afterwards is refused; one submission is
refused. `seen` returns when Prometheus has read all that.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

from broker import series
from mesh_client import ConflictError, JobSpec, MeshClient
from tests.e2e.processes import Mesh
from tests.grafana.prometheus import Prometheus

AGENTS = ("a1", "a2", "a3")
SLOTS = 4
JOB_S = 0.1
SUBMITTERS = 3
JOBS = 2 * SLOTS
"""What each submitter has under way: together more than there are slots, so that some wait."""
PROFILE = {"MESH_DISPATCH__PROFILE": "fast"}
"""Losses are seen within seconds."""


class Fleet(NamedTuple):
    """What runs, and who watches it."""

    mesh: Mesh
    client: MeshClient
    prometheus: Prometheus

    async def seen(self) -> None:
        """Have all happen that the dashboard must show; return when Prometheus has read it."""
        working = asyncio.gather(*(self._work() for _ in range(SUBMITTERS)))
        try:
            await asyncio.wait((working, asyncio.ensure_future(self._trouble())), return_when=asyncio.FIRST_COMPLETED)
        finally:
            working.cancel()
            with suppress(asyncio.CancelledError):
                await working

    async def _work(self) -> None:
        while True:
            jobs = [JobSpec("sleep", json={"seconds": JOB_S}) for _ in range(JOBS)]
            submitted = await self.client.submit_many(jobs)
            await self.client.wait([one.accepted().job_id for one in submitted])

    async def _trouble(self) -> None:
        prometheus, agents = self.prometheus, self.mesh.agents
        await prometheus.until(f"{series.LATENCY_SECONDS.name}_count > {4 * JOBS}")
        await prometheus.until(series.EVENNESS.name)
        await self._be_refused()
        await agents["a3"].kill()
        await prometheus.until(f'{series.JOBS_RETURNED.name}{{reason="agent_lost"}} > 0')
        await prometheus.until(f"{series.ATTEMPTS_OVERLAPPED.name} > 0")
        agents["a2"].signal(signal.SIGSTOP)
        await prometheus.until(f'{series.AGENTS.name}{{status="no_response"}} == 2')
        await prometheus.until(f"{series.SESSIONS.name} == 1")
        agents["a2"].signal(signal.SIGCONT)
        await prometheus.until(f"sum({series.REPORTS_REFUSED.name}) > 0")
        await prometheus.until(f'{series.AGENTS.name}{{status="active"}} == 2')
        await prometheus.until(f"{series.EVENNESS.name} > 0 and on () ({series.SESSIONS.name} == 2)")

    async def _be_refused(self) -> None:
        await self.client.submit("echo", b"one", idempotency_key="twice")
        with suppress(ConflictError):
            await self.client.submit("echo", b"another", idempotency_key="twice")
        await self.prometheus.until(f"{series.SUBMISSIONS_REFUSED.name} == 1")

    def page(self) -> str:
        """The metrics page of the broker."""
        connection = HTTPConnection(self.mesh.addresses.metrics, timeout=10)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        finally:
            connection.close()


@asynccontextmanager
async def fleet(folder: Path) -> AsyncIterator[Fleet]:
    """The fleet, with its files in `folder`."""
    async with Mesh(folder / "data", settings=PROFILE) as mesh:
        await mesh.start_broker()
        async with Prometheus(folder, mesh.addresses.metrics) as prometheus:
            for name in AGENTS:
                await mesh.start_agent(name, slots=SLOTS)
            async with MeshClient(mesh.addresses.api) as client:
                yield Fleet(mesh, client, prometheus)
