"""Brokers of tests: one with plain settings, and its clients."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Hashable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio
import structlog

from broker.app import Broker
from broker.rpc.turns import Turns
from tests.broker.running import Api, api_of, settings_of


@pytest_asyncio.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with Broker(settings_of(tmp_path)) as running:
        yield running


@pytest_asyncio.fixture
async def api(broker: Broker) -> AsyncIterator[Api]:
    async with api_of(broker) as client:
        yield client


@pytest.fixture
def prices(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What each turn of a source costs it, in jobs or reports; nobody waits for one."""
    asked: list[int] = []

    async def take(turns: Turns, source: Hashable, size: int) -> None:
        asked.append(size)

    monkeypatch.setattr(Turns, "take", take)
    return asked


@pytest.fixture
def process_logging() -> Iterator[None]:
    """Logging belongs to the process: what the test makes of it is undone."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
