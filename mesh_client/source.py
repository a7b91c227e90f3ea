"""What a thread reads from an iterator that may block, for a loop that may not."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sized
from contextlib import suppress
from typing import Final, Generic, TypeVar

ItemT = TypeVar("ItemT")

AHEAD_MAX: Final = 64
"""Items that are read before the loop asks for them: enough that a flood costs no switch of threads an item."""


class Source(AsyncIterator[ItemT], Generic[ItemT]):
    """The items of an iterable, read in a thread that ends with it, or after `close` with its next item.

    At most `ahead` items are read that the loop has not taken; with `is_held`, that nobody has given back.
    """

    def __init__(
        self,
        items: Iterable[ItemT],
        loop: asyncio.AbstractEventLoop,
        *,
        ahead: int = AHEAD_MAX,
        is_held: bool = False,
    ) -> None:
        self._items = items
        self._loop = loop
        self._read: deque[ItemT] = deque()
        # The first item needs no permit: nothing is read before it is asked for.
        self._room = threading.Semaphore(max(ahead, 1) - 1)
        self._is_held = is_held
        self._news = asyncio.Event()
        self._failure: Exception | None = None
        self._is_ended = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="mesh-client-source", daemon=True)
        self._is_started = False

    def __aiter__(self) -> "Source[ItemT]":
        return self

    async def __anext__(self) -> ItemT:
        if not self._is_started:
            self._is_started = True
            self._thread.start()
        while True:
            self._news.clear()
            is_ended = self._is_ended
            if self._read:
                if not self._is_held:
                    self._room.release()
                return self._read.popleft()
            if is_ended:
                if self._failure is not None:
                    raise self._failure
                raise StopAsyncIteration
            await self._news.wait()

    def give_back(self) -> None:
        """One item of a source that `is_held` is done with: another may be read. From any thread."""
        self._room.release()

    def close(self) -> None:
        """Read no more."""
        self._is_closed = True
        self._room.release()

    def _run(self) -> None:
        try:
            for item in self._items:
                self._read.append(item)
                self._tell()
                self._room.acquire()
                if self._is_closed:
                    break
        except Exception as error:  # noqa: BLE001 - the loop gets it
            self._failure = error
        finally:
            self._is_ended = True
            self._tell()

    def _tell(self) -> None:
        # A loop that is closed asks for nothing.
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._news.set)


class SizedSource(Source[ItemT]):
    """A source that knows how many items there are."""

    def __len__(self) -> int:
        assert isinstance(self._items, Sized)
        return len(self._items)


def held_source(items: Iterable[ItemT], loop: asyncio.AbstractEventLoop, ahead: int) -> Source[ItemT]:
    """A source whose items are given back by hand; it has a length if `items` has one."""
    kind = SizedSource[ItemT] if isinstance(items, Sized) else Source[ItemT]
    return kind(items, loop, ahead=ahead, is_held=True)
