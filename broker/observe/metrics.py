"""The metrics of a broker: what the engine tells and what the dispatchers' books say, as the series of `broker.series`.

Everything here is written and read on the event loop: `snapshot` takes the figures there, and only they go to the
threads that answer `/metrics` (`broker.observe.page`). Labels are bounded: groups, states, reasons
of the dispatcher, agents of groups that have few; never a job, never text from a peer.
"""

import importlib.metadata
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby
from operator import attrgetter
from typing import Final, NamedTuple, Protocol

from broker import series
from broker.clock import EngineClock
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import Notice
from broker.dispatch.model import GroupNo, JobState
from broker.observe.distribution import Distribution
from broker.observe.evenness import WINDOW_S
from broker.observe.fleet import Fleet, StatusOf, fleet_of
from broker.observe.jobs import JobCounts
from broker.observe.recording import Recording
from broker.observe.traffic import Traffic
from broker.series import Series
from broker.store.retention import Retention

Labels = tuple[str, ...]
QUEUES: Final = ("control", "reports", "submissions")
LISTENERS: Final = ("api", "mesh")
_group_of = attrgetter("group")


class Buckets(NamedTuple):
    """A histogram as it is told: (upper bound, values up to it), and the sum of all values."""

    counts: Sequence[tuple[str, float]]
    total: float


class Sample(NamedTuple):
    """One figure. `labels` are values in the order of the series."""

    series: Series
    labels: Labels
    value: float | Buckets


class Names(Protocol):
    """How groups are called."""

    def group_label(self, group_no: GroupNo) -> str:
        """`organisation/group`."""


class Books(Protocol):
    """Where the present state is read: the engine."""

    @property
    def is_stalled(self) -> bool:
        """Whether the store refuses commits."""

    def dispatchers(self) -> Iterable[Dispatcher]:
        """All that this broker drives."""

    def dispatcher_of(self, group: GroupNo) -> Dispatcher | None:
        """One of them."""

    def waiting(self) -> Mapping[str, int]:
        """Events in each queue of the mailbox."""

    @property
    def clock(self) -> EngineClock:
        """Engine time."""


class Metrics:
    """An `Observer` of the engine that counts. Use from the engine's event loop only.

    `status_of` is the one word for an agent; `statuses` are all of them. Groups with more than `agents_max` agents
    have no series of single agents.
    """

    def __init__(
        self,
        books: Books,
        names: Names,
        status_of: StatusOf,
        statuses: Iterable[StrEnum],
        agents_max: int,
    ) -> None:
        self._books = books
        self._names = names
        self._status_of = status_of
        self._statuses = tuple(statuses)
        self._agents_max = agents_max
        self._jobs: dict[GroupNo, JobCounts] = {}
        self._traffic: Mapping[GroupNo, Traffic] = {}
        self._refused: Mapping[tuple[GroupNo, str], int] = {}
        self._sessions: Callable[[], int] = int
        self._retention: Retention | None = None
        self._full = Counter(dict.fromkeys(QUEUES, 0))
        self._restarts = Counter(dict.fromkeys(LISTENERS, 0))
        self._commits = 0
        self._commit_seconds = Distribution(series.COMMIT_SECONDS)
        self._commit_rows = Distribution(series.COMMIT_ROWS)
        self._commit_events = Distribution(series.COMMIT_EVENTS)
        self._lag = Distribution(series.LOOP_LAG_SECONDS)
        self._window_ends_s = time.monotonic() + WINDOW_S
        self._journal: Recording | None = None
        self.version = importlib.metadata.version("jobmesh")

    # --- what it hears ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Look at what a recovery has brought back. Before the first batch."""
        for dispatcher in self._books.dispatchers():
            self._jobs[dispatcher.ledger.group] = JobCounts(dispatcher.ledger)

    def on_batch(self, notices: Sequence[Notice], commit_seq: int) -> None:
        """Count what happened to jobs. The notices of a group follow one another."""
        if not notices:
            return
        if notices[0].group == notices[-1].group:
            self._add(notices[0].group, notices)
        else:
            for group, of_group in groupby(notices, key=_group_of):
                self._add(group, list(of_group))

    def _add(self, group: GroupNo, notices: Sequence[Notice]) -> None:
        counts = self._jobs.get(group)
        if counts is None:
            counts = self._jobs[group] = JobCounts(None)  # a new group: there was nothing before
        dispatcher = self._books.dispatcher_of(group)
        counts.add(notices, None if dispatcher is None else dispatcher.ledger)

    def on_commit(self, seconds: float, events: int, rows: int) -> None:
        """Count one commit."""
        self._commits += 1
        self._commit_seconds.add(seconds)
        self._commit_events.add(events)
        self._commit_rows.add(rows)

    def on_full(self, queue: str) -> None:
        """Count a full queue of the mailbox."""
        self._full[queue] += 1

    def on_lag(self, seconds: float) -> None:
        """A turn of the event loop came so late. Told several times a second, so windows turn here too."""
        self._lag.add(seconds)
        if time.monotonic() >= self._window_ends_s:
            self._window_ends_s = time.monotonic() + WINDOW_S
            self._turn()

    def _turn(self) -> None:
        """Begin the next window, and forget groups and agents that are gone."""
        known = {one.ledger.group: one.ledger for one in self._books.dispatchers() if not one.ledger.is_over}
        self._jobs = {group: counts for group, counts in self._jobs.items() if group in known}
        for group, counts in self._jobs.items():
            counts.turn(known[group].agents.keys())

    def acceptor_restarted(self, listener: str) -> None:
        """Count a listener that had to be opened again."""
        self._restarts[listener] += 1

    def read_streams(self, sessions: Callable[[], int], traffic: Mapping[GroupNo, Traffic]) -> None:
        """Where live streams are counted, and what passes on them."""
        self._sessions = sessions
        self._traffic = traffic

    def read_refusals(self, refused: Mapping[tuple[GroupNo, str], int]) -> None:
        """Where refused jobs are counted, by group (0: not known) and reason."""
        self._refused = refused

    def read_retention(self, retention: Retention) -> None:
        """Who removes what is past its time."""
        self._retention = retention

    def read_journal(self, journal: Recording) -> None:
        """Who writes down what the engine does."""
        self._journal = journal

    # --- what it says -----------------------------------------------------------------------------------------------

    def snapshot(self) -> list[Sample]:
        """All figures as they are now. On the event loop; costs no time a job."""
        began_s = time.perf_counter()
        samples = [*self._of_broker(), *self._of_history(), *self._of_journal()]
        for dispatcher in self._books.dispatchers():
            if not dispatcher.ledger.is_over:
                samples += self._of_group(dispatcher)
        samples.append(Sample(series.SNAPSHOT_SECONDS, (), time.perf_counter() - began_s))
        return samples

    def _of_broker(self) -> Iterator[Sample]:
        yield Sample(series.BUILD_INFO, (self.version,), 1)
        yield Sample(series.SESSIONS, (), self._sessions())
        yield Sample(series.STORE_STALLED, (), int(self._books.is_stalled))
        yield Sample(series.COMMITS, (), self._commits)
        yield from _each(series.MAILBOX_EVENTS, (), self._books.waiting().items())
        yield from _each(series.MAILBOX_FULL, (), self._full.items())
        yield from _each(series.ACCEPTOR_RESTARTS, (), self._restarts.items())
        for (group, reason), count in self._refused.items():
            dispatcher = self._books.dispatcher_of(group)
            if group and (dispatcher is None or dispatcher.ledger.is_over):
                continue
            label = self._names.group_label(group) if group else ""
            yield Sample(series.SUBMISSIONS_REFUSED, (label, reason), count)
        yield _buckets(series.COMMIT_SECONDS, (), self._commit_seconds)
        yield _buckets(series.COMMIT_ROWS, (), self._commit_rows)
        yield _buckets(series.COMMIT_EVENTS, (), self._commit_events)
        yield _buckets(series.LOOP_LAG_SECONDS, (), self._lag)

    def _of_history(self) -> Iterator[Sample]:
        retention = self._retention
        if retention is not None:
            removed = (("jobs", retention.jobs_total), ("keys", retention.keys_total), ("names", retention.names_total))
            yield from _each(series.HISTORY_REMOVED, (), removed)
            if retention.last is not None:
                yield Sample(series.HISTORY_SLICE_SECONDS, (), retention.last.slice_s_max)
                yield Sample(series.STORE_FREE_BYTES, (), retention.last.file.free_bytes)

    def _of_journal(self) -> Iterator[Sample]:
        journal = self._journal
        yield Sample(series.JOURNAL_RECORDING, (), 0 if journal is None else int(journal.is_recording))
        yield Sample(series.JOURNAL_BYTES, (), 0 if journal is None else journal.total_bytes)
        yield Sample(series.JOURNAL_LEFT_OUT, (), 0 if journal is None else journal.left_out)

    def _of_group(self, dispatcher: Dispatcher) -> Iterator[Sample]:
        group = dispatcher.ledger.group
        label = (self._names.group_label(group),)
        counts = self._jobs.get(group) or JobCounts(None)
        fleet = fleet_of(dispatcher.ledger, self._status_of, self._books.clock.now_us())
        yield from _of_jobs(label, counts, fleet)
        yield from self._of_agents(label, counts, fleet)
        if len(fleet.agents) <= self._agents_max:
            yield from _of_each_agent(label, counts, fleet)
        traffic = self._traffic.get(group) or Traffic()
        yield from _each(series.FRAMES, label, (("received", traffic.received), ("sent", traffic.sent)))
        yield from _each(series.REPORTS_REFUSED, label, traffic.refused.items())

    def _of_agents(self, label: Labels, counts: JobCounts, fleet: Fleet) -> Iterator[Sample]:
        yield from _each(series.AGENTS, label, [(status, fleet.statuses[status]) for status in self._statuses])
        yield Sample(series.ATTEMPTS_HELD, label, fleet.held)
        yield Sample(series.SLOTS, label, fleet.slots)
        yield Sample(series.CAPACITY, label, fleet.capacity)
        yield Sample(series.CAPACITY_FREE, label, fleet.free)
        evenness = counts.evenness.index(fleet.active)
        if evenness is not None:
            yield Sample(series.EVENNESS, label, evenness)


def _of_each_agent(label: Labels, counts: JobCounts, fleet: Fleet) -> Iterator[Sample]:
    for agent in fleet.agents:
        labels = (*label, agent.agent_id)
        yield Sample(series.AGENT_ASSIGNED, labels, counts.assigned[agent.no])
        yield Sample(series.AGENT_HELD, labels, agent.held)


def _of_jobs(label: Labels, counts: JobCounts, fleet: Fleet) -> Iterator[Sample]:
    yield Sample(series.JOBS_SUBMITTED, label, counts.submitted)
    yield from _each(series.JOBS_FINISHED, label, counts.finished.items())
    yield from _each(series.JOBS_WAITING, label, [(JobState.QUEUED, fleet.queued), *counts.waiting.items()])
    yield Sample(series.OLDEST_AGE_SECONDS, label, fleet.oldest_age_s)
    yield Sample(series.ATTEMPTS_ASSIGNED, label, counts.assigned_total)
    yield from _each(series.JOBS_RETURNED, label, counts.returned.items())
    yield Sample(series.ATTEMPTS_OVERLAPPED, label, counts.overlapped)
    yield _buckets(series.WAIT_SECONDS, label, counts.wait)
    yield _buckets(series.RUN_SECONDS, label, counts.run)
    yield _buckets(series.LATENCY_SECONDS, label, counts.latency)


def _each(one: Series, labels: Labels, values: Iterable[tuple[str, int]]) -> Iterator[Sample]:
    """One sample a key, which is the last label."""
    return (Sample(one, (*labels, key), value) for key, value in values)


def _buckets(one: Series, labels: Labels, distribution: Distribution) -> Sample:
    return Sample(one, labels, Buckets(distribution.buckets(), distribution.total))
