"""A client of HTTP/2 that says what no library lets one say: frames by hand (RFC 9113), literal headers (RFC 7541)."""

from __future__ import annotations

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADERS, SETTINGS = 0x1, 0x4
END_STREAM, END_HEADERS, ACK = 0x1, 0x4, 0x1


def frame(kind: int, flags: int, stream: int, content: bytes = b"") -> bytes:
    return struct.pack(">I", len(content))[1:] + struct.pack(">BBI", kind, flags, stream) + content


def literal(name: bytes, value: bytes) -> bytes:
    """A header field without indexing and without Huffman codes; up to 126 bytes each."""
    assert len(name) < 127
    assert len(value) < 127
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request(path: bytes) -> bytes:
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path,
        b":authority": b"broker",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    block = b"".join(literal(name, value) for name, value in fields.items())
    return frame(HEADERS, END_STREAM | END_HEADERS, 1, block)


async def send(address: str, path: bytes) -> asyncio.StreamWriter:
    """Call `path`, whatever it is; the connection stays open until it is closed."""
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(PREFACE + frame(SETTINGS, 0, 0))
    await reader.readexactly(9)  # the server's own settings
    writer.write(frame(SETTINGS, ACK, 0) + request(path))
    await writer.drain()
    return writer
