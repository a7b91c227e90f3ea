"""What a call can end in, by what the caller can do about it.

    MeshClientError
    +-- MalformedError      not well formed, or beyond a limit: change the request
    +-- NotFoundError       names something that does not exist (or that is not yours to see)
    +-- DeniedError         not known, or not allowed
    +-- ConflictError       the same key with other content, or a name that is taken
    +-- WrongStateError     exists, but not in a state that allows this
    +-- FullError           a bound is reached: try again after `retry_after_s`
    +-- UnavailableError    no broker answered until the deadline
    +-- MeshTimeoutError    answered, but what was waited for did not happen in time
    +-- JobFailedError      the job ended without success; `code` and `message` are what its agent or the mesh said
    |   +-- JobDeadError        after a budget (failures, crashes, bounces) was used up
    |   `-- JobCancelledError   because somebody cancelled it
    `-- InternalError       a bug of the broker; the text has what to report

`reason` is the stable machine name from ErrorInfo, `next_step` what may be done, in words for a person; `exit_code` is
what a command line program should end with.
"""

from collections.abc import Iterable
from typing import Final

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as PackedDetail
from google.protobuf.message import DecodeError
from google.rpc import code_pb2, error_details_pb2, status_pb2

STATUS_DETAILS_KEY: Final = "grpc-status-details-bin"
LOST_STATUS: Final = "Internal error from Core"
"""What grpc.aio puts over the real status of a stream that the other side ended while it was written to."""
REASON_LOST: Final = "STATUS_LOST"


class MeshClientError(Exception):
    """Root of all errors of this package. `details` are facts for programs, from ErrorInfo."""

    exit_code = 1
    default_reason = "FAILED"
    next_step = "look at the log of the broker"

    def __init__(
        self,
        text: str,
        *,
        reason: str = "",
        retry_after_s: float | None = None,
        details: dict[str, str] | None = None,
    ) -> None:
        super().__init__(text)
        self.text = text
        self.reason = reason or self.default_reason
        self.retry_after_s = retry_after_s
        self.details = details or {}


class MalformedError(MeshClientError):
    """The request is not well formed or passes a limit."""

    exit_code = 2
    default_reason = "MALFORMED"
    next_step = "change the request; the text names what is wrong with it"


class NotFoundError(MeshClientError):
    """The request names something that does not exist."""

    exit_code = 3
    default_reason = "NOT_FOUND"
    next_step = "check the name and the organization; lists show what there is"


class DeniedError(MeshClientError):
    """Who asks is not known, or may not do this."""

    exit_code = 4
    default_reason = "DENIED"
    next_step = "ask an operator for access"


class UnavailableError(MeshClientError):
    """No broker answered, or it cannot serve now. Whether it acted is not known; jobs may be submitted again."""

    exit_code = 5
    default_reason = "UNAVAILABLE"
    next_step = "start the broker, or check its address; then submit again with the same job ids"


class FullError(MeshClientError):
    """A bound is reached; nothing was changed."""

    exit_code = 5
    default_reason = "FULL"
    next_step = "try again later, after `retry_after_s` if it is given"


class MeshTimeoutError(MeshClientError):
    """What was waited for did not happen in time."""

    exit_code = 5
    default_reason = "TIMEOUT"
    next_step = "wait longer, or ask with `explain` why it takes so long"


class ConflictError(MeshClientError):
    """The key is taken by other content, or the name by something else."""

    exit_code = 6
    default_reason = "ALREADY_EXISTS"
    next_step = "take another key or name, or look at what has it"


class WrongStateError(MeshClientError):
    """What is named exists, but its state does not allow this."""

    exit_code = 6
    default_reason = "WRONG_STATE"
    next_step = "look at its state, and act on that"


class InternalError(MeshClientError):
    """A bug of the broker."""

    default_reason = "INTERNAL"
    next_step = "report the text, with the version of the broker"


class JobFailedError(MeshClientError):
    """The job ended without success: `job_id`, `operation`, its final `state`, `code` and `message` of the failure.

    `retryable`: whether its agent said that the same input may work another time.
    """

    default_reason = "JOB_FAILED"
    next_step = "mend what the message says, then `requeue` the job: that makes a new one with the same content"

    def __init__(
        self, job_id: str, operation: str, state: str, *, code: str = "", message: str = "", retryable: bool = False
    ) -> None:
        why = ": ".join(filter(None, [code, message]))
        text = f"job {job_id} ({operation}) is {state}" + (f": {why}" if why else "")
        super().__init__(text, details={"job_id": job_id, "state": state, "code": code})
        self.job_id = job_id
        self.operation = operation
        self.state = state
        self.code = code
        self.message = message
        self.retryable = retryable


class JobDeadError(JobFailedError):
    """A budget (failures, crashes, bounces) was used up before the job succeeded."""

    default_reason = "JOB_DEAD"


class JobCancelledError(JobFailedError):
    """Somebody cancelled the job."""

    default_reason = "JOB_CANCELLED"
    next_step = "`requeue` the job if it was cancelled by mistake"


ERROR_OF_CODE: Final[dict[int, type[MeshClientError]]] = {
    code_pb2.INVALID_ARGUMENT: MalformedError,
    code_pb2.OUT_OF_RANGE: MalformedError,
    code_pb2.NOT_FOUND: NotFoundError,
    code_pb2.ALREADY_EXISTS: ConflictError,
    code_pb2.PERMISSION_DENIED: DeniedError,
    code_pb2.UNAUTHENTICATED: DeniedError,
    code_pb2.FAILED_PRECONDITION: WrongStateError,
    code_pb2.ABORTED: WrongStateError,
    code_pb2.RESOURCE_EXHAUSTED: FullError,
    code_pb2.UNAVAILABLE: UnavailableError,
    # A call that this side cancels ends in asyncio.CancelledError: this one was ended by a broker that stops.
    code_pb2.CANCELLED: UnavailableError,
    code_pb2.DEADLINE_EXCEEDED: MeshTimeoutError,
    code_pb2.INTERNAL: InternalError,
    code_pb2.UNKNOWN: InternalError,
}


def error_of_status(status: status_pb2.Status) -> MeshClientError:
    """The error that a `google.rpc.Status` says, with reason, field violations and retry delay from its details."""
    reason, retry_after_s, details, fields = "", None, {}, []
    for packed in status.details:
        match _unpacked(packed):
            case error_details_pb2.ErrorInfo() as info:
                reason, details = info.reason, dict(info.metadata)
            case error_details_pb2.RetryInfo() as retry:
                retry_after_s = retry.retry_delay.ToTimedelta().total_seconds()
            case error_details_pb2.BadRequest() as bad:
                violations = [item for item in bad.field_violations if item.description not in status.message]
                fields = [f"{item.field}: {item.description}" for item in violations]
    text = "; ".join(filter(None, [status.message, *fields]))
    kind = ERROR_OF_CODE.get(status.code, MeshClientError)
    return kind(text or kind.default_reason, reason=reason, retry_after_s=retry_after_s, details=details)


def error_of_call(error: grpc.aio.AioRpcError, target: str) -> MeshClientError:
    """The error that a failed call says. `target` is named where no broker was reached."""
    packed = _packed_status(error.trailing_metadata() or ())
    if packed is not None and packed.code == error.code().value[0]:
        return error_of_status(packed)
    text = error.details() or error.code().name
    if error.code() is grpc.StatusCode.INTERNAL and text == LOST_STATUS:
        return UnavailableError(f"the broker at {target} ended the stream", reason=REASON_LOST)
    if error.code() is grpc.StatusCode.CANCELLED:
        text = f"the broker at {target} ended the call"
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        text = f"No answer from the broker at {target} ({text}). Is it running? `mesh serve --dev` starts one."
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        text = (
            f"{target} does not know this call. Perhaps it is the mesh port, which is for agents (7401): programs and "
            "`mesh` use that of the API (7402). Or the broker is older than this program."
        )
        return MalformedError(text, reason=error.code().name)
    return ERROR_OF_CODE.get(error.code().value[0], MeshClientError)(text, reason=error.code().name)


def _packed_status(metadata: Iterable[tuple[str, str | bytes]]) -> status_pb2.Status | None:
    for key, value in metadata:
        if key == STATUS_DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                return None
    return None


def _unpacked(packed: PackedDetail) -> object:
    for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo, error_details_pb2.BadRequest):
        if packed.Is(kind.DESCRIPTOR):
            detail = kind()
            packed.Unpack(detail)
            return detail
    return None
