"""Errors of the mesh as gRPC says them: the only module that knows status codes.

Every status carries `ErrorInfo{reason, domain: "mesh"}`; then what goes with the family: BadRequest for malformed
requests, ResourceInfo for what is unknown, taken or in the wrong state, QuotaFailure and RetryInfo for what is full,
RetryInfo for what is away. What is not a MeshError is a bug: INTERNAL with a trace id that is in the log, nothing else.
"""

import asyncio
import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, Final

import grpc
import grpc.aio
import structlog
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2

from broker.dispatch import reasons
from broker.dispatch.messages import RequestRefused
from broker.errors import (
    AgentError,
    ChangedError,
    ConflictError,
    DeniedError,
    FullError,
    MalformedError,
    MeshError,
    NotFoundError,
    NotOwnerError,
    StoppingError,
    StoreError,
    WrongStateError,
)

DOMAIN: Final = "mesh"
RETRY_AFTER_S: Final = 1.0
"""When a caller may try again whom the error itself does not tell."""
UNAUTHENTICATED: Final = "UNAUTHENTICATED"
DETAILS_KEY: Final = "grpc-status-details-bin"
"""Where gRPC carries a whole `google.rpc.Status`, in every language."""
TEXT_BYTES_MAX: Final = 1_024
FACT_BYTES_MAX: Final = 512
VIOLATIONS_BYTES_MAX: Final = 2_048
"""A status travels in the trailers, text and details, and peers refuse 8 KiB of those: what callers sent is cut."""

_CODES: Final[dict[type[MeshError], int]] = {
    MalformedError: code_pb2.INVALID_ARGUMENT,
    NotFoundError: code_pb2.NOT_FOUND,
    ConflictError: code_pb2.ALREADY_EXISTS,
    WrongStateError: code_pb2.FAILED_PRECONDITION,
    ChangedError: code_pb2.ABORTED,
    FullError: code_pb2.RESOURCE_EXHAUSTED,
    DeniedError: code_pb2.PERMISSION_DENIED,
    AgentError: code_pb2.INVALID_ARGUMENT,
    NotOwnerError: code_pb2.UNAVAILABLE,
    StoppingError: code_pb2.UNAVAILABLE,
    StoreError: code_pb2.UNAVAILABLE,
}
_GRPC_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_REFUSALS: Final[dict[str, type[MeshError]]] = {
    reasons.QUEUE_FULL: FullError,
    reasons.QUEUE_BYTES_FULL: FullError,
    reasons.LABEL_SETS_FULL: FullError,
    reasons.LANES_FULL: FullError,
    reasons.KEY_REUSED: ConflictError,
    reasons.JOB_UNKNOWN: NotFoundError,
    reasons.JOB_FINAL: WrongStateError,
    reasons.JOB_NOT_HELD: WrongStateError,
    reasons.AGENT_UNKNOWN: NotFoundError,
    reasons.AGENT_WRONG_STATE: WrongStateError,
    reasons.NO_ACTIVE_AGENT: WrongStateError,
    reasons.GROUP_GONE: NotFoundError,
}

log = structlog.get_logger()


class Violation:
    """One field of a request that breaks a rule: where, and which rule in words."""

    __slots__ = ("description", "field")

    def __init__(self, field: str, description: str) -> None:
        self.field = field
        self.description = description


class InvalidMessageError(MalformedError):
    """A message that decodes but breaks the rules of the contract, or (`message` None) does not decode."""

    def __init__(self, text: str, *, reason: str, violations: Iterable[Violation], message: Message | None) -> None:
        super().__init__(text, reason=reason)
        self.violations = tuple(violations)
        self.message = message


def error_of(refused: RequestRefused) -> MeshError:
    """What a dispatcher refuses, as the error of its family."""
    return _REFUSALS[refused.reason](refused.text, reason=refused.reason)


def status_of(error: BaseException) -> status_pb2.Status:
    """The status that a caller sees. An error that is none of the mesh's is logged here."""
    if not isinstance(error, MeshError):
        return _bug(error)
    code = next((_CODES[kind] for kind in type(error).__mro__ if kind in _CODES), None)
    if code is None:
        return _bug(error)
    if error.reason == UNAUTHENTICATED:
        code = code_pb2.UNAUTHENTICATED
    text = _cut(error.text, TEXT_BYTES_MAX)
    status = status_pb2.Status(code=code, message=text)
    for detail in _details(error, text, code):
        status.details.add().Pack(detail)
    return status


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> None:
    """End the call with the status of the error. Raises grpc.aio.AbortError, as every abort does."""
    status = status_of(error)
    details = ((DETAILS_KEY, status.SerializeToString()),)
    await end_call(context, _GRPC_CODES[status.code], status.message, details)


async def end_call(
    context: grpc.aio.ServicerContext[Any, Any],
    code: grpc.StatusCode,
    text: str,
    details: Sequence[tuple[str, bytes]] = (),
) -> None:
    """End the call. Raises grpc.aio.AbortError, and lets go of it when the call's task is done.

    gRPC keeps that error with the call, and the error keeps the call, by the frames that it came through: a circle
    with all that the call was sent, which would lie there until the collector comes.
    """
    try:
        await context.abort(code, text, tuple(details))
    except grpc.aio.AbortError as aborted:
        task = asyncio.current_task()
        assert task is not None, "calls are served by tasks"
        task.add_done_callback(partial(_let_go, aborted))
        raise


def _let_go(aborted: BaseException, _: "asyncio.Task[Any]") -> None:
    """Of the frames that the error came through, and those that led to it."""
    error: BaseException | None = aborted
    while error is not None:
        before = error.__context__
        error.__traceback__ = error.__context__ = error.__cause__ = None
        error = before


def _details(error: MeshError, text: str, code: int) -> Iterable[Message]:
    facts = {name: _cut(value, FACT_BYTES_MAX) for name, value in error.details.items()}
    yield error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=facts)
    if isinstance(error, InvalidMessageError):
        yield _bad_request((one.field, one.description) for one in error.violations)
    elif isinstance(error, MalformedError):
        yield _bad_request([(facts.get("field", ""), text)])
    if "resource" in facts:
        yield error_details_pb2.ResourceInfo(resource_name=facts["resource"], description=text)
    if isinstance(error, FullError):
        quota = error_details_pb2.QuotaFailure()
        quota.violations.add(subject=facts.get("subject", error.reason), description=text)
        yield quota
        if error.retry_after_s:  # else time alone mends nothing
            yield _retry_info(error.retry_after_s)
    elif code == code_pb2.UNAVAILABLE:
        yield _retry_info(RETRY_AFTER_S)


def _bad_request(violations: Iterable[tuple[str, str]]) -> error_details_pb2.BadRequest:
    """The violations that fit, in their order."""
    bad_request = error_details_pb2.BadRequest()
    for field, description in violations:
        bad_request.field_violations.add(
            field=_cut(field, FACT_BYTES_MAX), description=_cut(description, FACT_BYTES_MAX)
        )
        if bad_request.ByteSize() > VIOLATIONS_BYTES_MAX:
            del bad_request.field_violations[-1]
            break
    return bad_request


def _cut(text: str, bytes_max: int) -> str:
    """The text in so many bytes of UTF-8, without a half character at its end."""
    if len(text) * 4 <= bytes_max:
        return text
    content = text.encode(errors="replace")
    return text if len(content) <= bytes_max else content[: bytes_max - 4].decode(errors="ignore") + " ..."


def _retry_info(after_s: float) -> error_details_pb2.RetryInfo:
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(round(after_s * 1e9))
    return retry


def _bug(error: BaseException) -> status_pb2.Status:
    trace_id = uuid.uuid4().hex
    log.error("request.failed", trace_id=trace_id, exc_info=error)
    text = f"internal error; the broker's log has it under trace id {trace_id}"
    status = status_pb2.Status(code=code_pb2.INTERNAL, message=text)
    info = error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN, metadata={"trace_id": trace_id})
    status.details.add().Pack(info)
    return status
