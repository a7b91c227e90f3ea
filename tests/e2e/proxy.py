"""A relay between an agent and its broker that can misbehave: stall, cut, reset, in one direction or both.

    async with Proxy(mesh.addresses.mesh) as proxy:
        await mesh.start_agent("a1", slots=2, broker=proxy.address)
        proxy.stall()           # bytes wait, connections stay: a half-open connection
        proxy.flow()            # and come after all
        proxy.cut()             # connections end, new ones end at once
        proxy.heal()
        proxy.reset()           # connections end with RST, new ones are served

A network that loses packets looks like a stall to those who speak TCP through it: what was lost is sent again.
"""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from types import TracebackType
from typing import Final, Self

CHUNK_BYTES: Final = 1 << 16
RECORDED_BYTES_MAX: Final = 1 << 20
LINGER_NOT: Final = struct.pack("ii", 1, 0)
"""SO_LINGER that makes `close` send RST."""


class Direction(StrEnum):
    """Where bytes go."""

    TO_BROKER = "to_broker"
    TO_AGENT = "to_agent"


BOTH: Final = (Direction.TO_BROKER, Direction.TO_AGENT)


class Proxy:
    """Relays connections to `target` (host:port) until told otherwise. `address` is where it listens."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._gates = {direction: asyncio.Event() for direction in BOTH}
        self._cut = asyncio.Event()
        self._connections: list[Mapping[Direction, asyncio.StreamWriter]] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.address = ""
        self.relayed_bytes: Counter[Direction] = Counter()
        self.recorded = {direction: bytearray() for direction in BOTH}
        """The first bytes that were relayed, `RECORDED_BYTES_MAX` in each direction."""
        self.flow()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=CHUNK_BYTES)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def stall(self, *directions: Direction) -> None:
        """Pass nothing on from now, in these directions (none: both). Connections stay, new ones are made."""
        for direction in directions or BOTH:
            self._gates[direction].clear()

    def flow(self) -> None:
        """Pass on what waited, and all that follows."""
        for gate in self._gates.values():
            gate.set()

    def cut(self, *directions: Direction) -> None:
        """End the connections, or only these directions of them; new ones end at once until `heal`."""
        self._cut.set()
        for connection in self._connections:
            for writer in (connection[direction] for direction in directions or BOTH):
                if directions and writer.can_write_eof():
                    writer.write_eof()
                else:
                    writer.close()

    def heal(self) -> None:
        """Serve new connections again."""
        self._cut.clear()

    def reset(self, number: int | None = None, generator: random.Random | None = None) -> int:
        """End connections as a machine does that has forgotten them: all, or so many that `generator` draws.

        Returns how many.
        """
        hit = list(self._connections)
        if number is not None:
            hit = (generator or random.Random()).sample(hit, min(number, len(hit)))
        for connection in hit:
            for writer in connection.values():
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER_NOT)
                writer.transport.abort()
        return len(hit)

    def _accept(self, from_agent: asyncio.StreamReader, to_agent: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._relay(from_agent, to_agent), name="relay")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda _: to_agent.close())

    async def _relay(self, from_agent: asyncio.StreamReader, to_agent: asyncio.StreamWriter) -> None:
        if self._cut.is_set():
            return
        try:
            from_broker, to_broker = await asyncio.open_connection(*self._target, limit=CHUNK_BYTES)
        except OSError:
            return  # no broker: the agent sees that its connection ends
        if self._cut.is_set():  # by now
            to_broker.close()
            return
        connection = {Direction.TO_AGENT: to_agent, Direction.TO_BROKER: to_broker}
        self._connections.append(connection)
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(from_agent, to_broker, Direction.TO_BROKER))
                both.create_task(self._pump(from_broker, to_agent, Direction.TO_AGENT))
        finally:
            self._connections.remove(connection)
            to_broker.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction) -> None:
        with suppress(ConnectionError):
            while part := await reader.read(CHUNK_BYTES):
                await self._gates[direction].wait()
                writer.write(part)
                await writer.drain()
                self.relayed_bytes[direction] += len(part)
                self.recorded[direction] += part[: RECORDED_BYTES_MAX - len(self.recorded[direction])]
        # The end waits like every byte before it. An error of one side ends the other side too.
        await self._gates[direction].wait()
        with suppress(OSError):
            writer.write_eof()
