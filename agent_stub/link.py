"""Messages between the agent and the process of an attempt: over a pipe, each a head in JSON and pieces of bytes.

    4 bytes length of the head | head | pieces

To the process: `order` (once, on its standard input), then on the link `cancel` and `lease`. From it: `progress`,
`log`, and at last `outcome`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

LENGTH_BYTES = 4
HEAD_BYTES_MAX = 16 << 20
MESSAGE_BYTES_MAX = 256 << 20


class BrokenLinkError(Exception):
    """What came over the link is no message."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message: what it is, what it says, and its pieces of bytes."""

    kind: str
    facts: Mapping[str, Any]
    pieces: tuple[bytes, ...] = ()


def pack(kind: str, facts: Mapping[str, Any], *pieces: bytes) -> bytes:
    """A message as bytes."""
    head = json.dumps([kind, facts, [len(piece) for piece in pieces]]).encode()
    return b"".join((len(head).to_bytes(LENGTH_BYTES, "big"), head, *pieces))


class Unpacker:
    """Messages out of what arrives in parts."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def feed(self, part: bytes) -> Iterator[Message]:
        """What is complete now.

        Raises:
            BrokenLinkError: it is no message.
        """
        self._bytes += part
        while (message := self._next()) is not None:
            yield message

    def _next(self) -> Message | None:
        held = self._bytes
        if len(held) < LENGTH_BYTES:
            return None
        at = LENGTH_BYTES + int.from_bytes(held[:LENGTH_BYTES], "big")
        if at > HEAD_BYTES_MAX:
            raise BrokenLinkError(f"a head of {at} bytes")
        if len(held) < at:
            return None
        try:
            kind, facts, sizes = json.loads(held[LENGTH_BYTES:at])
            total = at + sum(sizes)
        except (ValueError, TypeError) as error:
            raise BrokenLinkError("a head that is none") from error
        if total > MESSAGE_BYTES_MAX:
            raise BrokenLinkError(f"a message of {total} bytes")
        if len(held) < total:
            return None
        pieces = []
        for size in sizes:
            pieces.append(bytes(held[at : at + size]))
            at += size
        del held[:total]
        return Message(kind, facts, tuple(pieces))


def read_one(stream: BinaryIO) -> Message:
    """The one message that a stream holds.

    Raises:
        BrokenLinkError: it holds none, or a part of one.
    """
    for message in Unpacker().feed(stream.read()):
        return message
    raise BrokenLinkError("the message is cut off")
