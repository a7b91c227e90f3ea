"""Attempts in processes of their own, as the agent sees them: started, heard, told to end, killed.

A process is the leader of a group of its own. When it is over, however, the rest of its group is killed too. It cannot
hang a slot: what does not end by itself is killed, and the end of the process is seen whoever holds its link open.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any, Final

from agent_stub.folders import remove
from agent_stub.link import BrokenLinkError, Message, Unpacker, pack
from agent_stub.logs import fields
from agent_stub.operations import Operation, OperationLoadError
from agent_stub.outcomes import Course
from agent_stub.session import Outcome, OutcomeStatus

BOOTSTRAP: Final = (
    "import sys, json; sys.path[:] = json.loads(sys.stdin.buffer.readline()); import agent_stub.child as c; c.main()"
)
"""The path of imports comes first on standard input: the process finds what the agent found."""
END_WAIT_S: Final = 5.0
"""How long a process may take to end after it has said how the attempt ended."""
LOOK_EVERY_S: Final = 5.0
POLL_S: Final = 0.5
"""Where the end of a process cannot be waited for beside its link."""
READ_BYTES: Final = 262_144

log = logging.getLogger("mesh.agent.process")


class AttemptProcess:
    """The process of one attempt. `run` blocks the thread that calls it; the rest may be called from any thread.

    Args:
        course: the attempt and its limits.
        lease_end_us: when it must have ended unless `lease` says otherwise; None for a repeatable one.
    """

    def __init__(self, course: Course, operation: Operation, lease_end_us: int | None) -> None:
        self._course = course
        self._job = course.job
        self._operation = operation
        self._lease_end_us = lease_end_us
        self._link_lock = threading.Lock()
        self._link: socket.socket | None = None
        self._process_lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None  # until it is waited for: then its number is not its own
        self._is_killed = False
        self._outcome: Outcome | None = None

    def run(self) -> Outcome:
        """Start it, hear it, and wait for its end; how the attempt ended."""
        near, far = socket.socketpair()
        with self._link_lock:
            self._link = near
        try:
            order = _order_of(self._course, self._operation.reference, self._lease_end_us)
            if self._job.cancelled:
                return self._course.cancelled()
            process = self._start(far)
            try:
                _give(process, order)
                self._hear(process.pid, near)
            finally:
                code = self._end(process)
            return self._outcome or self._ended_by(code)
        except OperationLoadError as error:
            return self._course.failed("operation.not_importable", str(error), is_retryable=False)
        except OSError as error:
            return self._course.failed("process.not_started", str(error), is_retryable=True)
        finally:
            with self._link_lock:
                self._link = None
            near.close()
            far.close()
            remove(self._job.folder_path)

    def cancel(self) -> None:
        """Tell the handler to end; the job's context is cancelled already."""
        self._say(pack("cancel", {}))

    def lease(self, end_us: int) -> None:
        """The attempt may run until then."""
        self._lease_end_us = end_us
        self._say(pack("lease", {"end_us": end_us}))

    def kill(self) -> None:
        """End it and all that it started, now."""
        with self._process_lock:
            self._is_killed = True
            if self._process is not None:
                _kill_group(self._process.pid)

    def _say(self, message: bytes) -> None:
        # Never waits: a process that does not read is ended by its alarm or by `kill`.
        with self._link_lock, suppress(OSError):
            if self._link is not None:
                self._link.send(message, socket.MSG_DONTWAIT)

    # In the thread of `run` ------------------------------------------------------------------------------------------

    def _start(self, far: socket.socket) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", BOOTSTRAP, str(far.fileno()), str(os.getpid())]
        with self._process_lock:
            # The kernel kills the process when this thread ends, which waits for it.
            process = subprocess.Popen(command, stdin=subprocess.PIPE, pass_fds=[far.fileno()], start_new_session=True)
            self._process = process
            if self._is_killed:
                _kill_group(process.pid)
        far.close()
        return process

    def _hear(self, pid: int, link: socket.socket) -> None:
        """Until the link closes or the process has ended; a process that has said its outcome must end soon."""
        unpacker, give_up_s = Unpacker(), float("inf")
        with selectors.DefaultSelector() as selector, _end_of(pid) as ended:
            selector.register(link, selectors.EVENT_READ)
            if ended is not None:
                selector.register(ended, selectors.EVENT_READ)
            while time.monotonic() < give_up_s:
                ready = {key.fileobj for key, _ in selector.select(POLL_S if ended is None else LOOK_EVERY_S)}
                has_ended = ended in ready if ended is not None else _has_ended(pid)
                if not self._read(link, unpacker, until_empty=has_ended) or has_ended:
                    return
                if self._outcome is not None:
                    give_up_s = min(give_up_s, time.monotonic() + END_WAIT_S)

    def _read(self, link: socket.socket, unpacker: Unpacker, *, until_empty: bool) -> bool:
        """Take what has arrived; False: the link is closed, or carries what cannot be understood."""
        try:
            while part := link.recv(READ_BYTES, socket.MSG_DONTWAIT):
                for message in unpacker.feed(part):
                    self._take(message)
                if not until_empty:
                    return True
        except BlockingIOError:
            return True
        except (OSError, BrokenLinkError, LookupError, TypeError, ValueError) as error:
            log.warning(
                "process.misunderstood", extra=fields(job_id=self._job.job_id, job_key=self._job.job_key, reason=error)
            )
        return False

    def _take(self, message: Message) -> None:
        facts = message.facts
        if message.kind == "outcome":
            self._outcome = self._as_outcome(facts, message.pieces[0])
        elif message.kind == "progress":
            if self._job.report is not None:
                self._job.report(self._job, facts["fraction"], facts["text"], message.pieces[0])
        elif message.kind == "log":
            write_again(facts)

    def _as_outcome(self, facts: Mapping[str, Any], content: bytes) -> Outcome:
        run_time_us = self._course.run_time_us
        status, code, text = OutcomeStatus(facts["status"]), facts["code"], facts["text"]
        key = (self._job.job_key, self._job.attempt)
        return Outcome(*key, status, code, text, facts["retryable"], content, facts["content_type"], run_time_us)

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        """The process is over, or is ended now, with its group; its exit code, negative for a signal."""
        # Before it is waited for: until then the number is its own.
        _kill_group(process.pid)
        while not _has_ended(process.pid, wait=True):
            time.sleep(POLL_S)
        with self._process_lock:
            self._process = None
            return process.wait()

    def _ended_by(self, code: int) -> Outcome:
        """The outcome of a process that said none."""
        if self._job.cancelled or self._is_killed:
            return self._course.cancelled()
        if code < 0:
            name = signal.Signals(-code).name if -code in signal.valid_signals() else f"signal {-code}"
            hint = "; perhaps the machine ran out of memory" if -code == signal.SIGKILL else ""
            return self._course.failed("process.killed", f"its process was ended by {name}{hint}", is_retryable=True)
        text = f"its process ended with exit code {code} and without an outcome"
        return self._course.failed("process.exited", text, is_retryable=True)


def _order_of(course: Course, reference: str, lease_end_us: int | None) -> bytes:
    job = course.job
    names = ("job_id", "job_key", "attempt", "operation", "content_type")
    facts = {
        "reference": reference,
        "job": {name: getattr(job, name) for name in names} | {"metadata": dict(job.metadata)},
        "remaining_s": job.remaining_s(),
        "variables": dict(job.variables),
        "options": dict(job.options),
        "folders": str(job.folders) if job.folders else "",
        "limits": asdict(course.limits),
        "lease_end_us": lease_end_us,
        "log_level": logging.getLogger().getEffectiveLevel(),
    }
    return pack("order", facts, job.payload, job.checkpoint)


def _give(process: subprocess.Popen[bytes], order: bytes) -> None:
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin as pipe:
        pipe.write(json.dumps(sys.path).encode() + b"\n" + order)


def _kill_group(pid: int) -> None:
    # macOS says EPERM where only zombies are left.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)


@contextmanager
def _end_of(pid: int) -> Iterator[int | None]:
    """The end of a process as a descriptor to select on; None where the system has no such thing."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    descriptor = os.pidfd_open(pid)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _has_ended(pid: int, *, wait: bool = False) -> bool:
    """Whether a process is over; it is still there to be waited for."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | (0 if wait else os.WNOHANG)) is not None
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return state.stdout.strip()[:1] in ("", "Z")


def write_again(facts: Mapping[str, Any]) -> None:
    """A log record of the process, among the agent's own."""
    logger = logging.getLogger(facts["logger"])
    if logger.isEnabledFor(facts["level"]):
        record = logger.makeRecord(logger.name, facts["level"], "", 0, "%s", (facts["text"],), None)
        record.exc_text = facts["trace"] or None
        record.fields = facts["fields"]
        logger.handle(record)
