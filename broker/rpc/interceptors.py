"""What stands in front of every handler: bytes that do not decode, rules of the contract, errors to statuses.

gRPC itself answers undecodable bytes with UNKNOWN, or breaks a stream's iterator in the middle; so decoding never
fails here, it returns `Undecodable`, and the wrapped handler refuses it by name. Each message of a stream is checked
as it is read. A cancelled handler stays cancelled: swallowing that would leak its call.
"""

import inspect
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import protovalidate
from google.protobuf.message import DecodeError, Message

from broker.errors import FullError
from broker.rpc.plain import is_plain
from broker.rpc.status import InvalidMessageError, Violation, abort

MALFORMED_MESSAGE: Final = "MALFORMED_MESSAGE"
INVALID_MESSAGE: Final = "INVALID_MESSAGE"
SPARE_BYTES: Final = 1 << 20
VIOLATIONS_MAX: Final = 16
"""Broken rules that a refusal names; it says how many more there are."""

_SLUG: Final = "[a-z]([a-z0-9-]{0,61}[a-z0-9])?"
PATTERN_WORDS: Final = {
    f"^{_SLUG}$": "must be an id: 1 to 63 of a-z, 0-9 and -, a letter first, no - at the end, like site-1",
    r"^[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*$": "must be lower case words with dots, like files.csv_to_sql",
    "^[a-z][a-z0-9_.-]{0,62}$": "must be 1 to 63 of a-z, 0-9, _, . and -, a letter first, like disk.type",
    f"^organizations/{_SLUG}$": "must be a name like organizations/default",
    f"^organizations/{_SLUG}/environments/{_SLUG}$": "must be a name like organizations/default/environments/default",
    f"^organizations/{_SLUG}/groups/{_SLUG}$": "must be a name like organizations/default/groups/default",
    f"^organizations/{_SLUG}/groups/(-|{_SLUG})$": (
        "must be a name like organizations/default/groups/default, or organizations/default/groups/- for all groups"
    ),
    f"^organizations/{_SLUG}/groups/{_SLUG}/agents/{_SLUG}$": (
        "must be a name like organizations/default/groups/default/agents/host-1"
    ),
}
"""What the patterns of the contract mean to people."""

# Handlers of grpc are generic in ways that its stubs do not say; what goes through here is looked at, never used.
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Context = grpc.aio.ServicerContext[Any, Any]
OnInvalid = Callable[[InvalidMessageError], None]
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]]"


class Undecodable:
    """Bytes that are no message of the expected type, or (`had_room` is false) cannot be decoded for want of memory."""

    __slots__ = ("had_room", "why")

    def __init__(self, why: str, *, had_room: bool) -> None:
        self.why = why
        self.had_room = had_room


class CheckedMessages:
    """A stream's messages, each checked. After an error the next message can be read: the stream goes on."""

    def __init__(self, messages: AsyncIterable[object]) -> None:
        self._stream = messages
        self._messages: AsyncIterator[object] | None = None

    def __aiter__(self) -> "CheckedMessages":
        return self

    async def __anext__(self) -> Message:
        if self._messages is None:
            # Not before: grpc complains of a stream that was opened and, its call refused, never read.
            self._messages = aiter(self._stream)
        return checked(await anext(self._messages))

    async def close(self) -> None:
        """Nothing more is read: what reads and what it reads from know each other, and one of them must let go."""
        if isinstance(self._messages, AsyncGenerator):
            with suppress(RuntimeError):  # somebody still reads, and is about to be cancelled
                await self._messages.aclose()


class ContractInterceptor(grpc.aio.ServerInterceptor):
    """Holds every call to the contract, and says every error as `broker.rpc.status` does.

    `on_invalid` hears of requests that break its rules; each message of a stream is its handler's to tell.
    """

    def __init__(self, on_invalid: OnInvalid | None = None) -> None:
        self._on_invalid = on_invalid

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "Handler | None":
        """The handler of the method, wrapped."""
        handler = await continuation(handler_call_details)
        return None if handler is None else _wrapped(handler, self._on_invalid)


def checked(message: object) -> Message:
    """The message itself, if it decoded and keeps the rules of the contract.

    Raises InvalidMessageError; FullError if the broker had no memory for it.
    """
    if isinstance(message, Undecodable) and not message.had_room:
        raise FullError("the broker has no memory for this message: send it again in a moment", reason="MAILBOX_FULL")
    if isinstance(message, Undecodable):
        text = f"the bytes are no message of this type: {message.why}"
        raise InvalidMessageError(text, reason=MALFORMED_MESSAGE, violations=[Violation("", text)], message=None)
    assert isinstance(message, Message)
    if is_plain(message):
        return message
    broken = protovalidate.collect_violations(message)
    if not broken:
        return message
    violations = [Violation(path_of(one), words_of(one)) for one in broken[:VIOLATIONS_MAX]]
    text = "; ".join(f"{one.field}: {one.description}" if one.field else one.description for one in violations)
    if len(broken) > VIOLATIONS_MAX:
        text = f"{len(broken)} rules are broken, the first {VIOLATIONS_MAX}: {text}"
    raise InvalidMessageError(text, reason=INVALID_MESSAGE, violations=violations, message=message)


def words_of(violation: protovalidate.Violation) -> str:
    """Which rule is broken, for people: a pattern is none of their words."""
    if violation.proto.rule_id == "string.pattern":
        return PATTERN_WORDS.get(str(violation.rule_value), violation.proto.message)
    return violation.proto.message


def path_of(violation: protovalidate.Violation) -> str:
    """Where a rule is broken, as `jobs[3].labels["zone"]`."""
    path = ""
    for element in violation.proto.field.elements if violation.proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            value = element.subscript.value
            path += f'["{value}"]' if isinstance(value, str) else f"[{value}]"
    return path


def _wrapped(handler: Handler, on_invalid: OnInvalid | None) -> Handler:
    deserializer = _safe(handler.request_deserializer)
    if handler.stream_stream is not None:
        behavior = _streaming(handler.stream_stream, is_request_stream=True)
        return grpc.stream_stream_rpc_method_handler(behavior, deserializer, handler.response_serializer)
    if handler.stream_unary is not None:
        unary = _single(handler.stream_unary, is_request_stream=True)
        return grpc.stream_unary_rpc_method_handler(unary, deserializer, handler.response_serializer)
    if handler.unary_stream is not None:
        behavior = _streaming(handler.unary_stream, is_request_stream=False)
        return grpc.unary_stream_rpc_method_handler(behavior, deserializer, handler.response_serializer)
    unary = _single(handler.unary_unary, is_request_stream=False, on_invalid=on_invalid)
    return grpc.unary_unary_rpc_method_handler(unary, deserializer, handler.response_serializer)


def _safe(deserializer: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
    assert deserializer is not None, "every method has messages"

    def decode(content: bytes) -> object:
        try:
            return deserializer(content)
        except DecodeError as error:
            # The library says the same, word for word, when it gets no memory for a message that is good.
            return Undecodable(str(error), had_room=_has_room(len(content)))

    return decode


def _has_room(message_bytes: int) -> bool:
    """Whether there is memory enough to decode so much; in doubt there is not, and it is sent again."""
    try:
        bytearray(2 * message_bytes + SPARE_BYTES)
    except MemoryError:
        return False
    return True


def _single(behavior: Any, *, is_request_stream: bool, on_invalid: OnInvalid | None = None) -> Any:
    async def serve(request: Any, context: Context) -> Any:
        messages = CheckedMessages(request) if is_request_stream else None
        try:
            return await behavior(checked(request) if messages is None else messages, context)
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the one place where errors become statuses
            if on_invalid is not None and isinstance(error, InvalidMessageError):
                on_invalid(error)
            await abort(context, error)
        finally:
            if messages is not None:
                await messages.close()

    return serve


def _streaming(behavior: Any, *, is_request_stream: bool) -> Any:
    """grpc tells handlers that yield from those that write by themselves, so the wrapper must be of the same kind."""
    if not inspect.isasyncgenfunction(behavior):
        return _single(behavior, is_request_stream=is_request_stream)

    async def serve(request: Any, context: Context) -> AsyncIterator[Any]:
        responses = None
        messages = CheckedMessages(request) if is_request_stream else None
        try:
            responses = behavior(checked(request) if messages is None else messages, context)
            async for response in responses:
                yield response
        except grpc.aio.AbortError:
            raise
        except Exception as error:  # noqa: BLE001 - the one place where errors become statuses
            await abort(context, error)
        finally:
            if responses is not None:
                await responses.aclose()
            if messages is not None:
                await messages.close()

    return serve
