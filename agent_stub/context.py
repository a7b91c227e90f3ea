"""One attempt of a job, as its handler sees it, and how a handler says that it failed."""

from __future__ import annotations

import json
import logging
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_stub.folders import make_private, remove

CHECKPOINT_BYTES_MAX = 65_536
PROGRESS_TEXT_CHARACTERS_MAX = 1_024
OCTETS = "application/octet-stream"
CONTENT_TYPE_CHARACTERS_MAX = 128
LOGGING_NAMES = ("exc_info", "stack_info", "stacklevel", "extra")
"""What `logging` itself takes by name."""


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
        variables: the agent's own variables, from its configuration; they are never sent anywhere.
        options: what the agent's configuration says about this operation, `[operations."name"]`.
        folders: where `folder` makes the attempt's own folder.
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
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
    folders: Path | None = None
    _has_folder: bool = False
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

    def variable(self, name: str) -> str:
        """A variable of this agent, from the section `[variables]` of its configuration.

        Raises:
            OperationError: `variable.missing`, not retryable; the message names it.
        """
        try:
            return self.variables[name]
        except KeyError:
            text = f"this agent has no variable {name!r}: set it in [variables] of its configuration and start it again"
            raise OperationError("variable.missing", text) from None

    def folder(self) -> Path:
        """An empty folder of this attempt alone; it is removed when the attempt has ended.

        Raises:
            OSError, FoldersError: it cannot be made.
        """
        path = self.folder_path
        self._has_folder = True
        make_private(path)
        return path

    @property
    def folder_path(self) -> Path:
        """Where `folder` makes it."""
        return (self.folders or Path(tempfile.gettempdir())) / f"{self.job_key}-{self.attempt}"

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
        """Say how far the work is, 0.0 to 1.0; NaN counts as 0.0. The next attempt is given the latest checkpoint.

        Fraction and message reach the broker, which does not keep them yet: only the checkpoint lasts.

        Raises:
            OperationError: `checkpoint.too_large`, more than 64 KiB.
        """
        if len(checkpoint) > CHECKPOINT_BYTES_MAX:
            raise OperationError("checkpoint.too_large", f"{len(checkpoint)} bytes, at most {CHECKPOINT_BYTES_MAX}")
        if self.report is not None:
            text = as_text(message[:PROGRESS_TEXT_CHARACTERS_MAX])
            # In this order: what is not a number compares with nothing, and 0.0 stays.
            self.report(self, min(max(0.0, fraction), 1.0), text, bytes(checkpoint))

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        """A logger whose lines carry the job and the attempt, and facts of yours: `info("order.added", rows=7)`."""
        fields = {"job_id": self.job_id, "job_key": self.job_key, "attempt": self.attempt}
        return FactLogger(logging.getLogger(f"mesh.operation.{self.operation}"), fields)

    def close(self) -> None:
        """The attempt has ended; called by the runner."""
        if self._has_folder:
            remove(self.folder_path)

    def cancel(self) -> None:
        """Ask the handler to end; called by the runner."""
        self._is_cancelled = True
        if self._event is not None:
            self._event.set()


class FactLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds `extra` to each line, and what else is given by name. The names in `extra` are not for others."""

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """The line and what `logging` takes, all else as fields."""
        taken = {name: kwargs.pop(name) for name in LOGGING_NAMES if name in kwargs}
        own = self.extra or {}
        facts = {**own, **{name: value for name, value in kwargs.items() if name not in own}}
        return msg, {**taken, "extra": {**(taken.get("extra") or {}), "fields": facts}}


def as_text(text: str) -> str:
    """Text that UTF-8 can carry: half characters, as in undecodable file names, become question marks."""
    return text.encode(errors="replace").decode()


@dataclass(slots=True, frozen=True)
class Content:
    """Bytes whose kind the handler knows, as it returns them: `Content(picture, "image/png")`."""

    content: bytes
    content_type: str


def result_of(value: object) -> tuple[bytes, str]:
    """What a handler returned, as (content, content type).

    Raises:
        OperationError: `result.not_json`, not retryable.
    """
    if value is None:
        return b"", ""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value), OCTETS
    if isinstance(value, Content):
        return bytes(value.content), as_text(str(value.content_type))[:CONTENT_TYPE_CHARACTERS_MAX] or OCTETS
    if isinstance(value, str):
        return as_text(value).encode(), "text/plain"
    try:
        return json.dumps(value, separators=(",", ":")).encode(), "application/json"
    except (TypeError, ValueError, RecursionError) as error:
        raise OperationError("result.not_json", f"the result cannot be written as JSON: {error}") from error
