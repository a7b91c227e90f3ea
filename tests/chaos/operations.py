"""Operations that do harm to the agent that runs them: `--operations tests.chaos.operations`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from agent_stub.operations import JobContext, operation
from tests.e2e.history import History

MODULE = __name__
HEARD_S = 0.2
PAGE_BYTES = 4_096
PIECE_BYTES = 1 << 20


@operation("chaos.poison")
def poison(job: JobContext) -> None:
    """Kill the agent, as a fault in native code does, once it has said that this runs.

    The payload is the history in which the checker finds that its agent will do nothing more.
    """
    time.sleep(HEARD_S)
    name = sys.argv[sys.argv.index("--name") + 1]
    History(Path(job.payload.decode()), name).add("freeze", name, "invoke")
    os.kill(os.getpid(), signal.SIGKILL)


@operation("chaos.hog")
def hog(job: JobContext) -> int:
    """Have so many bytes of memory (the payload says how many), each page of them touched; how many there were.

    Piece by piece, so that an agent that has room for it beats on meanwhile.
    """
    held = bytearray(int(job.payload))
    for start in range(0, len(held), PIECE_BYTES):
        end = min(start + PIECE_BYTES, len(held))
        held[start:end:PAGE_BYTES] = b"x" * len(range(start, end, PAGE_BYTES))
        time.sleep(0)
    return len(held)


@operation("chaos.apart", process=True)
def apart(job: JobContext) -> int:
    """In a process of its own, which costs the agent descriptors: its number."""
    return os.getpid()
