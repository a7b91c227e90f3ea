from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from broker.rpc.turns import SLICE, Turns, slices
from broker.tally import LITTLE


class Work:
    """What was worked, in its order, and in which pass of the loop; `known` sources have said much before."""

    def __init__(self, *known: str) -> None:
        self.turns = Turns()
        self.done: list[str] = []
        self.known = known

    async def __aenter__(self) -> Self:
        for source in self.known:
            await self.turns.take(source, LITTLE + 1)
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *error: object) -> None: ...

    def begin(self, source: str, name: str, size: int = SLICE) -> asyncio.Task[None]:
        return asyncio.create_task(self._work(source, name, size))

    async def _work(self, source: str, name: str, size: int) -> None:
        await self.turns.take(source, size)
        self.done.append(name)

    async def passes(self, tasks: Sequence[asyncio.Task[None]]) -> list[int]:
        """How many were worked in each pass of the loop until all were."""
        numbers = list[int]()
        while not all(task.done() for task in tasks):
            before = len(self.done)
            await asyncio.sleep(0)
            numbers.append(len(self.done) - before)
        return numbers


async def test_source_that_is_alone_has_every_pass() -> None:
    async with Work("a") as work:
        passes = await work.passes([work.begin("a", f"{number}") for number in range(10)])
    assert len(passes) <= 10 + 2
    assert max(passes) == 1


async def test_sources_with_much_to_say_take_turns() -> None:
    async with Work("flood", "b", "c") as work:
        tasks = [work.begin("flood", f"flood {number}") for number in range(10)]
        tasks += [work.begin("b", "b"), work.begin("c", "c")]
        await asyncio.gather(*tasks)
    assert work.done[:4] == ["flood 0", "flood 1", "b", "c"]
    assert work.done[4:] == [f"flood {number}" for number in range(2, 10)]


async def test_source_that_says_little_waits_for_nobody_and_a_flood_rests_meanwhile() -> None:
    async with Work("flood", "b") as work:
        tasks = [work.begin("flood", "flood") for _ in range(5)]
        await asyncio.sleep(0)
        good = work.begin("good", "good", 1)
        await asyncio.sleep(0)
        assert good.done()
        passes = await work.passes([*tasks, work.begin("b", "b")])
    assert len(passes) > 20  # nothing happens in most of them: it rests
    assert work.done.index("good") <= 2
    assert work.done[-2:] == ["flood", "flood"]
    assert max(passes) == 1


async def test_source_of_many_small_pieces_rests_after_a_slice_of_them_and_not_after_each() -> None:
    async with Work("flood") as work:
        await work.begin("good", "good", 1)
        slice_of = await work.passes([work.begin("flood", "small", 1) for _ in range(SLICE - 1)])
        beyond = await work.passes([work.begin("flood", "small", 1) for _ in range(2)])
    assert len(slice_of) <= 4
    assert len(beyond) > 20  # nothing happens in most of them: it rests before the last one


async def test_pass_of_the_loop_holds_one_slice_of_small_ones() -> None:
    async with Work(*"abcdefgh") as work:
        passes = await work.passes([work.begin(source, "small", SLICE // 4) for source in "abcdefgh"])
    assert sorted(number for number in passes if number) == [4, 4]


async def test_turn_of_somebody_who_gave_up_goes_to_the_next_one() -> None:
    async with Work("a") as work:
        first, second, third = (work.begin("a", name) for name in ("first", "second", "third"))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.gather(first, second, third, return_exceptions=True)
    assert work.done == ["first", "third"]


def test_slices_are_all_that_there_is_in_its_order() -> None:
    items = range(2 * SLICE + 3)
    parts = list(slices(items))
    assert [len(part) for part in parts] == [SLICE, SLICE, 3]
    assert [item for part in parts for item in part] == list(items)
