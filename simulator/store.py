"""How long commits take: a law, a slow tail, and stalls in which nothing is committed at all."""

from collections.abc import Callable

from simulator.scenario import Commits
from simulator.streams import SECOND_US, Stream, Streams


class SimStore:
    """The time model of the store; what is stored is `broker.dispatch.stored.Stored`'s."""

    def __init__(self, commits: Commits, streams: Streams) -> None:
        self._times = streams.times_us(commits.time, Stream.COMMITS, 1)
        self._luck = streams.uniform(Stream.COMMITS, 2)
        self._tail = commits.tail
        self._tail_us = round(commits.tail_time * SECOND_US)
        self.stalled_until_us = 0
        self.commits = 0
        self._when_failed: Callable[[], object] | None = None

    def commit_us(self, now_us: int) -> int:
        """How long a commit takes that begins now."""
        self.commits += 1
        begins_us = max(now_us, self.stalled_until_us)
        if begins_us > now_us and self._when_failed is not None:
            then, self._when_failed = self._when_failed, None
            then()
        time_us = next(self._times)
        if self._tail and next(self._luck) < self._tail:
            time_us += self._tail_us
        return begins_us - now_us + time_us

    def stall(self, until_us: int) -> None:
        """Nothing is committed before then; a commit that is under way is not held up."""
        self.stalled_until_us = max(self.stalled_until_us, until_us)

    def fail(self, until_us: int, then: Callable[[], object]) -> None:
        """Nothing is committed before then, and the first commit that is tried is told: `then` is called once."""
        self.stall(until_us)
        self._when_failed = then
