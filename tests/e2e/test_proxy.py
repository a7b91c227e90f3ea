"""The relay relays, stalls, cuts and resets as its users believe."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from tests.e2e.proxy import Direction, Proxy

WAIT_S = 10.0
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Broker:
    """A server that hands out its connections."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[Streams] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []

    def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted.put_nowait((reader, writer))
        self.writers.append(writer)


async def pass_on(sender: Streams, receiver: Streams, word: bytes) -> None:
    sender[1].write(word)
    assert await receiver[0].readexactly(len(word)) == word


@asynccontextmanager
async def relayed() -> AsyncIterator[tuple[Proxy, Streams, Streams, Broker]]:
    """A proxy, and a connection through it: as the agent and as the broker have it."""
    broker = Broker()
    server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
    async with (
        asyncio.timeout(WAIT_S),
        server,
        Proxy(f"127.0.0.1:{server.sockets[0].getsockname()[1]}") as proxy,
    ):
        agent = await asyncio.open_connection(*proxy.address.split(":"))
        accepted = await broker.accepted.get()
        await pass_on(agent, accepted, b"first")
        try:
            yield proxy, agent, accepted, broker
        finally:
            for writer in (agent[1], *broker.writers):
                writer.close()
                with suppress(ConnectionError):
                    await writer.wait_closed()


async def test_proxy_passes_bytes_and_ends_on_in_both_directions() -> None:
    async with relayed() as (proxy, agent, broker, _):
        await pass_on(agent, broker, b"hello")
        await pass_on(broker, agent, b"welcome" * 50_000)
        assert proxy.relayed_bytes == {Direction.TO_BROKER: 10, Direction.TO_AGENT: 350_000}

        agent[1].write_eof()
        assert await broker[0].read() == b""
        await pass_on(broker, agent, b"the other direction goes on")


@pytest.mark.parametrize("stalled", list(Direction))
async def test_proxy_holds_bytes_back_in_one_direction_and_gives_them_out_when_it_flows(stalled: Direction) -> None:
    async with relayed() as (proxy, agent, broker, _):
        sender, receiver = (agent, broker) if stalled is Direction.TO_BROKER else (broker, agent)
        proxy.stall(stalled)
        before = proxy.relayed_bytes[stalled]
        sender[1].write(b"late")
        late = asyncio.create_task(receiver[0].readexactly(4))

        await pass_on(receiver, sender, b"in time")  # a whole round of the other direction
        assert not late.done()
        assert proxy.relayed_bytes[stalled] == before
        proxy.flow()
        assert await late == b"late"


async def test_proxy_ends_connections_and_refuses_new_ones_until_it_is_healed() -> None:
    async with relayed() as (proxy, agent, broker, accepted):
        proxy.cut()
        assert await agent[0].read() == await broker[0].read() == b""
        reader, writer = await asyncio.open_connection(*proxy.address.split(":"))
        assert await reader.read() == b""
        writer.close()
        assert accepted.accepted.empty()

        proxy.heal()
        again = await asyncio.open_connection(*proxy.address.split(":"))
        await pass_on(again, await accepted.accepted.get(), b"hello")
        again[1].close()


async def test_proxy_ends_one_direction_of_a_connection_only() -> None:
    async with relayed() as (proxy, agent, broker, _):
        proxy.cut(Direction.TO_BROKER)

        assert await broker[0].read() == b""
        await pass_on(broker, agent, b"still here")


async def test_proxy_resets_connections_and_serves_new_ones() -> None:
    async with relayed() as (proxy, agent, broker, accepted):
        proxy.reset()
        for reader, _ in (agent, broker):
            with pytest.raises(ConnectionResetError):
                await reader.read()

        again = await asyncio.open_connection(*proxy.address.split(":"))
        await pass_on(again, await accepted.accepted.get(), b"hello")
        again[1].close()


async def test_proxy_resets_only_so_many_connections_as_it_is_told() -> None:
    async with relayed() as (proxy, agent, broker, accepted):
        other = await asyncio.open_connection(*proxy.address.split(":"))
        served = await accepted.accepted.get()
        await pass_on(other, served, b"second")

        assert proxy.reset(1, random.Random(3)) == 1
        reads = [asyncio.create_task(reader.read(1)) for reader in (agent[0], other[0])]
        ended, left = await asyncio.wait(reads, return_when=asyncio.FIRST_COMPLETED)

        assert [type(one.exception()) for one in ended] == [ConnectionResetError]
        for one in left:
            one.cancel()
        await asyncio.wait(left)
        await pass_on(*((agent, broker) if reads[1] in ended else (other, served)), b"hello")
        other[1].close()
