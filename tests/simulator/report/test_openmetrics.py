"""A simulated day for a real Prometheus."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from broker import series
from simulator.answer import Answer
from simulator.report.openmetrics import openmetrics
from tests.simulator.test_answer import FAULT, asked

BEGIN = datetime(2026, 11, 21, 12, tzinfo=UTC)


NOT_KNOWN = {
    *("mesh_agent_attempts_held", "mesh_reports_refused_total", "mesh_frames_total", "mesh_loop_lag_seconds"),
    *("mesh_commit_duration_seconds", "mesh_commit_rows", "mesh_batch_events", "mesh_mailbox_events"),
    *("mesh_mailbox_full_total", "mesh_store_stalled", "mesh_store_bytes", "mesh_store_free_bytes"),
    *("mesh_history_removed_total", "mesh_history_slice_max_seconds", "mesh_journal_recording", "mesh_journal_bytes"),
    *("mesh_journal_left_out_total", "mesh_acceptor_restarts_total", "mesh_snapshot_duration_seconds"),
    *("mesh_snapshot_age_seconds", "mesh_build_info"),
}
"""What a real broker tells of its process and its files, or of every message, which nobody keeps of a simulated one."""
KNOWN = {one.name for one in series.ALL} - NOT_KNOWN | {"mesh_simulation_info"}


@pytest.fixture(scope="module")
def answer() -> Answer:
    return asked(1, faults=[FAULT])


def samples(answer: Answer, name: str) -> list[tuple[float, float]]:
    """(seconds since the start, value) of the lines that begin so."""
    lines = [line.rsplit(" ", 2) for line in openmetrics(answer, BEGIN) if line.startswith(name)]
    return [(float(at_s) - BEGIN.timestamp(), float(value)) for _, value, at_s in lines]


def test_every_name_is_one_of_the_broker_with_its_labels(answer: Answer) -> None:
    known = {one.name: one for one in series.ALL}
    families = [line.split() for line in openmetrics(answer, BEGIN) if line.startswith("# TYPE")]
    assert {f"{family}_total" if kind == "counter" else family for _, _, family, kind in families} == KNOWN
    for _, _, family, kind in families:
        if family == "mesh_simulation_info":
            continue
        name = f"{family}_total" if kind == "counter" else family
        assert known[name].type == kind
    finished = next(line for line in openmetrics(answer, BEGIN) if line.startswith("mesh_jobs_finished_total{"))
    assert finished.startswith('mesh_jobs_finished_total{group="simulated/erp",state="succeeded"} ')


def test_counters_never_fall_and_gauges_show_the_fault(answer: Answer) -> None:
    submitted = samples(answer, "mesh_jobs_submitted_total{")
    assert [value for _, value in submitted] == sorted(value for _, value in submitted)
    assert submitted[-1][1] == answer.series.outcomes[0].jobs
    active = dict(samples(answer, 'mesh_agents{group="simulated/erp",status="active"'))
    assert {value for at_s, value in active.items() if 31 < at_s < 49} == {5.0}
    assert {value for at_s, value in active.items() if at_s > 51} == {6.0}


def test_gauges_of_a_group_agree_with_one_another(answer: Answer) -> None:
    def last(name: str) -> float:
        return samples(answer, name)[-1][1]

    held, free, capacity = (last(f"mesh_{name}{{") for name in ("attempts_held", "capacity_free", "capacity"))
    assert held + free == capacity
    assigned = sum(
        value for at_s, value in samples(answer, "mesh_agent_attempts_assigned_total") if at_s == pytest.approx(60)
    )
    assert 0.7 * assigned < last("mesh_attempts_assigned_total{") <= 1.3 * assigned  # agents are seen without settling
    evenness = [value for _, value in samples(answer, "mesh_evenness_ratio{")]
    assert len(evenness) > 10
    assert 0.5 < min(evenness) < max(evenness) <= 1
    returned = samples(answer, 'mesh_jobs_returned_total{group="simulated/erp",reason="agent_lost"}')
    assert [value for at_s, value in returned if at_s < 29] == [0.0] * sum(at_s < 29 for at_s, _ in returned)
    assert returned[-1][1] > 0


def test_every_replication_is_told_apart_by_its_label() -> None:
    two = asked(2, faults=[FAULT])
    lines = list(openmetrics(two, BEGIN, every=True))
    for number, outcome in enumerate(two.series.outcomes):
        which = f'replication="{number}",digest="{outcome.digest}"'
        assert any(line.startswith("mesh_simulation_info{") and which in line for line in lines)
    counted = [line for line in lines if line.startswith("mesh_commits_total{")]
    assert len(counted) == 480
    assert all('replication="' in line for line in lines if not line.startswith("#"))
    assert not any('replication="' in line for line in openmetrics(two, BEGIN) if line.startswith("mesh_jobs"))


def test_histogram_counts_the_jobs_that_ended_until_then(answer: Answer) -> None:
    whole = samples(answer, 'mesh_job_latency_seconds_bucket{group="simulated/erp",le="+Inf"}')
    assert len(whole) == 48
    assert whole[-1][0] == pytest.approx(60)
    assert whole[-1][1] == samples(answer, "mesh_job_latency_seconds_count")[-1][1]
    second = samples(answer, 'mesh_job_latency_seconds_bucket{group="simulated/erp",le="1.0"}')
    assert 0.8 < second[-1][1] / whole[-1][1] < 1
    total_s = samples(answer, "mesh_job_latency_seconds_sum")[-1][1]
    assert total_s / whole[-1][1] == pytest.approx(answer.figures["orders.latency.mean"].mean, rel=0.1)
    assert samples(answer, "mesh_job_run_seconds_sum")[-1][1] < total_s


@pytest.mark.system("promtool")
@pytest.mark.parametrize("every", [False, True])
def test_promtool_makes_blocks_of_it(answer: Answer, tmp_path: Path, *, every: bool) -> None:
    text = tmp_path / "day.om"
    text.write_text("".join(f"{line}\n" for line in openmetrics(answer, BEGIN, every=every)))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(tmp_path / "data")]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == 0, made.stderr
    blocks = [path for path in (tmp_path / "data").iterdir() if path.is_dir() and (path / "meta.json").exists()]
    assert blocks
    listed = subprocess.run(
        ["promtool", "tsdb", "list", str(tmp_path / "data")], capture_output=True, text=True, check=True, timeout=60
    )
    told = {line.rsplit(" ", 2)[0] for line in text.read_text().splitlines() if not line.startswith("#")}
    assert str(len(told)) in listed.stdout.splitlines()[1]  # series
