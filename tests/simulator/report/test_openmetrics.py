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
    assert len(families) == 10
    for _, _, family, kind in families:
        name = f"{family}_total" if kind == "counter" else family
        assert known[name].type == kind
    finished = next(line for line in openmetrics(answer, BEGIN) if line.startswith("mesh_jobs_finished_total{"))
    assert finished.startswith('mesh_jobs_finished_total{group="simulated/erp",state="succeeded"} ')


def test_counters_never_fall_and_gauges_show_the_fault(answer: Answer) -> None:
    submitted = samples(answer, "mesh_jobs_submitted_total{")
    assert [value for _, value in submitted] == sorted(value for _, value in submitted)
    assert submitted[-1][1] == answer.series.outcomes[0].jobs
    active = dict(samples(answer, "mesh_agents{"))
    assert {value for at_s, value in active.items() if 31 < at_s < 49} == {5.0}
    assert {value for at_s, value in active.items() if at_s > 51} == {6.0}


def test_histogram_counts_the_jobs_that_arrived_until_then(answer: Answer) -> None:
    whole = samples(answer, 'mesh_job_latency_seconds_bucket{group="simulated/erp",le="+Inf"}')
    assert len(whole) == 48
    assert whole[-1][0] == pytest.approx(60)
    assert whole[-1][1] == samples(answer, "mesh_job_latency_seconds_count")[-1][1]
    second = samples(answer, 'mesh_job_latency_seconds_bucket{group="simulated/erp",le="1.0"}')
    assert 0.8 < second[-1][1] / whole[-1][1] < 1


@pytest.mark.system("promtool")
def test_promtool_makes_blocks_of_it(answer: Answer, tmp_path: Path) -> None:
    text = tmp_path / "day.om"
    text.write_text("".join(f"{line}\n" for line in openmetrics(answer, BEGIN)))
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(tmp_path / "data")]
    made = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert made.returncode == 0, made.stderr
    blocks = [path for path in (tmp_path / "data").iterdir() if path.is_dir() and (path / "meta.json").exists()]
    assert blocks
    listed = subprocess.run(
        ["promtool", "tsdb", "list", str(tmp_path / "data")], capture_output=True, text=True, check=True, timeout=60
    )
    assert "32" in listed.stdout.splitlines()[1]  # series
