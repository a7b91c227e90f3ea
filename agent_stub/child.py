"""The process of one attempt: reads its order, runs the handler, says how it ended, and is gone.

It ends at the latest with its agent (the kernel kills it, where it is Linux; everywhere the link closes), at the end of
its lease if it is exclusive, also while the agent stands still, and when the agent kills it. At the end of the lease
and of the link the whole process group ends: what the handler started ends too.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from agent_stub.clock import now_us
from agent_stub.link import BrokenLinkError, Message, Unpacker, pack, read_one
from agent_stub.operations import ATTRIBUTE, JobContext, Operation, resolve
from agent_stub.outcomes import Course, RunLimits
from agent_stub.parents import die_with_parent
from agent_stub.session import Outcome

SECOND_US: Final = 1_000_000
LOOK_EVERY_S: Final = 1.0
"""The wait for the link stands still while the machine sleeps; the lease does not."""
ALARM_AFTER_S: Final = 0.25
"""The kernel ends the process this long after its lease, if a handler keeps the interpreter from doing so."""
EXIT_ORDER: Final = 70

Canceller = Callable[[], object]


def main() -> NoReturn:
    """Run the attempt of standard input; the arguments are the link's descriptor and the agent's process id."""
    link, agent = socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2])
    link.set_inheritable(False)
    die_with_parent()()
    if os.getppid() != agent:  # it was faster than we
        os._exit(EXIT_ORDER)
    try:
        order = read_one(sys.stdin.buffer)
    except BrokenLinkError:
        os._exit(EXIT_ORDER)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)  # what a handler prints is words, not data
    _log_to(link, order.facts["log_level"])
    outcome = Attempt(link, order).run()
    with suppress(OSError):
        link.sendall(packed(outcome))
        link.shutdown(socket.SHUT_WR)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # whatever the handler left behind, its threads too, ends here


def packed(outcome: Outcome) -> bytes:
    """An outcome for the link."""
    names = ("code", "text", "retryable", "content_type")
    facts = {"status": int(outcome.status)} | {name: getattr(outcome, name) for name in names}
    return pack("outcome", facts, outcome.content)


class Attempt:
    """The attempt of an order: its handler in the main thread, and beside it a guard that reads the link."""

    def __init__(self, link: socket.socket, order: Message) -> None:
        facts, (payload, checkpoint) = order.facts, order.pieces
        remaining_s = facts["remaining_s"]
        self.job = JobContext(
            **facts["job"],
            payload=payload,
            checkpoint=checkpoint,
            deadline_s=None if remaining_s is None else time.monotonic() + remaining_s,
            report=self._report,
            variables=facts["variables"],
            options=facts["options"],
            folders=Path(facts["folders"]) if facts["folders"] else None,
        )
        self._reference = facts["reference"]
        self._course = Course(self.job, RunLimits(**facts["limits"]), time.monotonic())
        self._link = link
        self._canceller: Canceller | None = None
        self._lease_end_us: int | None = None
        self._set_lease(facts["lease_end_us"])

    def run(self) -> Outcome:
        """Run the handler; how it ended."""
        threading.Thread(target=self._guard, name="mesh-guard", daemon=True).start()
        try:
            operation = getattr(resolve(self._reference), ATTRIBUTE, None)
            handler = operation.handler if isinstance(operation, Operation) else resolve(self._reference)
            self.job.raise_if_cancelled()
            value = cast("Callable[[JobContext], object]", handler)(self.job)
            if asyncio.iscoroutine(value):
                value = asyncio.run(self._awaited(value))
            return self._course.returned(value)
        except BaseException as error:  # noqa: BLE001 - whatever a handler raises is its outcome
            return self._course.raised(error)

    async def _awaited(self, coroutine: Coroutine[Any, Any, object]) -> object:
        loop, task = asyncio.get_running_loop(), asyncio.ensure_future(coroutine)
        self._canceller = lambda: loop.call_soon_threadsafe(task.cancel)
        if self.job.cancelled:
            task.cancel()
        return await task

    def _report(self, job: JobContext, fraction: float, text: str, checkpoint: bytes) -> None:
        self._link.sendall(pack("progress", {"fraction": fraction, "text": text}, checkpoint))

    # Beside it -------------------------------------------------------------------------------------------------------

    def _guard(self) -> None:
        unpacker = Unpacker()
        with suppress(OSError, BrokenLinkError):
            while (part := self._next_part()) != b"":
                for message in unpacker.feed(part or b""):
                    self._hear(message)
        end_group()

    def _next_part(self) -> bytes | None:
        """What the agent said; None: nothing for a while; empty: it is gone, or the lease is over."""
        wait_s = LOOK_EVERY_S
        if self._lease_end_us is not None:
            left_s = (self._lease_end_us - now_us()) / SECOND_US
            if left_s <= 0:
                return b""
            wait_s = min(wait_s, left_s)
        readable, _, _ = select.select([self._link], [], [], wait_s)
        return self._link.recv(65_536) if readable else None

    def _hear(self, message: Message) -> None:
        if message.kind == "lease":
            self._set_lease(message.facts["end_us"])
        elif message.kind == "cancel":
            self.job.cancel()
            if self._canceller is not None:
                with suppress(RuntimeError):  # its loop has just closed
                    self._canceller()

    def _set_lease(self, end_us: int | None) -> None:
        self._lease_end_us = end_us
        if end_us is not None:
            left_s = max((end_us - now_us()) / SECOND_US, 0.0)
            signal.setitimer(signal.ITIMER_REAL, left_s + ALARM_AFTER_S)


def end_group() -> NoReturn:
    """End this process and all that it started in its group, now."""
    if os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(EXIT_ORDER)


class _LinkHandler(logging.Handler):
    """Log records to the agent, which writes them among its own."""

    def __init__(self, link: socket.socket) -> None:
        super().__init__()
        self._link = link

    def emit(self, record: logging.LogRecord) -> None:
        facts = {name: str(value) for name, value in (getattr(record, "fields", None) or {}).items()}
        trace = self.formatter_of_traces.formatException(record.exc_info) if record.exc_info else ""
        line = {"logger": record.name, "level": record.levelno, "text": record.getMessage(), "fields": facts}
        with suppress(OSError):
            self._link.sendall(pack("log", line | {"trace": trace}))

    formatter_of_traces = logging.Formatter()


def _log_to(link: socket.socket, level: int) -> None:
    logging.basicConfig(level=level, handlers=[_LinkHandler(link)], force=True)
