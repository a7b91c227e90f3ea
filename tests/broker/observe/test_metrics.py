from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

import pytest

from broker import series
from broker.clock import EngineClock
from broker.control.status import AgentStatus, agent_status
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import Notice, Transition
from broker.dispatch.model import NO_AGENT, GroupNo, JobKey, JobState
from broker.observe.metrics import Buckets, Metrics
from broker.observe.traffic import Traffic
from broker.series import Series
from tests.broker.dispatch.bench import GroupBench
from tests.broker.dispatch.driver import GROUP
from tests.broker.observe.counted import CountedBench

OTHER = GroupNo(8)
AGENTS_MAX = 3


class Books:
    """Groups on their benches, as an engine owns them."""

    def __init__(self, *groups: GroupBench) -> None:
        self.groups = {bench.dispatcher.ledger.group: bench for bench in groups}
        self.clock = EngineClock(lambda: max(bench.now_us for bench in groups) * 1_000, lambda: 0)
        self.is_stalled = False

    def dispatchers(self) -> Iterator[Dispatcher]:
        return (bench.dispatcher for bench in self.groups.values())

    def dispatcher_of(self, group: GroupNo) -> Dispatcher | None:
        bench = self.groups.get(group)
        return None if bench is None else bench.dispatcher

    def waiting(self) -> Mapping[str, int]:
        return {"control": 1, "reports": 2, "submissions": 3}

    def group_label(self, group_no: GroupNo) -> str:
        return f"default/g{group_no}"


def metrics_of(books: Books) -> Metrics:
    return Metrics(books, books, agent_status, AgentStatus, AGENTS_MAX)


def submitted(group: GroupNo = GROUP) -> Notice:
    return Transition(group, JobKey(1), 0, 1, None, JobState.QUEUED, "accepted", NO_AGENT)


def values(metrics: Metrics, one: Series) -> dict[tuple[str, ...], float]:
    """The samples of a series by their labels."""
    found = [sample for sample in metrics.snapshot() if sample.series is one]
    return {sample.labels: sample.value for sample in found if not isinstance(sample.value, Buckets)}


def names(found: Iterable[Series]) -> list[str]:
    return [one.name for one in found]


def test_every_series_has_a_name_of_its_own_and_labels_are_few() -> None:
    assert len(set(names((*series.ALL, *series.PROCESS)))) == len(series.ALL) + len(series.PROCESS)
    for one in series.ALL:
        assert one.name.startswith("mesh_")
        assert one.name.endswith("_total") == (one.type is series.SeriesType.COUNTER)
        assert bool(one.buckets) == (one.type is series.SeriesType.HISTOGRAM)
        allowed = {
            "group",
            "agent",
            "state",
            "status",
            "reason",
            "queue",
            "listener",
            "file",
            "direction",
            "version",
            "kind",
        }
        assert set(one.labels) <= allowed


def test_every_sample_has_the_labels_of_its_series(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1")
    for sample in metrics_of(Books(group)).snapshot():
        assert len(sample.labels) == len(sample.series.labels), sample


def test_groups_are_counted_apart() -> None:
    books = Books(GroupBench())
    metrics = metrics_of(books)
    metrics.on_batch([submitted(), submitted(), submitted(OTHER)], 1)
    metrics.on_batch([submitted()], 2)
    assert values(metrics, series.JOBS_SUBMITTED) == {("default/g7",): 3}


def test_group_that_the_broker_does_not_own_is_neither_told_nor_kept() -> None:
    books = Books(GroupBench())
    metrics = metrics_of(books)
    metrics.on_batch([submitted()], 1)
    books.groups.clear()
    assert values(metrics, series.JOBS_SUBMITTED) == {}


def test_group_that_is_removed_is_told_until_its_last_job_and_agent_are_gone(group: GroupBench) -> None:
    group.agents("a").submit("j1", exclusive=True).start("j1").close("a")
    metrics = metrics_of(Books(group))
    metrics.read_refusals(Counter({(GROUP, "QUEUE_FULL"): 2}))

    group.remove_group()

    assert values(metrics, series.JOBS_SUBMITTED) == {("default/g7",): 0}
    group.advance(3_600)
    assert not [sample for sample in metrics.snapshot() if "group" in sample.series.labels]


def test_jobs_that_a_recovery_brought_back_wait(group: GroupBench) -> None:
    group.submit("j1").submit("j2", delay_s=60)
    metrics = metrics_of(Books(group))
    metrics.begin()
    label = "default/g7"
    assert values(metrics, series.JOBS_WAITING) == {
        (label, "queued"): 1,
        (label, "scheduled"): 1,
        (label, "held"): 0,
    }
    assert values(metrics, series.JOBS_SUBMITTED) == {(label,): 0}


def test_agents_are_told_one_by_one_up_to_a_bound_and_as_a_sum_always(group: GroupBench) -> None:
    group.agents("a", "b", "c", slots=2).submit("j1")
    metrics = metrics_of(Books(group))
    assert values(metrics, series.AGENT_HELD) == {("default/g7", name): int(name == "a") for name in "abc"}
    group.agents("d")
    assert values(metrics, series.AGENT_HELD) == values(metrics, series.AGENT_ASSIGNED) == {}
    assert values(metrics, series.ATTEMPTS_HELD) == {("default/g7",): 1}
    assert values(metrics, series.AGENTS)["default/g7", "active"] == 4
    assert len(values(metrics, series.AGENTS)) == len(AgentStatus)


def test_commits_full_queues_restarts_lag_and_stalls_are_told() -> None:
    books = Books(GroupBench())
    metrics = metrics_of(books)
    metrics.on_commit(0.003, 5, 7)
    metrics.on_commit(0.2, 300, 900)
    metrics.on_full("reports")
    metrics.acceptor_restarted("mesh")
    metrics.on_lag(0.02)
    books.is_stalled = True
    assert values(metrics, series.COMMITS) == {(): 2}
    assert values(metrics, series.MAILBOX_FULL) == {("control",): 0, ("reports",): 1, ("submissions",): 0}
    assert values(metrics, series.MAILBOX_EVENTS) == {("control",): 1, ("reports",): 2, ("submissions",): 3}
    assert values(metrics, series.ACCEPTOR_RESTARTS) == {("api",): 0, ("mesh",): 1}
    assert values(metrics, series.STORE_STALLED) == {(): 1}
    found = {sample.series: sample.value for sample in metrics.snapshot() if not sample.labels}
    for one, total in (
        (series.COMMIT_SECONDS, 0.203),
        (series.COMMIT_EVENTS, 305),
        (series.COMMIT_ROWS, 907),
        (series.LOOP_LAG_SECONDS, 0.02),
    ):
        buckets = found[one]
        assert isinstance(buckets, Buckets)
        assert buckets.total == total


def test_streams_and_refusals_are_read_where_they_are_counted(group: GroupBench) -> None:
    metrics = metrics_of(Books(group))
    traffic = Traffic()
    traffic.received, traffic.sent = 3, 4
    traffic.refused["superseded"] += 1
    metrics.read_streams(lambda: 17, {GROUP: traffic})
    metrics.read_refusals(Counter({(GROUP, "QUEUE_FULL"): 2, (GroupNo(0), "NOT_FOUND"): 1}))
    assert values(metrics, series.SESSIONS) == {(): 17}
    assert values(metrics, series.FRAMES) == {("default/g7", "received"): 3, ("default/g7", "sent"): 4}
    assert values(metrics, series.REPORTS_REFUSED)["default/g7", "superseded"] == 1
    assert values(metrics, series.SUBMISSIONS_REFUSED) == {("default/g7", "QUEUE_FULL"): 2, ("", "NOT_FOUND"): 1}


def test_windows_turn_with_time_and_what_is_gone_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.observe.metrics.WINDOW_S", 0.0)
    group = CountedBench().agents("a", "b")
    books = Books(group)
    metrics = metrics_of(books)
    for number in range(20):
        group.submit(f"j{number}")
        metrics.on_batch(group.last.notices, 1)
        group.finish(f"j{number}")
    assert values(metrics, series.EVENNESS) == {("default/g7",): 1.0}
    metrics.on_lag(0.0)
    assert values(metrics, series.EVENNESS) == {("default/g7",): 1.0}
    metrics.on_lag(0.0)
    assert values(metrics, series.EVENNESS) == {}
    assert values(metrics, series.ATTEMPTS_ASSIGNED) == {("default/g7",): 20}

    owned, books.groups = books.groups, {}
    metrics.on_lag(0.0)
    books.groups = owned
    assert values(metrics, series.ATTEMPTS_ASSIGNED) == {("default/g7",): 0}
