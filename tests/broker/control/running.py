"""Directory and resources over a real engine and a real store, without ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from broker.clock import EngineClock
from broker.control.acts import AgentActs
from broker.control.directory import Directory
from broker.control.edits import Edits
from broker.control.removals import Removals
from broker.control.resources import Resources
from broker.dispatch.model import DispatchPolicy, OperationPolicy
from broker.engine import Engine
from broker.settings import LimitSettings, PlanSettings
from broker.store.sqlite import SqliteStore


class Control(NamedTuple):
    directory: Directory
    resources: Resources
    engine: Engine
    store: SqliteStore
    acts: AgentActs
    edits: Edits
    removals: Removals


@asynccontextmanager
async def running(
    folder: Path, *, agents_max: int = LimitSettings().agents_max, plan: PlanSettings | None = None
) -> AsyncIterator[Control]:
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
    directory = Directory(store, engine, agents_max, lambda organisation: plan or PlanSettings())
    await directory.load()
    loop = asyncio.create_task(engine.run())
    resources = Resources(store, engine, directory, LimitSettings(), OperationPolicy())
    removals = Removals(store, engine, directory, resources)
    await resources.configure_all()
    await removals.resume()
    acts, edits = AgentActs(engine, directory, resources), Edits(store, directory, resources)
    try:
        yield Control(directory, resources, engine, store, acts, edits, removals)
    finally:
        engine.close()
        await loop
        await store.close()
