"""How late the event loop is: everything that a broker does waits for it."""

import asyncio
from collections.abc import Callable
from typing import Final, NoReturn

EVERY_S: Final = 0.25


async def watch(on_lag: Callable[[float], None], every_s: float = EVERY_S) -> NoReturn:
    """Ask the loop for a turn again and again; `on_lag` hears how many seconds late each one came. Ends by a cancel."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + every_s
        await asyncio.sleep(every_s)
        on_lag(max(0.0, loop.time() - due_s))
