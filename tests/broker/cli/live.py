"""A whole broker in a thread of its own, for commands that need more of it than the one in memory has."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from broker.app import Broker
from tests.broker.running import WAIT_S, settings_of


@contextmanager
def live_broker(folder: Path, **tables: object) -> Iterator[Broker]:
    """A broker with a fresh store in `folder`; `limits={...}` and the like on top of plain settings."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="broker")
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(WAIT_S)

    async def make() -> Broker:
        return await Broker(settings_of(folder, **tables)).__aenter__()

    try:
        broker = run(make())
        try:
            yield broker
        finally:
            run(broker.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()
