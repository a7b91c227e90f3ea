"""The network between two network namespaces, in a program: it drops, delays, doubles and throttles packets.

    python -m tests.chaos.relay --seed 7 --control SOCKET

It joins a TUN device of the namespace in which it is started (where a broker listens on 127.0.0.1) with one of a new
namespace of its own (where agents are started). In the new one there is no loopback device: 127.0.0.1 is what is at the
other end of the wire. So programs that speak on loopback addresses only are used unchanged, and packets pass as they
are: every segment, acknowledgement and reset is that of the two kernels. Devices, routes and namespace are gone with
the process.

SOCKET takes datagrams of JSON, `{"to_broker": {...}, "to_agent": {...}}` with the fields of `Weather`: how it is from
now on, in the directions that are named. Each is answered with the `Counts` of both directions.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, NamedTuple

TO_BROKER: Final = "to_broker"
TO_AGENT: Final = "to_agent"
DIRECTIONS: Final = (TO_BROKER, TO_AGENT)

PACKET_BYTES_MAX: Final = 1 << 16
BURST_PACKETS: Final = 256
"""So many are taken from one side before the other one is looked at."""
_TUNSETIFF: Final = 0x400454CA
_IFF_TUN_NO_PI: Final = 0x0001 | 0x1000
_CLONE_NEWNET: Final = 0x40000000
_ADDRESSES: Final = 1 << 17
"""In 198.18.0.0/15, which is set apart for tests of networks."""


class RelayError(Exception):
    """A namespace or a device could not be made; the text has what the kernel said."""


@dataclass(slots=True)
class Weather:
    """How a wire behaves in one direction. A packet is late by `delay_ms` +- `jitter_ms`, so packets overtake."""

    is_cut: bool = False
    loss: float = 0.0
    """Share of the packets that are dropped."""
    twice: float = 0.0
    """Share of the packets that arrive twice."""
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    rate_bytes_s: float = 0.0
    """0: without limit."""
    queue_bytes: int = 65_536
    """What may wait for the rate; what comes then is dropped, as a router does."""


@dataclass(slots=True)
class Counts:
    """What a wire has done in one direction."""

    passed: int = 0
    passed_bytes: int = 0
    cut: int = 0
    lost: int = 0
    doubled: int = 0
    delayed: int = 0
    overflowed: int = 0
    """Dropped because too much waited for the rate."""


class Wire:
    """One direction: when a packet arrives at the other end, if it does. The same seed decides the same."""

    def __init__(self, seed: str) -> None:
        self.weather = Weather()
        self.counts = Counts()
        self._generator = random.Random(seed)
        self._free_at_s = 0.0

    def arrivals_s(self, now_s: float, packet_bytes: int) -> tuple[float, ...]:
        """The times at which a packet that is sent now comes out: none, one, or two."""
        weather, counts = self.weather, self.counts
        if weather.is_cut:
            counts.cut += 1
            return ()
        if weather.loss and self._generator.random() < weather.loss:
            counts.lost += 1
            return ()
        at_s = now_s
        if weather.rate_bytes_s:
            self._free_at_s = max(self._free_at_s, now_s)
            if (self._free_at_s - now_s) * weather.rate_bytes_s > weather.queue_bytes:
                counts.overflowed += 1
                return ()
            self._free_at_s += packet_bytes / weather.rate_bytes_s
            at_s = self._free_at_s
        copies = 1
        if weather.twice and self._generator.random() < weather.twice:
            counts.doubled += 1
            copies = 2
        counts.passed += copies
        counts.passed_bytes += copies * packet_bytes
        return tuple(at_s + self._lateness_s() for _ in range(copies))

    def _lateness_s(self) -> float:
        weather = self.weather
        if not weather.delay_ms:
            return 0.0
        self.counts.delayed += 1
        return max(0.0, weather.delay_ms + self._generator.uniform(-1.0, 1.0) * weather.jitter_ms) / 1_000


class _Flight(NamedTuple):
    """A packet on its way: when it comes out, in which order it went in, at which device, and what it is."""

    at_s: float
    number: int
    device: int
    packet: bytes


class Relay:
    """Two devices and the wires between them; `control` is where it is told how they behave."""

    def __init__(self, broker_side: int, agent_side: int, control: socket.socket, seed: int) -> None:
        self._wires = {name: Wire(f"{seed} {name}") for name in DIRECTIONS}
        self._ways = {
            agent_side: (self._wires[TO_BROKER], broker_side),
            broker_side: (self._wires[TO_AGENT], agent_side),
        }
        self._control = control
        self._flights: list[_Flight] = []
        self._number = 0
        self._poll = select.epoll()
        for descriptor in (*self._ways, control.fileno()):
            self._poll.register(descriptor, select.EPOLLIN)

    def run(self) -> None:
        """Carry packets until the process is ended."""
        while True:
            wait_s = max(0.0, self._flights[0].at_s - time.monotonic()) if self._flights else -1.0
            for descriptor, _ in self._poll.poll(wait_s):
                if descriptor in self._ways:
                    self._take(descriptor)
                else:
                    self._listen()
            self._land()

    def _take(self, descriptor: int) -> None:
        wire, device = self._ways[descriptor]
        now_s = time.monotonic()
        for _ in range(BURST_PACKETS):
            try:
                packet = os.read(descriptor, PACKET_BYTES_MAX)
            except BlockingIOError:
                return
            for at_s in wire.arrivals_s(now_s, len(packet)):
                if at_s <= now_s:
                    _send(device, packet)
                else:
                    self._number += 1
                    heapq.heappush(self._flights, _Flight(at_s, self._number, device, packet))

    def _land(self) -> None:
        now_s = time.monotonic()
        while self._flights and self._flights[0].at_s <= now_s:
            flight = heapq.heappop(self._flights)
            _send(flight.device, flight.packet)

    def _listen(self) -> None:
        wish, sender = self._control.recvfrom(PACKET_BYTES_MAX)
        for name, fields in json.loads(wish).items():
            self._wires[name].weather = Weather(**fields)
        counts = {name: asdict(wire.counts) for name, wire in self._wires.items()}
        self._control.sendto(json.dumps(counts).encode(), sender)


def _send(device: int, packet: bytes) -> None:
    with suppress(OSError):  # the other end is full, or not there: a network loses what it cannot carry
        os.write(device, packet)


def inner_address(pid: int) -> str:
    """The address of what is in the new namespace of this process: another one for each that runs."""
    number = pid % _ADDRESSES
    return f"198.{18 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def _join(address: str, *, is_inner: bool) -> int:
    """A TUN device in the namespace where this process is now: its descriptor. Raises RelayError."""
    name = f"relay{os.getpid()}"
    try:
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN_NO_PI))
        # Otherwise the kernel drops packets that come from, or go to, a loopback address over a wire.
        Path(f"/proc/sys/net/ipv4/conf/{name}/route_localnet").write_text("1")
    except OSError as error:
        raise RelayError(f"no device {name}: {error}") from error
    _ip("link", "set", name, "up", "txqueuelen", "5000")
    if is_inner:
        _ip("address", "add", f"{address}/32", "dev", name)
        _ip("route", "add", "127.0.0.1/32", "dev", name, "src", address)
    else:
        _ip("route", "add", f"{address}/32", "dev", name)
    return device


def _ip(*words: str) -> None:
    done = subprocess.run(("ip", *words), capture_output=True, text=True, check=False)
    if done.returncode:
        raise RelayError(f"ip {' '.join(words)}: {done.stderr.strip()}")


def _leave_namespace() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        raise RelayError(f"no namespace: {os.strerror(ctypes.get_errno())}")


def main() -> int:
    """Run until the process is ended; exit 1 if there is no way to make it."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.relay")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", type=Path, required=True, metavar="SOCKET")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(str(asked.control))
    address = inner_address(os.getpid())
    try:
        broker_side = _join(address, is_inner=False)
        _leave_namespace()
        agent_side = _join(address, is_inner=True)
    except RelayError as error:
        print(f"relay.failed: {error}", file=sys.stderr, flush=True)
        return 1
    print(f"relay.ready {address}", file=sys.stderr, flush=True)
    Relay(broker_side, agent_side, control, asked.seed).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
