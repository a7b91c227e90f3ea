from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from broker import series
from broker.dispatch.messages import Notice, Transition
from broker.dispatch.model import NO_AGENT, GroupNo, JobKey, JobState
from broker.observe.metrics import Metrics
from broker.series import SeriesType

GROUP = GroupNo(1)


def metrics() -> Metrics:
    return Metrics(lambda group: f"default/g{group}", "1.2.3")


def moved(before: JobState | None, after: JobState, reason: str = "") -> Notice:
    return Transition(GROUP, JobKey(1), 1, 1, before, after, reason, NO_AGENT)


def value(found: Metrics, name: str, **labels: str) -> float:
    return found.registry.get_sample_value(name, labels) or 0.0


def test_page_has_exactly_the_series_of_the_list() -> None:
    families = {family.name: family for family in text_string_to_metric_families(metrics().page().decode())}
    assert set(families) == {one.name.removesuffix("_total") for one in series.ALL}
    for one in series.ALL:
        family = families[one.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (one.type, one.help)
        assert one.name.endswith("_total") == (one.type is SeriesType.COUNTER)


def test_jobs_are_counted_as_they_move() -> None:
    found = metrics()
    found.on_batch(
        [
            moved(None, JobState.QUEUED),
            moved(None, JobState.QUEUED),
            moved(None, JobState.SCHEDULED),
            moved(JobState.QUEUED, JobState.ASSIGNED),
            moved(JobState.ASSIGNED, JobState.RUNNING, "started"),
            moved(JobState.RUNNING, JobState.SUCCEEDED),
            moved(JobState.ASSIGNED, JobState.QUEUED, "accept_timeout"),
            moved(JobState.RUNNING, JobState.SCHEDULED, "failed"),
            moved(JobState.SCHEDULED, JobState.QUEUED, "due"),
            moved(JobState.QUEUED, JobState.CANCELLED),
        ],
        1,
    )
    group = {"group": "default/g1"}
    assert value(found, "mesh_jobs_submitted_total", **group) == 3
    assert value(found, "mesh_attempts_assigned_total", **group) == 1
    assert value(found, "mesh_jobs_finished_total", **group, state="succeeded") == 1
    assert value(found, "mesh_jobs_finished_total", **group, state="cancelled") == 1
    assert value(found, "mesh_jobs_returned_total", **group, reason="accept_timeout") == 1
    assert value(found, "mesh_jobs_returned_total", **group, reason="failed") == 1
    assert value(found, "mesh_jobs_returned_total", **group, reason="due") == 0


def test_commits_full_queues_restarts_and_sessions_are_counted() -> None:
    found = metrics()
    found.on_commit(0.003, 5)
    found.on_commit(0.2, 300)
    found.on_full("reports")
    found.acceptor_restarted("mesh")
    found.count_sessions(lambda: 17)
    assert value(found, "mesh_commits_total") == 2
    assert value(found, "mesh_commit_duration_seconds_sum") == 0.203
    assert value(found, "mesh_commit_duration_seconds_bucket", le="0.005") == 1
    assert value(found, "mesh_batch_events_bucket", le="512.0") == 2
    assert value(found, "mesh_batch_events_bucket", le="8.0") == 1
    assert value(found, "mesh_mailbox_full_total", queue="reports") == 1
    assert value(found, "mesh_acceptor_restarts_total", listener="mesh") == 1
    assert value(found, "mesh_sessions") == 17
    assert value(found, "mesh_build_info", version="1.2.3") == 1


def test_two_brokers_in_one_process_count_apart() -> None:
    one, two = metrics(), metrics()
    one.on_commit(0.1, 1)
    assert (value(one, "mesh_commits_total"), value(two, "mesh_commits_total")) == (1, 0)
