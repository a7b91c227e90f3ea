"""Agents and brokers that die around an outcome, as real processes: what has ended is not run again."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from mesh_client import MeshClient
from tests.agent_stub.processes import gone
from tests.e2e.processes import Mesh

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
WAIT_S = 30.0
EXCLUSIVE = """
import os
import time
from pathlib import Path

from agent_stub.operations import operation

@operation("mine.exclusive", exclusive=True)
def exclusive(job):
    log = Path(job.payload.decode())
    with log.open("a") as out:
        out.write(f"{job.attempt} {os.getpid()}\\n")
    time.sleep(600.0 if job.attempt == 1 else 0.0)
    return job.attempt
"""


def files(folder: Path, pattern: str) -> list[Path]:
    """The files of this form, however deep."""
    return list(folder.rglob(pattern))


async def written(folder: Path, pattern: str) -> None:
    """Return when there is a file of this form; another process writes it."""
    async with asyncio.timeout(WAIT_S):
        while not files(folder, pattern):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.02)


async def test_outcome_outlives_the_broker_and_the_agent_that_are_killed_and_counts_for_the_first_attempt(
    tmp_path: Path,
) -> None:
    async with Mesh(tmp_path / "data") as mesh:
        await mesh.start_broker()
        await mesh.start_agent("a1", slots=1)
        async with MeshClient(mesh.addresses.api) as client:
            job = await client.submit("sleep", json={"seconds": 2.0})
            async with asyncio.timeout(WAIT_S):
                async for view in client.follow([job.job_id]):
                    if view.state == "running":
                        break
            await mesh.broker.kill()
            await written(tmp_path, "*.outcome")
            await mesh.agents["a1"].kill()
            await mesh.start_broker()
            await mesh.start_agent("a1", slots=1)
            async with asyncio.timeout(WAIT_S):
                await job.result()
            view = await client.get(job.job_id)
            assert (view.state, view.attempt) == ("succeeded", 1)
        await mesh.agents["a1"].stop()
    assert files(tmp_path, "*.outcome") == []


@pytest.mark.slow
async def test_exclusive_job_of_an_agent_that_stands_still_has_ended_before_another_agent_begins_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "mine.py").write_text(EXCLUSIVE)
    log = tmp_path / "log"
    settings = {"MESH_DISPATCH__PROFILE": "fast"}
    options, environment = ("--operations", "mine"), {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    async with Mesh(tmp_path / "data", settings=settings) as mesh:
        await mesh.start_broker()
        await mesh.start_agent("a1", slots=1, options=options, environment=environment)
        async with MeshClient(mesh.addresses.api) as client:
            job = await client.submit("mine.exclusive", str(log).encode())
            await written(tmp_path, "log")
            mesh.agents["a1"].signal(signal.SIGSTOP)
            await mesh.start_agent("a2", slots=1, options=options, environment=environment)
            _, first = log.read_text().split()
            await gone(int(first))
            assert len(log.read_text().splitlines()) == 1, "the second attempt began beside the first"
            async with asyncio.timeout(WAIT_S):
                assert (await job.result()).content == b"2"
