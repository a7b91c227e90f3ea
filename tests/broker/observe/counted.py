"""A group on its bench whose jobs are counted, as the engine has them counted: each batch after its commit."""

from __future__ import annotations

from typing import Any, Self

from broker.dispatch.messages import Event
from broker.dispatch.model import JobState
from broker.observe.jobs import JobCounts
from tests.broker.dispatch.bench import GroupBench


class CountedBench(GroupBench):
    """`counts` begin anew, from the books, with each life of the broker."""

    def __init__(self, seed: int = 1, **policy: Any) -> None:
        self.counts = JobCounts(None)
        super().__init__(seed, **policy)

    def batch(self, *events: Event) -> Self:
        super().batch(*events)
        self.counts.add(self.last.notices, self.dispatcher.ledger)
        assert self.counts.waiting == self.waiting()
        return self

    def restart(self) -> Self:
        super().restart()
        self.counts = JobCounts(self.dispatcher.ledger)
        return self

    def waiting(self) -> dict[JobState, int]:
        """What the counts of waiting jobs must be, by the books."""
        states = [job.state for job in self.dispatcher.ledger.jobs.values()]
        return {state: states.count(state) for state in (JobState.SCHEDULED, JobState.HELD)}
