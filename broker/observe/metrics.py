"""The metrics of a broker: collectors made from `broker.series`, fed by the engine after each commit.

Labels are bounded: groups, states, reasons of the dispatcher; never a job or a text from a peer.
"""

from collections import Counter as Tally
from collections.abc import Callable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from broker import series
from broker.dispatch.messages import Notice, Transition
from broker.dispatch.model import FINAL_STATES, GroupNo, JobState
from broker.series import Series, SeriesType

Collector = Counter | Gauge | Histogram
_IN_HAND: Final = frozenset({JobState.ASSIGNED, JobState.RUNNING})


class Metrics:
    """An `Observer` of the engine that counts. `label_of` names a group as metrics do."""

    def __init__(self, label_of: Callable[[GroupNo], str], version: str) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library leaves it untyped
        self.registry = CollectorRegistry()
        self._label_of = label_of
        self._collectors = {one.name: _collector(one, self.registry) for one in series.ALL}
        self._gauge(series.BUILD_INFO).labels(version).set(1)

    def on_batch(self, notices: Sequence[Notice], commit_seq: int) -> None:
        """Count what happened to jobs."""
        moves = Tally(
            (notice.group, notice.from_state, notice.to_state, notice.reason)
            for notice in notices
            if type(notice) is Transition
        )
        for (group, before, after, reason), count in moves.items():
            self._count_move(self._label_of(group), before, after, reason, count)

    def on_commit(self, seconds: float, events: int) -> None:
        """Count one commit."""
        self._counter(series.COMMITS).inc()
        self._histogram(series.COMMIT_SECONDS).observe(seconds)
        self._histogram(series.COMMIT_EVENTS).observe(events)

    def on_full(self, queue: str) -> None:
        """Count a full queue of the mailbox."""
        self._counter(series.MAILBOX_FULL).labels(queue).inc()

    def count_sessions(self, count: Callable[[], int]) -> None:
        """Where the number of live streams is asked for."""
        self._gauge(series.SESSIONS).set_function(count)

    def acceptor_restarted(self, listener: str) -> None:
        """Count a listener that had to be opened again."""
        self._counter(series.ACCEPTOR_RESTARTS).labels(listener).inc()

    def page(self) -> bytes:
        """All of them, as Prometheus reads them. May be called from any thread."""
        return generate_latest(self.registry)

    def _count_move(self, group: str, before: JobState | None, after: JobState, reason: str, count: int) -> None:
        if before is None:
            self._counter(series.JOBS_SUBMITTED).labels(group).inc(count)
        if after is JobState.ASSIGNED:
            self._counter(series.ATTEMPTS_ASSIGNED).labels(group).inc(count)
        elif after in FINAL_STATES:
            self._counter(series.JOBS_FINISHED).labels(group, after).inc(count)
        elif before in _IN_HAND and after is not JobState.RUNNING:
            self._counter(series.JOBS_RETURNED).labels(group, reason).inc(count)

    def _counter(self, one: Series) -> Counter:
        found = self._collectors[one.name]
        assert isinstance(found, Counter)
        return found

    def _gauge(self, one: Series) -> Gauge:
        found = self._collectors[one.name]
        assert isinstance(found, Gauge)
        return found

    def _histogram(self, one: Series) -> Histogram:
        found = self._collectors[one.name]
        assert isinstance(found, Histogram)
        return found


def _collector(one: Series, registry: CollectorRegistry) -> Collector:
    if one.type is SeriesType.COUNTER:
        return Counter(one.name, one.help, one.labels, registry=registry)
    if one.type is SeriesType.GAUGE:
        return Gauge(one.name, one.help, one.labels, registry=registry)
    return Histogram(one.name, one.help, one.labels, registry=registry, buckets=one.buckets)
