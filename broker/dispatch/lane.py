"""A lane: jobs of one (label set, level, fairness key, limit key) in the order of `order_us`, ties by job key.

The order is the time of acceptance or of the wished start, fixed once, so every return goes back to its place. Jobs
that come in order are linked one behind the other; those that belong further to the front stand in sorted blocks.
Either takes and loses a job anywhere without ever moving all others: no step grows with the length of a lane.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from broker.dispatch.model import Job, JobKey

if TYPE_CHECKING:
    from broker.dispatch.queue import Level

BLOCK_JOBS: Final = 256
"""A block is cut in two when it has twice as many."""

Entry = tuple[int, JobKey, Job]
_last_of = itemgetter(-1)


class Returned:
    """Jobs that came back, or were due later than others: sorted, in blocks of at most 512."""

    __slots__ = ("_blocks", "size")

    def __init__(self) -> None:
        self._blocks: list[list[Entry]] = []
        self.size = 0

    def __iter__(self) -> Iterator[Job]:
        for block in self._blocks:
            for _, _, job in block:
                yield job

    def first(self) -> Job:
        """The one that stands in front; there must be one."""
        return self._blocks[0][0][2]

    def add(self, job: Job) -> None:
        """Put the job in its place."""
        entry = (job.order_us, job.key, job)
        blocks = self._blocks
        self.size += 1
        if not blocks:
            blocks.append([entry])
            return
        number = min(self._block_of(job), len(blocks) - 1)
        block = blocks[number]
        insort(block, entry)
        if len(block) >= 2 * BLOCK_JOBS:
            blocks[number : number + 1] = (block[:BLOCK_JOBS], block[BLOCK_JOBS:])

    def drop(self, job: Job) -> None:
        """Take the job out, wherever it stands."""
        number = self._block_of(job)
        block = self._blocks[number]
        index = bisect_left(block, (job.order_us, job.key))
        assert block[index][2] is job, f"job {job.key} did not return here"
        del block[index]
        if not block:
            del self._blocks[number]
        self.size -= 1

    def _block_of(self, job: Job) -> int:
        """The first block that ends at the job or behind it."""
        return bisect_left(self._blocks, (job.order_us, job.key), key=_last_of)


class Lane:
    """Jobs of one label set, level, fairness key and limit key, in order."""

    __slots__ = (
        "fairness",
        "first",
        "in_level",
        "is_parked",
        "last",
        "level",
        "limit_key",
        "no",
        "returned",
        "size",
        "tag",
        "woken_by",
    )

    def __init__(self, no: int, level: "Level", fairness: str, limit_key: str) -> None:
        self.no = no
        self.level = level
        self.fairness = fairness
        self.limit_key = limit_key
        self.first: Job | None = None  # of those that came in order, each with the one behind it
        self.last: Job | None = None
        self.returned = Returned()
        self.size = 0
        self.tag = 0  # virtual start time of the head
        self.in_level = False
        self.is_parked = False  # something holds its head back: it is out of service until it is woken
        self.woken_by: str | None = None  # the limit that has room for its head

    def __iter__(self) -> Iterator[Job]:
        """All its jobs: those that came in order, then those that returned."""
        yield from self.in_order()
        yield from self.returned

    def in_order(self) -> Iterator[Job]:
        """Those that came in order."""
        job = self.first
        while job is not None:
            yield job
            job = job.behind

    def head(self) -> Job:
        """The first job; the lane must not be empty."""
        first = self.first
        if self.returned.size:
            returned = self.returned.first()
            if first is None or (returned.order_us, returned.key) < (first.order_us, first.key):
                return returned
        assert first is not None
        return first

    def add(self, job: Job) -> None:
        """Put the job in its place."""
        self.size += 1
        last = self.last
        if last is None:
            self.first = self.last = job
        elif job.order_us > last.order_us or (job.order_us == last.order_us and job.key > last.key):
            last.behind = self.last = job
            job.ahead = last
        else:
            job.has_returned = True
            self.returned.add(job)

    def drop(self, job: Job) -> None:
        """Take the job out, wherever it is."""
        self.size -= 1
        if job.has_returned:
            job.has_returned = False
            self.returned.drop(job)
            return
        ahead, behind = job.ahead, job.behind
        if ahead is None:
            self.first = behind
        else:
            ahead.behind = behind
        if behind is None:
            self.last = ahead
        else:
            behind.ahead = ahead
        job.ahead = job.behind = None
