"""The live jobs of a group by key, in the order of acceptance: a dict that never grows all at once.

A dict of a million entries copies itself when it is full, and no step may wait for that. Keys are numbered in order, so
jobs that came together lie together, in a small dict for each range of keys.
"""

from collections.abc import Iterator
from itertools import islice
from typing import Final

from broker.dispatch.model import Job, JobKey

RANGE_BITS: Final = 10
"""Keys of one small dict: 1,024."""
SHRUNK_AT: Final = frozenset({256, 64, 16})
"""At these sizes a dict that loses its jobs is made anew: it would keep the room of those that are gone."""


class JobTable:
    """Jobs by key. What `dict` does under the same names, as far as it is needed here."""

    __slots__ = ("_ranges", "_size")

    def __init__(self) -> None:
        self._ranges: dict[int, dict[JobKey, Job]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def __contains__(self, key: JobKey) -> bool:
        return key in self._ranges.get(key >> RANGE_BITS, ())

    def __getitem__(self, key: JobKey) -> Job:
        """Raises KeyError."""
        return self._ranges[key >> RANGE_BITS][key]

    def get(self, key: JobKey) -> Job | None:
        """The job, if it lives."""
        found = self._ranges.get(key >> RANGE_BITS)
        return None if found is None else found.get(key)

    def add(self, job: Job) -> None:
        """Take in a job that is not here yet."""
        key = job.key
        found = self._ranges.get(key >> RANGE_BITS)
        if found is None:
            found = self._ranges[key >> RANGE_BITS] = {}
        found[key] = job
        self._size += 1

    def __delitem__(self, key: JobKey) -> None:
        """Raises KeyError."""
        number = key >> RANGE_BITS
        found = self._ranges[number]
        del found[key]
        if not found:
            del self._ranges[number]
        elif len(found) in SHRUNK_AT:
            self._ranges[number] = dict(found)
        self._size -= 1

    def __iter__(self) -> Iterator[JobKey]:
        for number in sorted(self._ranges):
            yield from self._ranges[number]

    def keys(self) -> Iterator[JobKey]:
        """The keys, in order."""
        return iter(self)

    def values(self) -> Iterator[Job]:
        """The jobs, the oldest acceptance first."""
        for number in sorted(self._ranges):
            yield from self._ranges[number].values()

    def items(self) -> Iterator[tuple[JobKey, Job]]:
        """Both, in the same order."""
        for number in sorted(self._ranges):
            yield from self._ranges[number].items()

    def after(self, key: int, most: int) -> list[JobKey]:
        """Up to `most` keys greater than `key`, in order; looks at one range more than it gives keys of."""
        return list(islice(self._behind(key), most))

    def _behind(self, key: int) -> Iterator[JobKey]:
        first = key >> RANGE_BITS
        for number in sorted(self._ranges):
            if number >= first:
                for one in self._ranges[number]:
                    if one > key:
                        yield one
