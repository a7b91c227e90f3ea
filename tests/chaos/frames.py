"""HTTP/2 as no library lets one speak it: mutated frames, floods, resets, blocks without end, and long silences.

Every attack is a function of an address (host:port), a seed and a number; it blocks until it is done and gives counts
of what it sent. It runs in a process of its own (`tests.chaos.attacker`), so that it takes nothing from those who watch
but processor time. `frames` is what left through connections that had shaken hands; `worked` how many of these were
certainly read by the server, because it acknowledged a SETTINGS frame that came after them, or refused them by name.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final, NamedTuple

from tests.broker.rpc.http2 import ACK, END_HEADERS, END_STREAM, HEADERS, PREFACE, SETTINGS, frame, literal, request

DATA, PRIORITY, RST_STREAM, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 2, 3, 5, 6, 7, 8, 9
STREAM_MAX: Final = 2**31 - 1
CANCEL: Final = struct.pack(">I", 8)
HEADER_BYTES: Final = 9
DIAL_S: Final = 20.0
ANSWER_S: Final = 5.0
HEARD_S: Final = 0.01
UNHEARD_MAX: Final = 4
"""Blocks that a connection may swallow: a frame that says that it is long takes what follows for its own."""
LAST_HEARD_S: Final = 0.03
"""What was read at last is acknowledged within it, or is not counted."""
DIAL_WAIT_S: Final = 0.02
BLOCK_FRAMES: Final = 16
CONNECTION_FRAMES_MAX: Final = 2_000
UNREAD_MAX: Final = 4
"""Of so many mutated frames the server must have read one, or they are too wild to show anything."""
LINGER_NOT: Final = struct.pack("ii", 1, 0)
MARK: Final = frame(SETTINGS, 0, 0)
"""Behind a block: whoever acknowledges it has read what came before."""
PATHS: Final = (
    b"/mesh.v1.AgentService/Connect",
    b"/mesh.v1.JobService/GetJob",
    b"/mesh.v1.JobService/SubmitStream",
    b"/grpc.health.v1.Health/Check",
)

Counts = dict[str, int]
Attack = Callable[[str, int, int], Counts]


class Frame(NamedTuple):
    """What is about to be sent; `length` is what its header says, whatever `content` is."""

    kind: int
    flags: int
    stream: int
    content: bytes
    length: int

    @staticmethod
    def of(kind: int, flags: int, stream: int, content: bytes = b"") -> Frame:
        """An honest one."""
        return Frame(kind, flags, stream, content, len(content))

    @property
    def wire(self) -> bytes:
        """As it leaves."""
        return (
            struct.pack(">I", self.length)[1:] + struct.pack(">BBI", self.kind, self.flags, self.stream) + self.content
        )


class Wire:
    """A connection whose two sides have shaken hands. Raises OSError when there is none within `DIAL_S`."""

    def __init__(self, address: str) -> None:
        self.acknowledged = -1
        """SETTINGS that the server has acknowledged, after the first, with which the connection began."""
        self.refused: Counter[str] = Counter()
        """RST_STREAM and GOAWAY that came back."""
        self._unread = b""
        self._socket = _shaken(address)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, content: bytes) -> bool:
        """Whether the connection still stood, and took it within a while."""
        try:
            self._socket.sendall(content)
        except OSError:
            return False
        return True

    def hear(self, wait_s: float = 0.0) -> bool:
        """Take in what the server has said, and wait so long for the first of it; False once it has closed."""
        self._socket.settimeout(wait_s)
        try:
            while content := self._socket.recv(1 << 16):
                self._take(content)
                self._socket.settimeout(0.0)
        except (BlockingIOError, TimeoutError):
            return True
        except OSError:
            return False
        finally:
            self._socket.settimeout(ANSWER_S)
        return False

    def heard(self, acknowledged: int, within_s: float = HEARD_S) -> bool:
        """Wait a little for so many acknowledgements; False once the server has closed.

        One that is in the middle of a frame that never ends has nothing to say.
        """
        until_s = time.monotonic() + within_s
        while self.acknowledged < acknowledged and (left_s := until_s - time.monotonic()) > 0:
            if not self.hear(left_s):
                return False
        return True

    def reset(self) -> None:
        """End it as a machine does that has forgotten it."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)

    def _take(self, content: bytes) -> None:
        self._unread += content
        while len(self._unread) >= HEADER_BYTES:
            length, kind, flags = int.from_bytes(self._unread[:3], "big"), self._unread[3], self._unread[4]
            if len(self._unread) < HEADER_BYTES + length:
                return
            self._unread = self._unread[HEADER_BYTES + length :]
            self.acknowledged += kind == SETTINGS and bool(flags & ACK)
            if kind in (RST_STREAM, GOAWAY):
                self.refused["resets" if kind == RST_STREAM else "goaways"] += 1


def _shaken(address: str) -> socket.socket:
    """A port that is being opened again is tried again."""
    until_s = time.monotonic() + DIAL_S
    while True:
        try:
            return _shake(address)
        except OSError:
            if time.monotonic() > until_s:
                raise
            time.sleep(DIAL_WAIT_S)


def _shake(address: str) -> socket.socket:
    dialled = _dialled(address)
    try:
        dialled.sendall(PREFACE + frame(SETTINGS, 0, 0))
        if not dialled.recv(HEADER_BYTES, socket.MSG_PEEK):
            raise ConnectionResetError("closed before its SETTINGS")
        dialled.sendall(frame(SETTINGS, ACK, 0))
    except OSError:
        dialled.close()
        raise
    return dialled


def _dialled(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    dialled = socket.create_connection((host, int(port)), timeout=ANSWER_S)
    dialled.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return dialled


# --- mutated frames ---------------------------------------------------------------------------------------------------


def mutated(address: str, seed: int, number: int) -> Counts:
    """Frames of which each was changed in one or two places, over as many connections as that takes, until the server
    has certainly read so many; it gives up when most of them are not read.
    """
    generator = random.Random(seed)
    counts: Counter[str] = Counter(frames=0, worked=0, connections=0)
    while counts["worked"] < number and counts["frames"] < UNREAD_MAX * number:
        frames = mutants(generator)
        with Wire(address) as wire:
            counts["connections"] += 1
            _send_until_closed(wire, frames, counts)
            if generator.random() < 0.5:
                wire.reset()
            counts.update(wire.refused)
    return dict(counts)


def _send_until_closed(wire: Wire, frames: Iterator[Frame], counts: Counter[str]) -> None:
    """Blocks of frames, each with a SETTINGS behind it, whose acknowledgement says that the block was read."""
    sent = unheard = 0
    while sent < CONNECTION_FRAMES_MAX and unheard < UNHEARD_MAX:
        block = b"".join(next(frames).wire for _ in range(BLOCK_FRAMES))
        if not wire.send(block + MARK):
            break
        sent += BLOCK_FRAMES
        counts["frames"] += BLOCK_FRAMES
        if not wire.heard(sent // BLOCK_FRAMES - max(1, unheard)):  # the newest is on its way
            break
        unheard = sent // BLOCK_FRAMES - wire.acknowledged
    wire.heard(sent // BLOCK_FRAMES, LAST_HEARD_S)
    counts["worked"] += BLOCK_FRAMES * max(0, min(wire.acknowledged, sent // BLOCK_FRAMES))


def mutants(generator: random.Random) -> Iterator[Frame]:
    """Frames of one connection without end: some connections are nearly polite, others break at once."""
    wildness = generator.choice((0.0, 0.01, 0.05, 0.5))
    stream = 1
    while True:
        one = _honest(generator, stream)
        stream += 2 * (one.kind == HEADERS)
        for _ in range(generator.randint(1, 2)):
            wild = generator.random() < wildness
            one = generator.choice(WILD if wild else TAME)(generator, one)
        yield one


def _honest(generator: random.Random, stream: int) -> Frame:
    """One of those that a client sends."""
    last = max(1, stream - 2)
    draw = generator.random()
    if draw < 0.2:
        headers = request(generator.choice(PATHS))[HEADER_BYTES:]
        return Frame.of(HEADERS, END_HEADERS, stream, headers)
    if draw < 0.5:
        content = generator.randbytes(generator.randrange(64))
        return Frame.of(
            DATA, generator.choice((0, END_STREAM)), last, b"\0" + struct.pack(">I", len(content)) + content
        )
    if draw < 0.65:
        return Frame.of(RST_STREAM, 0, last, CANCEL)
    if draw < 0.85:
        return Frame.of(WINDOW_UPDATE, 0, generator.choice((0, last)), struct.pack(">I", generator.randint(1, 1 << 16)))
    return Frame.of(PRIORITY, 0, last, struct.pack(">IB", 0, generator.randrange(256)))


Mutation = Callable[[random.Random, Frame], Frame]


def _other_kind(generator: random.Random, one: Frame) -> Frame:
    """Mostly one that nobody knows."""
    return one._replace(kind=generator.randrange(10, 256))


def _other_stream(generator: random.Random, one: Frame) -> Frame:
    streams = (one.stream | 1 << 31, one.stream + 2 * generator.randrange(1, 1_000), generator.randrange(1, STREAM_MAX))
    return one if one.kind == HEADERS else one._replace(stream=generator.choice(streams))


def _other_data(generator: random.Random, one: Frame) -> Frame:
    return one if one.kind != DATA else Frame.of(DATA, one.flags, one.stream, _flipped(generator, one.content))


def _any_kind(generator: random.Random, one: Frame) -> Frame:
    return one._replace(kind=generator.randrange(16))


def _any_flags(generator: random.Random, one: Frame) -> Frame:
    return one._replace(flags=generator.randrange(256))


def _any_stream(generator: random.Random, one: Frame) -> Frame:
    return one._replace(stream=generator.choice((0, 1, 2, STREAM_MAX, generator.getrandbits(32))))


def _any_length(generator: random.Random, one: Frame) -> Frame:
    lengths = (0, max(0, one.length - 1), one.length + 1, 16_384, 16_385, 2**24 - 1, generator.getrandbits(24))
    return one._replace(length=generator.choice(lengths))


def _any_content(generator: random.Random, one: Frame) -> Frame:
    changes = (
        _flipped(generator, one.content),
        one.content[: generator.randrange(len(one.content) + 1)],
        one.content + generator.randbytes(generator.randrange(32)),
        generator.randbytes(generator.randrange(256)),
        b"",
    )
    return Frame.of(one.kind, one.flags, one.stream, generator.choice(changes))


def _flipped(generator: random.Random, content: bytes) -> bytes:
    changed = bytearray(content)
    for _ in range(min(len(changed), generator.randint(1, 4))):
        changed[generator.randrange(len(changed))] ^= 1 << generator.randrange(8)
    return bytes(changed)


TAME: Final[tuple[Mutation, ...]] = (_other_kind, _other_stream, _other_data)
"""After these a server may go on with the connection."""
WILD: Final[tuple[Mutation, ...]] = (_any_kind, _any_flags, _any_stream, _any_length, _any_content)


# --- floods -----------------------------------------------------------------------------------------------------------


def rapid_reset(address: str, seed: int, number: int) -> Counts:
    """Calls that are taken back at once, so many, on as few connections as the server allows."""
    path = PATHS[seed % 2]

    def pair(at: int) -> bytes:
        begun = frame(HEADERS, END_HEADERS, 1 + 2 * at, request(path)[HEADER_BYTES:])
        return begun + frame(RST_STREAM, 0, 1 + 2 * at, CANCEL)

    return _flood(address, number, pair)


def settings(address: str, seed: int, number: int) -> Counts:
    """SETTINGS, each of which is to be acknowledged."""
    sizes = random.Random(seed)

    def setting(at: int) -> bytes:
        return frame(SETTINGS, 0, 0, struct.pack(">HI", 4, sizes.randrange(1, 1 << 20)))

    return _flood(address, number, setting, mark=b"", marks=BLOCK_FRAMES)


def pings(address: str, seed: int, number: int) -> Counts:
    """PING, each of which is to be answered."""
    return _flood(address, number, lambda at: frame(PING, 0, 0, struct.pack(">II", seed, at)))


def empty_data(address: str, seed: int, number: int) -> Counts:
    """DATA without a byte, on a call that never says anything."""
    begin = frame(HEADERS, END_HEADERS, 1, request(PATHS[0])[HEADER_BYTES:])
    return _flood(address, number, lambda at: frame(DATA, 0, 1) if at else begin)


def continuation(address: str, seed: int, number: int) -> Counts:
    """A block of headers that never ends, as long as the server listens; `number` frames in all.

    Nothing may come in between, so nothing is acknowledged: `worked` counts the blocks that the server refused.
    """
    fields = literal(b"x-more", random.Random(seed).randbytes(100).hex()[:100].encode()) * 8

    def more(at: int) -> bytes:
        return frame(CONTINUATION, 0, 1, fields) if at else frame(HEADERS, 0, 1, request(PATHS[0])[HEADER_BYTES:])

    return _flood(address, number, more, mark=b"", marks=0)


def _flood(address: str, number: int, frames: Callable[[int], bytes], *, mark: bytes = MARK, marks: int = 1) -> Counts:
    """`frames(n)` is the nth of a connection; a connection that the server ends is followed by another one.

    Each block has `marks` SETTINGS in it, or `mark` behind it; with none a refusal says that it was read.
    """
    counts: Counter[str] = Counter(frames=0, worked=0, connections=0)
    while counts["frames"] < number:
        with Wire(address) as wire:
            counts["connections"] += 1
            sent = _send_flood(wire, number - counts["frames"], frames, mark)
            counts["frames"] += sent
            if marks:
                wire.heard(sent // BLOCK_FRAMES * marks, ANSWER_S)
                counts["worked"] += max(0, min(sent, BLOCK_FRAMES * wire.acknowledged // marks))
            else:
                wire.hear(ANSWER_S)
                counts["worked"] += bool(wire.refused)
            counts.update(wire.refused)
    return dict(counts)


def _send_flood(wire: Wire, number: int, frames: Callable[[int], bytes], mark: bytes) -> int:
    """How many left until there were so many or the server had ended the connection."""
    sent = 0
    while sent < number:
        if not wire.send(b"".join(map(frames, range(sent, sent + BLOCK_FRAMES))) + mark):
            break
        sent += BLOCK_FRAMES
        if not wire.hear():
            break
    return sent


# --- silence ----------------------------------------------------------------------------------------------------------


def silent(address: str, seed: int, number: int) -> Counts:
    """So many connections that say nothing, half a preface, or half a request, until the server cuts the first two.

    `cut` counts those that never shook hands and were ended by the server within `SILENCE_S`.
    """
    half_request = PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 0, 1, request(PATHS[seed % 2])[HEADER_BYTES:])
    openings = (b"", PREFACE[:10], half_request)
    held = [_dialled(address) for _ in range(number)]
    try:
        for at, one in enumerate(held):
            with suppress(OSError):
                one.sendall(openings[at % len(openings)])
        mute = [one for at, one in enumerate(held) if openings[at % len(openings)] != half_request]
        return {"connections": number, "mute": len(mute), "cut": _cut_within(mute)}
    finally:
        for one in held:
            one.close()


SILENCE_S: Final = 15.0


def _cut_within(held: list[socket.socket]) -> int:
    until_s = time.monotonic() + SILENCE_S
    return sum(_is_ended(one, max(0.01, until_s - time.monotonic())) for one in held)


def _is_ended(one: socket.socket, within_s: float) -> bool:
    """Whether the server ends the connection in that time; what it says before that is read."""
    one.settimeout(within_s)
    try:
        while one.recv(1 << 12):
            pass
    except TimeoutError:
        return False
    except OSError:
        pass
    return True
