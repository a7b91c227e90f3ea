"""An agent's stream by hand: one connection, one call, and nothing else of HTTP/2.

A channel of gRPC costs its process milliseconds and 100 KiB, and beside thousands of them no broker gets a processor.
This is what `agent_stub.client` uses of a call, for a tenth of that: the same frames on the wire (RFC 9113), pings and
settings answered, windows kept in both directions.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque
from typing import Final

import grpc
from hpack import Decoder

from protos.mesh.v1 import agent_service_pb2 as pb
from tests.broker.rpc.http2 import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES_MAX,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    request,
)

RST_STREAM, PING = 0x3, 0x6
PATH: Final = b"/mesh.v1.AgentService/Connect"
WINDOW_BYTES: Final = 65_535
"""What either side may say before the other one makes room (RFC 9113, 6.9.2)."""
HEADER_BYTES: Final = 9
PREFIX_BYTES: Final = 5
"""In front of each message: whether it is compressed, and its length."""
REFUSED: Final = "nobody listens there"
BROKEN: Final = "the connection has ended"
RESET: Final = "the call was reset"
CODES: Final = {str(code.value[0]): code for code in grpc.StatusCode}


class Stream(asyncio.Protocol):
    """A call of `AgentService.Connect`; it dials when the first frame is written."""

    def __init__(self, address: str, identity: str) -> None:
        self._host, _, self._port = address.rpartition(":")
        self._identity = identity.encode()
        self._transport: asyncio.Transport | None = None
        self._unread = bytearray()  # frames of HTTP/2, the last one may not be whole
        self._message = bytearray()  # messages of the call, the same
        self._arrived: deque[pb.BrokerFrame] = deque()
        self._news = asyncio.Event()
        self._taken = 0  # bytes that the broker has not been given room for again
        self._window = self._stream_window = WINDOW_BYTES
        self._initial_window = WINDOW_BYTES
        self._has_room = asyncio.Event()
        self._heads: list[bytes] = []  # read only when somebody asks: decoding is dear
        self._why = ""

    # What the agent does with a call ---------------------------------------------------------------------------------

    async def write(self, message: pb.AgentFrame) -> None:
        """Send a frame. Raises asyncio.InvalidStateError when the call is over."""
        if self._transport is None:
            await self._open()
        content = message.SerializeToString()
        content = struct.pack(">BI", 0, len(content)) + content
        while content:
            room = min(self._window, self._stream_window, FRAME_BYTES_MAX)
            if self._why or self._transport is None:
                raise asyncio.InvalidStateError(self._why)
            if room <= 0:
                self._has_room.clear()
                await self._has_room.wait()
                continue
            part, content = content[:room], content[room:]
            self._window -= len(part)
            self._stream_window -= len(part)
            self._transport.write(frame(DATA, 0, 1, part))

    async def read(self) -> pb.BrokerFrame | None:
        """The next frame of the broker; None at the end."""
        while not self._arrived:
            if self._why:
                return None
            self._news.clear()
            await self._news.wait()
        return self._arrived.popleft()

    async def done_writing(self) -> None:
        """Say that nothing follows."""
        if self._transport is not None:
            self._transport.write(frame(DATA, END_STREAM, 1))

    def cancel(self) -> bool:
        """End it, whatever is on its way."""
        if self._transport is not None:
            self._transport.close()
        return self._end("cancelled")

    async def close(self) -> None:
        """End the connection too."""
        self.cancel()

    def done(self) -> bool:
        """Whether it is over."""
        return bool(self._why)

    async def code(self) -> grpc.StatusCode:
        """What the broker said; UNAVAILABLE if it said nothing."""
        return CODES.get(self._trailers().get("grpc-status", ""), grpc.StatusCode.UNAVAILABLE)

    async def details(self) -> str:
        """How it ended."""
        return self._trailers().get("grpc-message", self._why)

    # What comes from the connection ----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands: begin at once, a broker waits 5 s for that, and thousands may share this loop."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        call = request(PATH, END_HEADERS, mesh_dev_identity=self._identity)
        transport.write(PREFACE + frame(SETTINGS, 0, 0) + call)

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended, in whatever way."""
        self._end(BROKEN if exc is None else f"{BROKEN}: {exc}")

    def data_received(self, data: bytes) -> None:
        """Take the frames that are whole."""
        unread = self._unread
        unread += data
        at = 0
        while len(unread) - at >= HEADER_BYTES:
            end = at + HEADER_BYTES + int.from_bytes(unread[at : at + 3], "big")
            if len(unread) < end:
                break
            kind, flags, stream = struct.unpack_from(">BBI", unread, at + 3)
            self._take(kind, flags, stream, bytes(unread[at + HEADER_BYTES : end]))
            at = end
        del unread[:at]

    # Inside ----------------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, self._host, int(self._port))
        except OSError as error:
            self._end(REFUSED)
            raise asyncio.InvalidStateError(REFUSED) from error

    def _end(self, why: str) -> bool:
        is_new = not self._why
        self._why = self._why or why
        self._news.set()
        self._has_room.set()
        return is_new

    def _take(self, kind: int, flags: int, stream: int, content: bytes) -> None:
        assert self._transport is not None
        if kind == DATA:
            self._take_data(content)
        elif kind == PING and not flags & ACK:
            self._transport.write(frame(PING, ACK, 0, content))
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(content)
            self._transport.write(frame(SETTINGS, ACK, 0))
        elif kind == WINDOW_UPDATE:
            self._take_room(stream, int.from_bytes(content, "big"))
        elif kind == RST_STREAM:
            self._end(RESET)
        elif kind == HEADERS:
            self._heads.append(content)
            if flags & END_STREAM:
                self._end("the call has ended")

    def _trailers(self) -> dict[str, str]:
        """The last block of headers, once the call has ended by one."""
        decoder = Decoder()
        heads = [decoder.decode(head) for head in self._heads]
        return {str(name): str(value) for name, value in heads[-1]} if heads else {}

    def _take_data(self, content: bytes) -> None:
        message = self._message
        message += content
        while len(message) >= PREFIX_BYTES:
            end = PREFIX_BYTES + int.from_bytes(message[1:PREFIX_BYTES], "big")
            if len(message) < end:
                break
            self._arrived.append(pb.BrokerFrame.FromString(bytes(message[PREFIX_BYTES:end])))
            del message[:end]
            self._news.set()
        self._taken += len(content)
        if self._taken > WINDOW_BYTES // 2 and self._transport is not None:
            room = struct.pack(">I", self._taken)
            self._taken = 0
            self._transport.write(frame(WINDOW_UPDATE, 0, 0, room) + frame(WINDOW_UPDATE, 0, 1, room))

    def _take_settings(self, content: bytes) -> None:
        for name, value in struct.iter_unpack(">HI", content):
            if name == INITIAL_WINDOW_SIZE:
                self._take_room(1, value - self._initial_window)
                self._initial_window = value

    def _take_room(self, stream: int, more: int) -> None:
        if stream:
            self._stream_window += more
        else:
            self._window += more
        self._has_room.set()
