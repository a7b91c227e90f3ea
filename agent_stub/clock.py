"""The agent's clock."""

from __future__ import annotations

import time


def now_us() -> int:
    """Microseconds since the machine started: it goes on while the machine sleeps, never steps, and is one clock for
    all processes of the machine.
    """
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000
    return time.monotonic_ns() // 1_000
