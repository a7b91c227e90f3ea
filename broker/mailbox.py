"""What waits for the engine: one queue for each kind of event, bounded in number and in bytes.

The bytes are those of peers (payloads, results, checkpoints): a thousand small events are nothing, a thousand large
ones are the memory of the process. At a bound a submitter is refused and the reader of an agent waits; nothing is lost.
More than there can ever be fits while nothing else waits, so that one large frame is never stuck for good.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from broker.dispatch.messages import AgentConnected, AttemptFinished, AttemptProgressed, Event, JobSubmitted
from broker.dispatch.model import GroupNo
from broker.errors import MeshError
from broker.store.base import Body

E = TypeVar("E", bound=Event)


def bytes_of(event: Event) -> int:
    """How many bytes of a peer the event carries."""
    if type(event) is JobSubmitted:
        return event.payload_bytes
    if type(event) is AttemptFinished or type(event) is AttemptProgressed:
        body = event.body
        if body is None:
            return 0
        # The dispatcher carries bodies without knowing them, so the types are found again here.
        assert isinstance(body, Body | bytes)
        return len(body.content if isinstance(body, Body) else body)
    if type(event) is AgentConnected:
        return sum(map(bytes_of, event.outcomes))
    return 0


class Mailbox(Generic[E]):
    """One queue, first in, first out. Use from one event loop only; `on_full` hears its name when it is full."""

    def __init__(self, name: str, events_max: int, bytes_max: int, on_full: Callable[[str], None]) -> None:
        self.name = name
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._on_full = on_full
        self._queue: deque[tuple[GroupNo, E]] = deque()
        self._bytes = 0
        self._taken = 0
        self._marks: deque[tuple[int, Callable[[], None]]] = deque()  # called when so many were taken, ever
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._failure: MeshError | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def offer(self, group: GroupNo, events: Sequence[E]) -> bool:
        """Add all of them, or none if they do not fit."""
        self._check()
        size = sum(map(bytes_of, events))
        if len(self._queue) + len(events) > self._events_max or self._bytes + size > self._bytes_max:
            self._on_full(self.name)
            return False
        self._add(group, events, size)
        return True

    async def put(self, group: GroupNo, events: Sequence[E], on_taken: Callable[[], None] | None = None) -> None:
        """Add all of them, as soon as they fit; who came first gets room first. Raises what `fail` was given.

        `on_taken` is called once, when the last of them is taken (or nobody takes any more), unless this raises.
        """
        size = sum(map(bytes_of, events))
        async with self._turn:
            self._check()
            while self._queue and (
                len(self._queue) + len(events) > self._events_max or self._bytes + size > self._bytes_max
            ):
                self._on_full(self.name)
                self._freed.clear()
                await self._freed.wait()
                self._check()
            self._add(group, events, size)
            if on_taken is not None:
                self._marks.append((self._taken + len(self._queue), on_taken))

    def force(self, group: GroupNo, event: E) -> None:
        """Add one that must not wait."""
        self._add(group, (event,), bytes_of(event))

    def take(self, events_max: int, bytes_max: int) -> list[tuple[GroupNo, E]]:
        """Remove the oldest: so many at most, and no more bytes than that, but always one if there is one."""
        queue = self._queue
        count = min(events_max, len(queue))
        if self._bytes > bytes_max:
            count = self._count_within(count, bytes_max)
        taken = [queue.popleft() for _ in range(count)]
        # Most turns empty the queue: then nothing needs to be measured again.
        self._bytes = self._bytes - sum(bytes_of(event) for _, event in taken) if queue else 0
        self._taken += count
        self._tell_taken(self._taken)
        self._freed.set()
        return taken

    def fail(self, failure: MeshError) -> None:
        """Nobody takes any more: whoever waits, and whoever comes, gets this error."""
        self._failure = failure
        self._tell_taken(self._taken + len(self._queue))
        self._freed.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _tell_taken(self, until: int) -> None:
        while self._marks and self._marks[0][0] <= until:
            self._marks.popleft()[1]()

    def _add(self, group: GroupNo, events: Sequence[E], size: int) -> None:
        self._queue.extend((group, event) for event in events)
        self._bytes += size

    def _count_within(self, count: int, bytes_max: int) -> int:
        used = 0
        for index in range(count):
            used += bytes_of(self._queue[index][1])
            if used > bytes_max:
                return max(1, index)
        return count
