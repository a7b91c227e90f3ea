from __future__ import annotations

import asyncio

import pytest

from broker.control.turn import Turn
from broker.errors import FullError

WAIT_S = 20.0


class Change:
    """One that takes until it is let go."""

    def __init__(self) -> None:
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.is_made = False

    async def __call__(self) -> str:
        self.has_begun.set()
        await self.may_end.wait()
        self.is_made = True
        return "made"


async def left(caller: asyncio.Task[str]) -> None:
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def queued() -> None:
    """Whoever was started stands in the line."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_change_that_has_begun_is_made_and_waited_for_when_its_caller_leaves() -> None:
    turn, first, second = Turn(5), Change(), Change()
    caller = asyncio.create_task(turn.carry_out(first))
    await asyncio.wait_for(first.has_begun.wait(), WAIT_S)
    await left(caller)
    second.may_end.set()
    next_caller = asyncio.create_task(turn.carry_out(second))
    await queued()
    assert not second.has_begun.is_set()
    first.may_end.set()
    assert await asyncio.wait_for(next_caller, WAIT_S) == "made"
    assert first.is_made


async def test_change_that_only_waits_is_not_made_when_its_caller_leaves() -> None:
    turn, first, second, third = Turn(5), Change(), Change(), Change()
    callers = [asyncio.create_task(turn.carry_out(one)) for one in (first, second, third)]
    await asyncio.wait_for(first.has_begun.wait(), WAIT_S)
    await left(callers[1])
    for change in (first, second, third):
        change.may_end.set()
    assert await asyncio.wait_for(asyncio.gather(*callers[::2]), WAIT_S) == ["made", "made"]
    assert not second.has_begun.is_set()


async def test_change_beyond_those_that_may_wait_is_refused() -> None:
    turn, first, second = Turn(1), Change(), Change()
    callers = [asyncio.create_task(turn.carry_out(one)) for one in (first, second)]
    await asyncio.wait_for(first.has_begun.wait(), WAIT_S)
    with pytest.raises(FullError) as caught:
        await turn.carry_out(Change())
    assert caught.value.reason == "CHANGES_FULL"
    first.may_end.set()
    second.may_end.set()
    assert await asyncio.wait_for(asyncio.gather(*callers), WAIT_S) == ["made", "made"]
    third = Change()
    third.may_end.set()
    assert await turn.carry_out(third) == "made"


async def test_change_that_fails_leaves_the_turn_to_the_next() -> None:
    turn, second = Turn(1), Change()

    async def fail() -> str:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await turn.carry_out(fail)
    second.may_end.set()
    assert await turn.carry_out(second) == "made"
