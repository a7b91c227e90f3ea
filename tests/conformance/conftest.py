"""Every store that there is, freshly made; a test of this folder runs once for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from broker.store.base import Store
from broker.store.sqlite import SqliteStore
from tests.conformance.bench import StoreBench

BACKENDS: dict[str, Callable[[Path], Store]] = {"sqlite": lambda folder: SqliteStore(folder / "mesh.db")}


@pytest.fixture(params=BACKENDS)
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreBench]:
    """A store whose groups are owned."""

    def make() -> Store:
        return BACKENDS[request.param](tmp_path)

    made = StoreBench(make, make())
    await made.start()
    yield made
    await made.store.close()


@pytest.fixture
def store(bench: StoreBench) -> Store:
    """The store of `bench`."""
    return bench.store
