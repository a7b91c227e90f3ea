"""A wall clock that can be set while a process runs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.chaos.clock import Clock
from tests.chaos.machine import missing
from tests.conftest import not_run

TELLS = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
HOUR_S = 3_600.0
CLOSE_S = 600.0


@pytest.fixture(autouse=True)
def _library() -> None:
    if reason := missing(("faketime",)):
        not_run(reason)


def test_clock_of_a_process_is_set_while_it_runs_and_its_monotonic_clock_goes_on(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    with subprocess.Popen(
        [sys.executable, "-c", TELLS],
        env=os.environ | clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for ahead_s in (0.0, HOUR_S, -HOUR_S):
            clock.set(ahead_s)
            process.stdin.write("\n")
            process.stdin.flush()
            wall_s, monotonic_s = map(float, process.stdout.readline().split())
            assert wall_s - time.time() == pytest.approx(ahead_s, abs=CLOSE_S)
            assert monotonic_s == pytest.approx(time.monotonic(), abs=CLOSE_S)
        process.kill()
