"""Who must be woken when: a heap for what is near, buckets of a minute for what is far.

An owner (a job: its key; an agent: minus its number) has at most one armed deadline and remembers it itself, so arming
and disarming a far one is O(1) and leaves nothing behind. A near entry that is no longer armed stays in the heap until
it surfaces; when half of the heap is stale, a second one takes over what is armed. Buckets move to the heap, and the
old heap to the new one, in slices, and a bucket is many small sets (a large one copies itself when it grows): no step
grows with their size.
"""

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from typing import Final

from broker.dispatch.model import SECOND_US

BUCKET_US: Final = 60 * SECOND_US
MOVES_STEP_MAX: Final = 4_096
STALE_CALL_MAX: Final = 4_096
"""Stale entries that one call throws away; the next call goes on."""
RANGE_BITS: Final = 10
"""Owners whose numbers differ in these bits only share a set of a bucket."""
SHRUNK_AT: Final = frozenset({256, 64, 16})
"""At these sizes a set that loses its owners is made anew: it would keep the room of those that are gone."""
SORTED_CALL_MAX: Final = 64
"""Entries of the old heap that one disarming looks at."""


class Deadlines:
    """Armed deadlines of one group. `is_armed(owner, due_us)` asks the owner whether this entry still counts."""

    __slots__ = ("_buckets", "_heap", "_horizon", "_is_armed", "_old", "_stale")

    def __init__(self, is_armed: Callable[[int, int], bool]) -> None:
        self._is_armed = is_armed
        self._heap: list[tuple[int, int]] = []
        self._old: list[tuple[int, int]] = []  # a heap too: half of it was stale, its rest goes over to the other
        self._buckets: dict[int, dict[int, set[int]]] = {}  # by minute, by range of owners
        self._horizon = 0  # everything due in an earlier minute than this one is in the heap
        self._stale = 0

    def __len__(self) -> int:
        """Entries held, stale ones included."""
        return len(self._heap) + len(self._old) + sum(1 for _ in self._far())

    def _far(self) -> Iterator[tuple[int, int]]:
        """(minute, owner) of all entries in buckets."""
        for minute, bucket in self._buckets.items():
            for owners in bucket.values():
                for owner in owners:
                    yield minute, owner

    def arm(self, owner: int, due_us: int) -> None:
        """Wake `owner` at `due_us`. The owner must have no armed deadline."""
        minute = due_us // BUCKET_US
        if minute < self._horizon:
            heappush(self._heap, (due_us, owner))
            return
        bucket = self._buckets.get(minute)
        if bucket is None:
            bucket = self._buckets[minute] = {}
        owners = bucket.get(owner >> RANGE_BITS)
        if owners is None:
            owners = bucket[owner >> RANGE_BITS] = set()
        owners.add(owner)

    def disarm(self, owner: int, due_us: int) -> None:
        """Forget the deadline that was armed as `due_us`; the owner's memory of it must be cleared already."""
        bucket = self._buckets.get(due_us // BUCKET_US)
        owners = None if bucket is None else bucket.get(owner >> RANGE_BITS)
        if bucket is not None and owners is not None and owner in owners:
            owners.remove(owner)
            if not owners:
                del bucket[owner >> RANGE_BITS]
            elif len(owners) in SHRUNK_AT:
                bucket[owner >> RANGE_BITS] = set(owners)
            if not bucket:
                del self._buckets[due_us // BUCKET_US]
            return
        self._stale += 1
        if self._old:
            self._sort_out()
        elif self._stale > 64 and self._stale * 2 > len(self._heap):
            self._old, self._heap = self._heap, []

    def _sort_out(self) -> None:
        """Take over some of the old heap, from its end: without its last leaf a heap is still a heap."""
        for _ in range(min(SORTED_CALL_MAX, len(self._old))):
            due_us, owner = self._old.pop()
            if self._is_armed(owner, due_us):
                heappush(self._heap, (due_us, owner))
            else:
                self._stale -= 1

    def _first(self) -> list[tuple[int, int]]:
        """The heap that holds the earliest entry."""
        old, heap = self._old, self._heap
        return old if old and (not heap or old[0] < heap[0]) else heap

    def entries(self) -> set[tuple[int, int]]:
        """(minute, owner) of all entries, stale ones included: for invariants."""
        near = {(due_us // BUCKET_US, owner) for due_us, owner in (*self._heap, *self._old)}
        return near | set(self._far())

    def pop_due(self, now_us: int) -> int | None:
        """The owner whose deadline has come, earliest first, or None. Its entry is gone. Call `advance` before."""
        for _ in range(STALE_CALL_MAX):
            heap = self._first()
            if not heap or heap[0][0] > now_us:
                break
            due_us, owner = heappop(heap)
            if self._is_armed(owner, due_us):
                return owner
            self._stale -= 1
        return None

    def next_us(self, now_us: int) -> int | None:
        """When to call `pop_due`, at the latest; `now_us` if a bucket is still being moved. None: nothing is armed."""
        heap = self._first() if self._old else self._heap
        left = STALE_CALL_MAX
        while heap and left and not self._is_armed(heap[0][1], heap[0][0]):
            heappop(heap)
            self._stale -= 1
            left -= 1
            heap = self._first()
        first_us = heap[0][0] if heap else None
        if self._buckets:
            opens_us = max(now_us, (min(self._buckets) - 1) * BUCKET_US)
            if first_us is None or opens_us < first_us:
                return opens_us
        return first_us

    def advance(self, now_us: int, due_of: Callable[[int], int]) -> None:
        """Move what is due before the end of the next minute into the heap, a slice at a time.

        `due_of(owner)` gives the armed time of an owner.
        """
        last = now_us // BUCKET_US + 1
        self._horizon = max(self._horizon, last)
        budget = MOVES_STEP_MAX
        for minute in sorted(self._buckets):
            if minute > last:
                return
            bucket = self._buckets[minute]
            while bucket and budget:
                number, owners = bucket.popitem()
                while owners and budget:
                    owner = owners.pop()
                    heappush(self._heap, (due_of(owner), owner))
                    budget -= 1
                if owners:
                    bucket[number] = owners
            if bucket:
                return
            del self._buckets[minute]
            self._horizon = max(self._horizon, minute + 1)
