from __future__ import annotations

import asyncio

from broker.rpc.turns import SLICE, Turns, slices


class Work:
    """What was worked, in its order."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.done: list[str] = []

    def begin(self, source: str, name: str, size: int = SLICE) -> asyncio.Task[None]:
        return asyncio.create_task(self._work(source, name, size))

    async def _work(self, source: str, name: str, size: int) -> None:
        await self.turns.take(source, size)
        self.done.append(name)


async def test_source_that_is_alone_waits_for_nobody() -> None:
    work = Work()
    task = work.begin("a", "alone")
    await asyncio.sleep(0)
    assert task.done()


async def test_source_with_much_to_say_lets_others_in_after_one_slice() -> None:
    work = Work()
    tasks = [work.begin("flood", f"flood {number}") for number in range(10)]
    tasks += [work.begin("good", "good"), work.begin("other", "other")]
    await asyncio.gather(*tasks)
    assert work.done[:4] == ["flood 0", "flood 1", "good", "other"]
    assert work.done[4:] == [f"flood {number}" for number in range(2, 10)]


async def test_pass_of_the_loop_holds_one_slice_and_small_ones_together() -> None:
    work, passes = Work(), list[int]()
    tasks = [work.begin("flood", "large", SLICE) for _ in range(5)]
    tasks += [work.begin(f"source {number}", "small", SLICE // 4) for number in range(8)]
    while not all(task.done() for task in tasks):
        before = len(work.done)
        await asyncio.sleep(0)
        passes.append(len(work.done) - before)
    assert max(passes) <= 5
    assert sum(1 for number in passes if number) >= 5 + 8 // 5


async def test_turn_of_somebody_who_gave_up_goes_to_the_next_one() -> None:
    work = Work()
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
