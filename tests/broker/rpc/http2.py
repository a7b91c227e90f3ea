"""A client of HTTP/2 that says what no library lets one say: frames by hand (RFC 9113), literal headers (RFC 7541)."""

from __future__ import annotations

import asyncio
import struct

from hpack import Decoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, WINDOW_UPDATE = 0x0, 0x1, 0x4, 0x8
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1
INITIAL_WINDOW_SIZE = 0x4
FRAME_BYTES_MAX = 16_384


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing and without Huffman codes; up to 126 bytes each."""
    assert len(name) < 127
    assert len(value) < 127
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request(path: bytes, flags: int = END_STREAM | END_HEADERS, **metadata: bytes) -> bytes:
    """A call on stream 1; names of metadata with `_` for `-`."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"broker",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        **{name.replace("_", "-").encode(): value for name, value in metadata.items()},
    }
    block = b"".join(literal(name, value) for name, value in fields.items())
    return frame(HEADERS, flags, 1, block)


def message(content: bytes, *, is_compressed: bool = False) -> bytes:
    """A message of the call on stream 1, in as many frames as it takes."""
    whole = struct.pack(">BI", is_compressed, len(content)) + content
    parts = (whole[start : start + FRAME_BYTES_MAX] for start in range(0, len(whole), FRAME_BYTES_MAX))
    return b"".join(frame(DATA, 0, 1, part) for part in parts)


def window(more: int) -> bytes:
    """Room for so many bytes more on stream 1."""
    return frame(WINDOW_UPDATE, 0, 1, struct.pack(">I", more))


def settings(**values: int) -> bytes:
    """The client's own; `initial_window_size` is the only one that is known here."""
    assert set(values) <= {"initial_window_size"}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", INITIAL_WINDOW_SIZE, value) for value in values.values()))


async def send(address: str, path: bytes) -> asyncio.StreamWriter:
    """Call `path`, whatever it is; the connection stays open until it is closed."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame(SETTINGS, 0, 0))
    await reader.readexactly(9)  # the server's own settings
    writer.write(frame(SETTINGS, ACK, 0) + request(path))
    await writer.drain()
    return writer


class Answer:
    """What the server says to the call on stream 1."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader
        self._decoder = Decoder()

    async def headers(self) -> dict[str, str]:
        """The next block: the head of the answer, or the trailers; all else is read and dropped."""
        while True:
            kind, stream, content = await self._frame()
            if (kind, stream) == (HEADERS, 1):
                return {str(name): str(value) for name, value in self._decoder.decode(content)}

    async def status(self) -> int:
        """Read until the call has ended: its `grpc-status`."""
        while "grpc-status" not in (said := await self.headers()):
            pass
        return int(said["grpc-status"])

    async def _frame(self) -> tuple[int, int, bytes]:
        header = await self._reader.readexactly(9)
        kind, _, stream = struct.unpack(">BBI", header[3:])
        return kind, stream, await self._reader.readexactly(int.from_bytes(header[:3], "big"))
