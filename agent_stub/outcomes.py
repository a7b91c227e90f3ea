"""What a handler returned or raised, as the outcome of its attempt, within the broker's limits."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass
from typing import Any

from agent_stub.context import JobCancelledError, JobContext, OperationError, as_text, result_of
from agent_stub.logs import fields
from agent_stub.session import Outcome, OutcomeStatus

CODE_CHARACTERS_MAX = 128
WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

log = logging.getLogger("mesh.agent.runner")


@dataclass(frozen=True, slots=True)
class RunLimits:
    """What an outcome may hold; stated by the broker."""

    result_bytes_max: int = 1 << 20
    failure_message_bytes_max: int = 4_096


@dataclass(slots=True)
class Course:
    """One attempt from its start: what is needed to say how it ended."""

    job: JobContext
    limits: RunLimits
    started_s: float

    @property
    def run_time_us(self) -> int:
        """How long it has run."""
        return int((time.monotonic() - self.started_s) * 1_000_000)

    def returned(self, value: object) -> Outcome:
        """The handler came to its end with this value."""
        try:
            content, content_type = result_of(value)
        except BaseException as error:  # noqa: BLE001 - methods of the value run here, with mistakes of their own
            return self.raised(error)
        limit = self.limits.result_bytes_max
        if len(content) > limit:
            text = f"the result has {len(content)} bytes, at most {limit} can be kept"
            return self.raised(OperationError("result_too_large", text))
        return self._outcome(OutcomeStatus.SUCCEEDED, content=content, content_type=content_type)

    def raised(self, error: BaseException) -> Outcome:
        """The handler ended with an exception: an outcome whatever that one is and holds."""
        if isinstance(error, JobCancelledError | asyncio.CancelledError) and self.job.cancelled:
            return self.cancelled()
        try:
            return self._failed_by(error)
        except BaseException:  # noqa: BLE001 - it cannot even be put into words; without an outcome the slot is lost
            return self.failed(code_of(error), type(error).__name__, is_retryable=True)

    def failed(self, code: object, text: object, is_retryable: object) -> Outcome:
        """A failure in the words of a handler, which may be no strings; its text is cut at the limit."""
        words = str(text).encode(errors="replace")[: self.limits.failure_message_bytes_max].decode(errors="ignore")
        code = as_text(str(code)[:CODE_CHARACTERS_MAX])
        return self._outcome(OutcomeStatus.FAILED, code=code, text=words, retryable=bool(is_retryable))

    def cancelled(self) -> Outcome:
        """It ended because it was told to."""
        return self._outcome(OutcomeStatus.CANCELLED)

    def _failed_by(self, error: BaseException) -> Outcome:
        if isinstance(error, OperationError):
            return self.failed(error.code, error.message, error.retryable)
        job = self.job
        facts = fields(job_id=job.job_id, job_key=job.job_key, attempt=job.attempt)
        log.warning("job.raised", exc_info=error, extra=facts)
        return self.failed(code_of(error), str(error) or type(error).__name__, is_retryable=True)

    def _outcome(self, status: OutcomeStatus, **more: Any) -> Outcome:
        return Outcome(self.job.job_key, self.job.attempt, status, run_time_us=self.run_time_us, **more)


def code_of(error: BaseException) -> str:
    """The failure code of an exception that says nothing about itself: `python.value_error` for a `ValueError`."""
    return "python." + WORD_START.sub("_", type(error).__name__).lower().strip("_")
