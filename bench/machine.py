"""What the machine is, and what processes on it use."""

import os
import platform
import re
import sqlite3
import time
from pathlib import Path
from typing import Final

LOOP_TURNS: Final = 2_000_000
TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, int | str]:
    """What results depend on, without any name."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "kernel": platform.release().split("-")[0],
        "sqlite": sqlite3.sqlite_version,
    }


def loop_ns() -> float:
    """Nanoseconds of one turn of a fixed loop: compares machines, and moments on one machine."""
    began_ns = time.perf_counter_ns()
    total = 0
    for number in range(LOOP_TURNS):
        total += number & 3
    assert total
    return (time.perf_counter_ns() - began_ns) / LOOP_TURNS


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, all threads, in user and kernel."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def rss_max_mb(pid: int) -> float:
    """The largest resident set of a process so far."""
    return _status_kb(pid, "VmHWM") / 1_024


def rss_bytes() -> int:
    """The resident set of this process."""
    return _status_kb(os.getpid(), "VmRSS") * 1_024


def _status_kb(pid: int, name: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None, f"the kernel does not tell {name}"
    return int(found[1])
