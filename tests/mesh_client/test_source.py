from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sized

import pytest

from mesh_client.source import AHEAD_MAX, Source, held_source
from tests.mesh_client.broker import WAIT_S


class Numbers(Iterator[int]):
    """All of them; `read` is the last one that somebody has taken."""

    def __init__(self) -> None:
        self.read = 0

    def __next__(self) -> int:
        self.read += 1
        return self.read


def source_of(items: Iterator[int]) -> Source[int]:
    return Source(items, asyncio.get_running_loop())


async def test_source_gives_all_items_in_order_then_ends() -> None:
    assert [item async for item in source_of(iter(range(10_000)))] == list(range(10_000))


async def test_source_that_blocks_leaves_the_loop_free() -> None:
    may_go = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert may_go.wait(WAIT_S)
        yield 2

    source = source_of(items())
    assert await anext(source) == 1
    waiting = asyncio.ensure_future(anext(source))
    await asyncio.sleep(0)
    assert not waiting.done()
    may_go.set()
    assert await waiting == 2


async def test_source_reads_only_so_far_ahead_and_nothing_after_it_was_closed() -> None:
    numbers = Numbers()
    source = source_of(numbers)
    for taken in range(1, 3 * AHEAD_MAX):
        assert await anext(source) == taken
        assert numbers.read <= taken + AHEAD_MAX
    source.close()
    for thread in threading.enumerate():
        if thread.name == "mesh-client-source":
            await asyncio.to_thread(thread.join, WAIT_S)
            assert not thread.is_alive()
    assert numbers.read <= 4 * AHEAD_MAX + 1


async def test_source_raises_what_the_iterator_raised_after_its_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("the source broke")

    source = source_of(items())
    assert await anext(source) == 1
    with pytest.raises(LookupError, match="the source broke"):
        await anext(source)


async def test_held_source_reads_no_further_than_what_was_given_back() -> None:
    numbers = Numbers()
    source = held_source(numbers, asyncio.get_running_loop(), 2)
    assert [await anext(source), await anext(source)] == [1, 2]
    third = asyncio.ensure_future(anext(source))
    done, _ = await asyncio.wait((third,), timeout=0.05)
    assert (done, numbers.read) == (set(), 2)
    source.give_back()
    assert await third == 3
    assert numbers.read == 3
    source.close()


async def test_held_source_has_a_length_when_its_items_have_one() -> None:
    loop = asyncio.get_running_loop()
    sized = held_source({1: "a", 2: "b"}, loop, 1)
    assert isinstance(sized, Sized)
    assert len(sized) == 2
    assert not isinstance(held_source(iter([1]), loop, 1), Sized)
