from __future__ import annotations

import asyncio

from broker.rpc.room import Room
from tests.broker.running import WAIT_S


async def test_room_lets_the_large_one_in_when_it_is_alone_and_keeps_the_order() -> None:
    room = Room(10, 100)
    entered: list[str] = []

    async def enter(name: str, jobs: int) -> None:
        await room.enter(jobs, 0)
        entered.append(name)

    await enter("first", 4)
    async with asyncio.TaskGroup() as group, asyncio.timeout(WAIT_S):
        group.create_task(enter("huge", 50))
        group.create_task(enter("small", 1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == ["first"]
        room.leave(4, 0)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == ["first", "huge"]
        room.leave(50, 0)
    assert entered == ["first", "huge", "small"]


async def test_room_counts_bytes_of_payloads_too() -> None:
    room = Room(10, 100)
    await room.enter(1, 60)
    second = asyncio.create_task(room.enter(1, 60))
    await asyncio.sleep(0)
    assert not second.done()
    room.leave(1, 60)
    async with asyncio.timeout(WAIT_S):
        await second
