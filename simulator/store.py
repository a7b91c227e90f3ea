"""How long commits take: a law, a slow tail, and stalls in which nothing is committed at all."""

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

    def commit_us(self, now_us: int) -> int:
        """How long a commit takes that begins now."""
        self.commits += 1
        begins_us = max(now_us, self.stalled_until_us)
        time_us = next(self._times)
        if self._tail and next(self._luck) < self._tail:
            time_us += self._tail_us
        return begins_us - now_us + time_us

    def stall(self, until_us: int) -> None:
        """Nothing is committed before then; a commit that is under way is not held up."""
        self.stalled_until_us = max(self.stalled_until_us, until_us)
