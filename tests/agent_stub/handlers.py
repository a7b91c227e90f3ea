"""Operations that run in processes of their own, which find them here."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent_stub.operations import JobContext, OperationError, operation


@operation("child.facts", process=True)
def facts(job: JobContext) -> dict[str, Any]:
    """What a handler sees of its attempt and of its process."""
    return {
        "payload": job.payload.decode(),
        "job_id": job.job_id,
        "attempt": job.attempt,
        "metadata": dict(job.metadata),
        "checkpoint": job.checkpoint.decode(),
        "has_deadline": job.remaining_s() is not None,
        "variable": job.variable("database"),
        "option": job.options["speed"],
        "pid": os.getpid(),
        "is_leader": os.getpgrp() == os.getpid(),
    }


@operation("child.later", process=True)
async def later(job: JobContext) -> str:
    """A coroutine; says when it has begun."""
    job.progress(0.5, str(os.getpid()), b"row 10")
    await asyncio.sleep(60.0 if job.payload else 0.0)
    return "later"


@operation("child.raises", process=True)
def raises(job: JobContext) -> None:
    """End as the payload says."""
    if job.payload == b"known":
        raise OperationError("csv.bad_row", "line 7")
    if job.payload == b"exit":
        sys.exit(3)
    raise ValueError("no such row")


class UnspeakableError(Exception):
    """An exception that cannot be put into words."""

    def __str__(self) -> str:
        raise RuntimeError


def nested() -> object:
    """A value too deep for JSON."""
    value: list[object] = []
    for _ in range(100_000):
        value = [value]
    return value


def raising(error: BaseException) -> Callable[[], object]:
    """A function that raises it."""

    def raise_it() -> object:
        raise error

    return raise_it


MISTAKES: dict[str, tuple[Callable[[], object], tuple[str, str, bool]]] = {
    "cancelled": (raising(asyncio.CancelledError("by me")), ("python.cancelled_error", "by me", True)),
    "interrupted": (raising(KeyboardInterrupt()), ("python.keyboard_interrupt", "KeyboardInterrupt", True)),
    "exit": (raising(SystemExit(3)), ("python.system_exit", "3", True)),
    "unspeakable": (raising(UnspeakableError()), ("python.unspeakable_error", "UnspeakableError", True)),
    "no text": (
        raising(OperationError("csv.bad", ValueError("line 7"))),  # type: ignore[arg-type]
        ("csv.bad", "line 7", False),
    ),
    "no code": (raising(OperationError(404, "not found")), ("404", "not found", False)),  # type: ignore[arg-type]
    "nested": (nested, ("result.not_json", "the result cannot be written as JSON", False)),
}
"""What a handler may do wrong, and the failure that it comes to: code, how its text begins, whether to retry."""


@operation("child.errs", process=True)
def errs(job: JobContext) -> object:
    """Make the mistake that the payload names."""
    return MISTAKES[job.payload.decode()][0]()


@operation("child.dies", process=True)
def dies(job: JobContext) -> None:
    """End the process as the payload says."""
    if job.payload == b"exit":
        os._exit(3)
    os.kill(os.getpid(), getattr(signal, job.payload.decode()))


@operation("child.listens", process=True)
def listens(job: JobContext) -> None:
    """End when told to."""
    job.progress(0.1, str(os.getpid()))
    job.sleep(60.0)


@operation("child.deaf", process=True)
def deaf(job: JobContext) -> None:
    """Never end; the same for a program that it starts. Says who they are."""
    program = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    job.progress(0.1, f"{os.getpid()} {program.pid}")
    while True:
        time.sleep(60.0)


@operation("child.exclusive", exclusive=True)
def exclusive(job: JobContext) -> None:
    """Work for ever and ignore all that can be ignored. Says who it is."""
    job.progress(0.1, str(os.getpid()))
    while True:
        time.sleep(60.0)


@operation("child.leaves", process=True)
def leaves(job: JobContext) -> None:
    """Leave a program behind that holds all that was open."""
    child = os.fork()
    if child == 0:
        time.sleep(600)
        os._exit(0)
    job.progress(0.1, str(child))
    os.kill(os.getpid(), signal.SIGKILL)


@operation("child.words", process=True)
def words(job: JobContext) -> None:
    """Write a line to the log, and print one."""
    job.logger.warning("rows.skipped")
    print("printed")


@operation("child.large", process=True)
def large(job: JobContext) -> bytes:
    """As many bytes as the payload says."""
    return bytes(int(job.payload))


@operation("child.folder", process=True)
def folder(job: JobContext) -> str:
    """Make the attempt's folder, and perhaps die in it."""
    path = job.folder()
    (path / "part").write_text("x")
    if job.payload == b"die":
        os.kill(os.getpid(), signal.SIGKILL)
    return str(path)


@operation("child.nonsense", process=True)
def nonsense(job: JobContext) -> None:
    """Write to all sockets what is no message."""
    for descriptor in [int(entry.name) for entry in Path("/dev/fd").iterdir()]:
        try:
            socket.socket(fileno=os.dup(descriptor)).sendall(b"\xff" * 64)
        except OSError:
            continue
    time.sleep(60.0)


@operation("spin")
def spin(job: JobContext) -> None:
    """Compute for so many seconds, in Python."""
    until_s = time.monotonic() + float(job.payload)
    while time.monotonic() < until_s:
        sum(range(1_000))


@operation("spin.async")
async def spin_async(job: JobContext) -> None:
    """The same on the loop of coroutines, which it blocks."""
    spin(job)


@operation("chatter")
def chatter(job: JobContext) -> None:
    """Report for so many seconds, as fast as it goes."""
    until_s = time.monotonic() + float(job.payload)
    while time.monotonic() < until_s:
        job.progress(0.5, "still there")


@operation("chatter.process", process=True)
def chatter_process(job: JobContext) -> None:
    """The same from a process."""
    chatter(job)


@operation("tell")
def tell(job: JobContext) -> str:
    """A variable of this agent."""
    return job.variable("database")


@operation("write", exclusive=True)
def write(job: JobContext) -> str:
    """Write a line to the file of the payload."""
    with Path(job.payload.decode()).open("a") as out:
        out.write(f"{job.attempt}\n")
    return "written"
