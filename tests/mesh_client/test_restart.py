"""Futures and maps over a real broker that is killed with SIGKILL and started again on its file."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mesh_client import MeshClient
from tests.e2e.processes import Mesh, read_jobs, store_file

pytestmark = pytest.mark.e2e
KILLED_AT = (40, 150)
ITEMS = 300


async def test_map_gives_every_result_once_when_the_broker_is_killed_twice(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        await mesh.start_broker()
        await mesh.start_agent("a1", slots=8)
        given: list[object] = []
        async with MeshClient(mesh.addresses.api) as client:
            async for mapped in client.map("echo", range(ITEMS), concurrency=20):
                given.append(mapped.result.json())
                if len(given) in KILLED_AT:
                    await mesh.broker.kill()
                    await mesh.start_broker()
        assert given == list(range(ITEMS))
        assert len(read_jobs(store_file(mesh.data))) == ITEMS


async def test_futures_that_are_waited_for_outlive_a_broker_that_is_killed(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        await mesh.start_broker()
        async with MeshClient(mesh.addresses.api) as client:
            jobs = [await client.submit("echo", json=number) for number in range(50)]
            waiting = [asyncio.create_task(job.result()) for job in jobs]
            await mesh.broker.kill()
            await mesh.start_broker()
            await mesh.start_agent("a1", slots=8)
            results = await asyncio.gather(*waiting)
        assert [result.json() for result in results] == list(range(50))
