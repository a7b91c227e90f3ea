"""Whether processes are there, for tests that end some."""

from __future__ import annotations

import asyncio
from pathlib import Path


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be waited for does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in ("Z", "X")


async def gone(*pids: int, timeout_s: float = 10.0) -> None:
    """Return when they are gone; the kernel says nothing about processes of others."""
    async with asyncio.timeout(timeout_s):
        while any(is_alive(pid) for pid in pids):  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
