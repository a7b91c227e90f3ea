"""Directory and resources over a real engine and a real store, without ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from broker.clock import EngineClock
from broker.control.directory import Directory
from broker.control.resources import Resources
from broker.dispatch.model import DispatchPolicy
from broker.engine import Engine
from broker.settings import LimitSettings
from broker.store.sqlite import SqliteStore


class Control(NamedTuple):
    directory: Directory
    resources: Resources
    engine: Engine
    store: SqliteStore


@asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Control]:
    store = SqliteStore(folder / "mesh.db")
    await store.open()
    engine = Engine(
        store,
        EngineClock(),
        LimitSettings(),
        DispatchPolicy(),
        broker_id="broker",
        payload_cache_bytes_max=1 << 20,
        seed=1,
    )
    await engine.recover()
    directory = Directory(store, engine)
    await directory.load()
    loop = asyncio.create_task(engine.run())
    try:
        yield Control(directory, Resources(store, engine, directory), engine, store)
    finally:
        engine.close()
        await loop
        await store.close()
