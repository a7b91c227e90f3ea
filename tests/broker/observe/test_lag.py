from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from broker.observe import lag

LATE_S = 0.05


async def test_turn_that_came_late_is_told_with_how_late_it_was() -> None:
    heard: list[float] = []
    is_heard = asyncio.Event()

    def hear(seconds: float) -> None:
        heard.append(seconds)
        is_heard.set()

    watching = asyncio.create_task(lag.watch(hear, 0.001))
    await is_heard.wait()
    is_heard.clear()
    heard.clear()
    time.sleep(LATE_S)  # noqa: ASYNC251 - the loop is to stand still
    await is_heard.wait()
    watching.cancel()
    with suppress(asyncio.CancelledError):
        await watching

    assert heard[0] >= LATE_S - 0.01
