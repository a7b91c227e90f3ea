"""What waits for the engine: one queue for each kind of event, bounded in number and in bytes.

The bytes are those of peers (payloads, results, checkpoints): a thousand small events are nothing, a thousand large
ones are the memory of the process. At a bound a submitter is refused and the reader of an agent waits; nothing is lost.
More than there can ever be fits while nothing else waits, so that one large frame is never stuck for good.

Each source (a connection, a session) has a queue of its own, first in, first out, and they are emptied in turns, a few
events of each: whoever says little never waits for all that somebody else has said before (promise P10).
"""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

from broker.dispatch.messages import AgentConnected, AttemptFinished, AttemptProgressed, Event, JobSubmitted
from broker.dispatch.model import GroupNo
from broker.errors import MeshError
from broker.store.base import Body

E = TypeVar("E", bound=Event)

TURN: Final = 32
"""Events of one source, until it is the next one's turn."""
LITTLE: Final = 64
"""Whoever has no more waiting has little to say."""


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


class _Queue(Generic[E]):
    """What waits of one source, and whom to tell when so many events of it were taken, ever."""

    __slots__ = ("events", "marks", "taken")

    def __init__(self) -> None:
        self.events: deque[tuple[GroupNo, E]] = deque()
        self.marks: deque[tuple[int, Callable[[], None]]] = deque()
        self.taken = 0

    def take(self, count: int) -> list[tuple[GroupNo, E]]:
        """Remove the oldest; tells those whose last event was among them."""
        taken = [self.events.popleft() for _ in range(count)]
        self.taken += count
        while self.marks and self.marks[0][0] <= self.taken:
            self.marks.popleft()[1]()
        return taken


class Mailbox(Generic[E]):
    """Queues of sources, emptied in turns. Use from one event loop only; `on_full` hears its name when it is full."""

    def __init__(self, name: str, events_max: int, bytes_max: int, on_full: Callable[[str], None]) -> None:
        self.name = name
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._on_full = on_full
        self._queues: dict[Hashable, _Queue[E]] = {}  # only those that hold something; whose turn it is comes first
        self._events = 0
        self._bytes = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Event()
        self._failure: MeshError | None = None

    def __len__(self) -> int:
        return self._events

    def is_mixed(self, says_little: Callable[[Hashable], bool]) -> bool:
        """Whether more than one source waits, one of them with little, who is also known to say little."""
        return len(self._queues) > 1 and any(
            len(queue.events) <= LITTLE and says_little(source) for source, queue in self._queues.items()
        )

    def groups(self) -> frozenset[GroupNo]:
        """For which groups the first events of the sources are."""
        return frozenset(queue.events[0][0] for queue in self._queues.values())

    def offer(self, group: GroupNo, events: Sequence[E], source: Hashable = None) -> bool:
        """Add all of them, or none if they do not fit."""
        self._check()
        size = sum(map(bytes_of, events))
        if self._events + len(events) > self._events_max or self._bytes + size > self._bytes_max:
            self._on_full(self.name)
            return False
        self._add(group, events, size, source)
        return True

    async def put(
        self,
        group: GroupNo,
        events: Sequence[E],
        on_taken: Callable[[], None] | None = None,
        source: Hashable = None,
    ) -> None:
        """Add all of them, as soon as they fit; who came first gets room first. Raises what `fail` was given.

        `on_taken` is called once, when the last of them is taken (or nobody takes any more), unless this raises.
        """
        size = sum(map(bytes_of, events))
        async with self._turn:
            self._check()
            while self._events and (
                self._events + len(events) > self._events_max or self._bytes + size > self._bytes_max
            ):
                self._on_full(self.name)
                self._freed.clear()
                await self._freed.wait()
                self._check()
            queue = self._add(group, events, size, source)
            if on_taken is not None:
                queue.marks.append((queue.taken + len(queue.events), on_taken))

    def force(self, group: GroupNo, event: E) -> None:
        """Add one that must not wait."""
        self._add(group, (event,), bytes_of(event), None)

    def take(self, events_max: int, bytes_max: int, share: int = 0) -> list[tuple[GroupNo, E]]:
        """Remove the oldest of each source in turns: so many at most, of one source no more than `share` (0: all).

        And no more bytes than that, but always one event if there is one.
        """
        taken: list[tuple[GroupNo, E]] = []
        left = dict.fromkeys(self._queues, share or events_max)
        is_large, room = self._bytes > bytes_max, bytes_max
        while left and len(taken) < events_max:
            source, may = next(iter(left.items()))
            del left[source]
            queue = self._queues.pop(source)
            count = wanted = min(may, len(queue.events), events_max - len(taken), TURN if left else may)
            if is_large:
                count = self._count_within(queue, wanted, room, bool(taken))
                room -= sum(bytes_of(event) for _, event in islice(queue.events, count))
            if not count:  # its next event needs more than is left: it begins the next batch, or it might wait for ever
                self._queues = {source: queue, **self._queues}
                break
            taken += queue.take(count)
            if queue.events:
                self._queues[source] = queue  # behind the others: its next turn comes after theirs
                if may > count:
                    left[source] = may - count
            if count < wanted:
                break
        self._events -= len(taken)
        # Most turns empty the mailbox: then nothing needs to be measured again.
        self._bytes = self._bytes - sum(bytes_of(event) for _, event in taken) if self._events else 0
        self._freed.set()
        return taken

    @staticmethod
    def _count_within(queue: _Queue[E], count: int, bytes_max: int, is_more: bool) -> int:
        """How many of the next `count` events fit; one always does, unless it is more of what was taken already."""
        used = 0
        for index, (_, event) in enumerate(islice(queue.events, count)):
            used += bytes_of(event)
            if used > bytes_max:
                return index if is_more else max(1, index)
        return count

    def fail(self, failure: MeshError) -> None:
        """Nobody takes any more: whoever waits, and whoever comes, gets this error."""
        self._failure = failure
        for queue in self._queues.values():
            for _, tell in queue.marks:
                tell()
            queue.marks.clear()
        self._freed.set()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _add(self, group: GroupNo, events: Sequence[E], size: int, source: Hashable) -> _Queue[E]:
        queue = self._queues.get(source)
        if queue is None:
            queue = self._queues[source] = _Queue()
        queue.events.extend((group, event) for event in events)
        self._events += len(events)
        self._bytes += size
        return queue
