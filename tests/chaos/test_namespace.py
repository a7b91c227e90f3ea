"""Bytes really go through the wire, and do not when it is cut: with the kernels of two namespaces."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.chaos.machine import missing
from tests.chaos.namespace import NEEDS, TO_AGENT, TO_BROKER, Namespace, Weather
from tests.chaos.row import RowError
from tests.conftest import not_run

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

WAIT_S = 20.0
# A program of the namespace: what it hears on its standard input it says to the port, and the other way round.
FAR = """
import os, select, socket, sys
wire = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
while True:
    for ready in select.select([wire, 0], [], [])[0]:
        part = wire.recv(65536) if ready is wire else os.read(0, 65536)
        if not part:
            sys.exit(0)
        os.write(1, part) if ready is wire else wire.sendall(part)
"""


@dataclass
class Ends:
    """A connection between the namespaces: of the program that is far, and of this process."""

    namespace: Namespace
    far_in: asyncio.StreamWriter
    far_out: asyncio.StreamReader
    near_in: asyncio.StreamReader
    near_out: asyncio.StreamWriter

    async def to_broker(self, word: bytes) -> None:
        self.far_in.write(word)
        assert await self.near_in.readexactly(len(word)) == word

    async def to_agent(self, word: bytes) -> None:
        self.near_out.write(word)
        assert await self.far_out.readexactly(len(word)) == word


@asynccontextmanager
async def connected(folder: Path) -> AsyncIterator[Ends]:
    """A namespace with a connection to a server of this process."""
    if lacks := missing(NEEDS):
        not_run(lacks)
    accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    server = await asyncio.start_server(lambda reader, writer: accepted.put_nowait((reader, writer)), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(WAIT_S), server, Namespace(folder, seed=1) as namespace:
        command = (*namespace.prefix, sys.executable, "-c", FAR, f"{port}")
        pipe = asyncio.subprocess.PIPE
        far = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
        near_in, near_out = await accepted.get()
        assert far.stdin is not None
        assert far.stdout is not None
        try:
            yield Ends(namespace, far.stdin, far.stdout, near_in, near_out)
        finally:
            with suppress(ProcessLookupError):
                far.kill()
            await far.wait()
            near_out.close()
            with suppress(ConnectionError):
                await near_out.wait_closed()


async def test_namespace_reaches_the_loopback_address_of_the_broker_and_the_wire_counts_it(tmp_path: Path) -> None:
    async with connected(tmp_path) as ends:
        await ends.to_broker(b"hello")
        await ends.to_agent(b"welcome" * 100_000)

        counts = await ends.namespace.counts()
        assert counts[TO_AGENT].passed_bytes > 700_000
        assert counts[TO_BROKER].passed >= 1


@pytest.mark.parametrize(("lost", "kept"), [(TO_BROKER, TO_AGENT), (TO_AGENT, TO_BROKER)])
async def test_namespace_loses_what_goes_in_one_direction_until_it_is_healed(
    tmp_path: Path, lost: str, kept: str
) -> None:
    async with connected(tmp_path) as ends:
        await ends.namespace.cut(lost)
        await getattr(ends, kept)(b"in time")
        late = asyncio.create_task(getattr(ends, lost)(b"late"))

        async with asyncio.timeout(WAIT_S):
            while not (await ends.namespace.counts())[lost].cut:
                assert not late.done()
        await ends.namespace.heal()
        await late  # the kernel sends it again


async def test_namespace_resets_a_connection_in_either_kernel(tmp_path: Path) -> None:
    for side in (TO_AGENT, TO_BROKER):
        async with connected(tmp_path) as ends:
            assert await ends.namespace.reset(side) == 1
            with suppress(ConnectionError):
                assert await ends.near_in.read() == b""
            assert await ends.far_out.read() == b""
            assert await ends.namespace.reset(side) == 0


async def test_namespace_delays_what_passes(tmp_path: Path) -> None:
    async with connected(tmp_path) as ends:
        await ends.to_broker(b"hello")
        await ends.namespace.weather(Weather(delay_ms=100), TO_BROKER)

        began_s = time.monotonic()
        await ends.to_broker(b"hello")
        assert time.monotonic() - began_s >= 0.1


async def test_namespace_that_cannot_be_made_is_a_reason_not_to_run(tmp_path: Path) -> None:
    with pytest.raises(RowError, match="no network namespace"):
        async with Namespace(tmp_path / "nowhere", seed=1):
            pass
