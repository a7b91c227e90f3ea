"""A broker and a client of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from mesh_client import MeshClient
from tests.mesh_client.broker import WAIT_S, BrokerThread, MemoryBroker, broker_thread, running_broker


@pytest_asyncio.fixture
async def broker() -> AsyncIterator[MemoryBroker]:
    async with running_broker() as running:
        yield running


@pytest_asyncio.fixture
async def mesh(broker: MemoryBroker) -> AsyncIterator[MeshClient]:
    async with MeshClient(broker.address, retry_for_s=WAIT_S) as client:
        yield client


@pytest.fixture
def threaded() -> Iterator[BrokerThread]:
    with broker_thread() as running:
        yield running
