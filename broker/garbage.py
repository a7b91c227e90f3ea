"""When the broker looks for garbage: what it makes is gone at once, so almost never.

A collection of everything with a million waiting jobs stands still for about a second. Young objects are looked at
often and in small numbers, by themselves; the old ones only when that disturbs least: nothing has happened for a while,
or there is little to look through. What leaves cycles behind is the end of a stream, so it is not urgent, unless there
are many: a call that is refused leaves all that it sent, and whoever makes the young be looked at often makes litter.
"""

import asyncio
import gc
import time
from collections.abc import Callable
from typing import Final

YOUNG_OBJECTS: Final = 20_000
"""So many new objects make a collection of the youngest generation: few, so that it is short (about a millisecond), but
more than a batch under load has, so that what goes with its batch is never looked at."""
NEVER: Final = 1 << 30
CHECK_EVERY_S: Final = 5.0
"""Nothing happened for so long: the broker is idle."""
FEW_JOBS: Final = 10_000
"""With no more live jobs a full collection is short."""
BUSY_CHECKS: Final = 60
"""A broker that is never idle collects every so many checks, if its jobs are few."""
LITTER_COLLECTIONS: Final = 5
"""So many collections of the youngest generation since the last full one: with few jobs the next check collects."""
REST: Final = 200
"""After a collection there is none for so many times as long as it took: each stream of an agent is a hundred objects
and more, and with thousands of them everything stands still for tenths of a second."""
MANY_CHECKS: Final = 120
"""One with many jobs, in idle moments, after at least so many checks."""


def tune() -> None:
    """What was built so far lives as long as the process: leave it out of every collection from now on."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, NEVER, NEVER)


class Collector:
    """Collects old garbage. `activity()` changes whenever something happened, `live_jobs()` says how much there is.

    `young()` is how often the youngest generation was collected since the last full collection.
    """

    def __init__(
        self,
        activity: Callable[[], int],
        live_jobs: Callable[[], int],
        young: Callable[[], int] = lambda: gc.get_count()[1],
    ) -> None:
        self._activity = activity
        self._live_jobs = live_jobs
        self._young = young
        self._seen = activity()
        self._collected = self._seen
        self._checks = 0
        self._rests_until_s = 0.0

    async def run(self) -> None:
        """For as long as the broker serves."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            if self.is_due():
                self.collect()

    def collect(self) -> None:
        """Collect everything, now."""
        began_s = time.monotonic()
        gc.collect()
        ended_s = time.monotonic()
        self._rests_until_s = ended_s + REST * (ended_s - began_s)

    def is_due(self) -> bool:
        """Whether this is a moment to collect; ask every `CHECK_EVERY_S`."""
        now, before, self._seen = self._activity(), self._seen, self._activity()
        self._checks += 1
        has_few = self._live_jobs() <= FEW_JOBS
        is_littered = has_few and self._young() >= LITTER_COLLECTIONS
        wait = 1 if has_few and now == before else BUSY_CHECKS if has_few else MANY_CHECKS
        is_early = now == self._collected or self._checks < wait or (now != before and not has_few)
        if (is_early and not is_littered) or time.monotonic() < self._rests_until_s:
            return False
        self._collected, self._checks = now, 0
        return True
