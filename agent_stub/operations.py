"""What an agent can run: functions with a name, and what they are given.

    @operation("orders.copy")
    def copy_orders(job: JobContext) -> dict[str, int]:
        order = job.json()
        ...
        return {"rows": 3}

A handler is a function or a coroutine function of one `JobContext`. It returns bytes, text, None, or anything that
JSON can say. It raises `OperationError` to say whether trying again makes sense; any other exception is a retryable
failure. Functions run in threads, coroutine functions on the agent's event loop.
"""

from __future__ import annotations

import importlib
import inspect
import json
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, TypeVar

NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")
NAME_CHARACTERS_MAX = 128
CHECKPOINT_BYTES_MAX = 65_536
PROGRESS_TEXT_CHARACTERS_MAX = 1_024
ATTRIBUTE = "__mesh_operation__"

Handler = Callable[["JobContext"], object]
HandlerT = TypeVar("HandlerT", bound=Handler)


class OperationError(Exception):
    """The attempt failed, and the handler knows why.

    Args:
        code: stable and machine-readable, dotted like an operation's name, for example `csv.bad_row`.
        message: for people; it reaches the submitter, so no secrets.
        retryable: whether the same input may succeed later.
    """

    def __init__(self, code: str, message: str = "", retryable: bool = False) -> None:
        super().__init__(message or code)
        self.code = code
        self.message = message or code
        self.retryable = retryable


class JobCancelledError(Exception):
    """The attempt was cancelled; raised where a handler asks, and best left to pass through."""


class OperationLoadError(Exception):
    """An operation cannot be registered or found: the text says which and why."""


@dataclass(frozen=True, slots=True)
class Operation:
    """A handler under its name.

    Attributes:
        is_exclusive: never beside another attempt of the same job, whatever the broker's policy says.
        is_inline: run on the event loop itself. For handlers of microseconds that never block: a thread costs more.
    """

    name: str
    handler: Handler
    is_exclusive: bool = False
    is_inline: bool = False

    @property
    def is_async(self) -> bool:
        """Whether the handler is a coroutine function."""
        return inspect.iscoroutinefunction(self.handler)


def operation(name: str, *, exclusive: bool = False, inline: bool = False) -> Callable[[HandlerT], HandlerT]:
    """Mark a handler; `Operations` finds the mark. The function itself stays as it is."""
    if not NAME.fullmatch(name) or len(name) > NAME_CHARACTERS_MAX:
        raise OperationLoadError(f"{name!r} is no operation name: lower-case words joined by dots, `orders.copy`")

    def mark(handler: HandlerT) -> HandlerT:
        if inline and inspect.iscoroutinefunction(handler):
            raise OperationLoadError(f"{name}: a coroutine function cannot be inline")
        setattr(handler, ATTRIBUTE, Operation(name, handler, exclusive, inline))
        return handler

    return mark


class Operations:
    """The operations of one agent, by name."""

    def __init__(self, handlers: Iterable[Handler | Operation] = ()) -> None:
        self._by_name: dict[str, Operation] = {}
        for handler in handlers:
            self.register(handler)

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    def __iter__(self) -> Iterator[Operation]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def register(self, handler: Handler | Operation) -> None:
        """Add a marked handler.

        Raises:
            OperationLoadError: it is not marked, or another handler has its name.
        """
        found = handler if isinstance(handler, Operation) else getattr(handler, ATTRIBUTE, None)
        if not isinstance(found, Operation):
            raise OperationLoadError(f"{handler!r} is not marked with @operation(...)")
        known = self._by_name.setdefault(found.name, found)
        if known.handler is not found.handler:
            raise OperationLoadError(f"two operations are called {found.name}")

    def get(self, name: str) -> Operation | None:
        """The operation of this name, if the agent has it."""
        return self._by_name.get(name)

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._by_name)

    def load(self, reference: str) -> None:
        """Add what `module` or `module:attribute` names: a marked handler, an `Operations`, or a module of such.

        Raises:
            OperationLoadError: it cannot be imported, or holds no operation.
        """
        for found in _found_in(_imported(reference), reference):
            self.register(found)


def _imported(reference: str) -> object:
    module_name, _, attribute = reference.partition(":")
    try:
        found: object = importlib.import_module(module_name)
    except Exception as error:
        raise OperationLoadError(f"{module_name} cannot be imported: {type(error).__name__}: {error}") from error
    for part in attribute.split(".") if attribute else ():
        if not hasattr(found, part):
            raise OperationLoadError(f"{module_name} has no {attribute}")
        found = getattr(found, part)
    return found


def _found_in(holder: object, reference: str) -> list[Operation]:
    if isinstance(holder, Operations):
        found = list(holder)
    elif isinstance(holder, ModuleType):
        marks = (getattr(value, ATTRIBUTE, None) for value in vars(holder).values())
        found = [mark for mark in marks if isinstance(mark, Operation)]
    else:
        mark = getattr(holder, ATTRIBUTE, None)
        found = [mark] if isinstance(mark, Operation) else []
    if not found:
        raise OperationLoadError(f"{reference} holds no operation: mark a function with @operation(...)")
    return found


ReportProgress = Callable[["JobContext", float, str, bytes], None]
Clock = Callable[[], float]


@dataclass(slots=True, kw_only=True, eq=False)
class JobContext:
    """One attempt of a job, as its handler sees it. Safe to use from the handler's thread.

    Attributes:
        job_id: the submitter's id, a UUID as text.
        attempt: grows with each placement; hand it to the target as a fencing token where that matters.
        payload: the submitted bytes.
        metadata: trace context and the like.
        checkpoint: what an earlier attempt left with `progress`; empty if none did.
        deadline_s: when the attempt is stopped for its time, on `clock`; None: never.
    """

    job_id: str
    job_key: int
    attempt: int
    operation: str
    payload: bytes = b""
    content_type: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    checkpoint: bytes = b""
    deadline_s: float | None = None
    report: ReportProgress | None = None
    clock: Clock = time.monotonic
    _is_cancelled: bool = False
    _event: threading.Event | None = None

    def json(self) -> Any:
        """The payload as JSON.

        Raises:
            OperationError: `payload.not_json`, not retryable.
        """
        try:
            return json.loads(self.payload)
        except ValueError as error:
            raise OperationError("payload.not_json", f"the payload is not JSON: {error}") from error

    @property
    def cancelled(self) -> bool:
        """Whether the attempt should end: cancelled, out of time, superseded or fenced."""
        return self._is_cancelled

    def raise_if_cancelled(self) -> None:
        """Call this between steps of long work.

        Raises:
            JobCancelledError: the attempt should end.
        """
        if self._is_cancelled:
            raise JobCancelledError

    def sleep(self, seconds: float) -> None:
        """Wait in the handler's thread, but not beyond a cancel.

        Raises:
            JobCancelledError: the attempt should end.
        """
        if self._event is None:
            self._event = threading.Event()
        # The flag is set before the event is looked for: one of the two sees the other.
        if not self._is_cancelled:
            self._event.wait(seconds)
        self.raise_if_cancelled()

    def remaining_s(self) -> float | None:
        """Seconds until the attempt is stopped for its time; None: it has no limit."""
        return None if self.deadline_s is None else max(self.deadline_s - self.clock(), 0.0)

    def progress(self, fraction: float, message: str = "", checkpoint: bytes = b"") -> None:
        """Say how far the work is, 0.0 to 1.0. The next attempt is given the latest checkpoint.

        Raises:
            OperationError: `checkpoint.too_large`, more than 64 KiB.
        """
        if len(checkpoint) > CHECKPOINT_BYTES_MAX:
            raise OperationError("checkpoint.too_large", f"{len(checkpoint)} bytes, at most {CHECKPOINT_BYTES_MAX}")
        if self.report is not None:
            text = as_text(message[:PROGRESS_TEXT_CHARACTERS_MAX])
            self.report(self, min(max(fraction, 0.0), 1.0), text, bytes(checkpoint))

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry the job and the attempt."""
        fields = {"job_id": self.job_id, "attempt": self.attempt}
        return logging.LoggerAdapter(logging.getLogger(f"mesh.operation.{self.operation}"), {"fields": fields})

    def cancel(self) -> None:
        """Ask the handler to end; called by the runner."""
        self._is_cancelled = True
        if self._event is not None:
            self._event.set()


def as_text(text: str) -> str:
    """Text that UTF-8 can carry: half characters, as in undecodable file names, become question marks."""
    return text.encode(errors="replace").decode()


def result_of(value: object) -> tuple[bytes, str]:
    """What a handler returned, as (content, content type).

    Raises:
        OperationError: `result.not_json`, not retryable.
    """
    if value is None:
        return b"", ""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), "application/octet-stream"
    if isinstance(value, str):
        return as_text(value).encode(), "text/plain"
    try:
        return json.dumps(value, separators=(",", ":")).encode(), "application/json"
    except (TypeError, ValueError) as error:
        raise OperationError("result.not_json", f"the result cannot be written as JSON: {error}") from error
