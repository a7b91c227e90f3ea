"""When jobs arrive, and what they are."""

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.dispatch.model import GroupNo
from broker.errors import ConfigError
from simulator.laws import Arrivals
from simulator.streams import Streams
from simulator.workload import SimJob, Workload, arrivals_us, read_trace
from tests.simulator.worlds import scenario

HOUR_US = 3_600_000_000


def times(form: dict[str, Any], end_us: int = HOUR_US, seed: int = 1) -> list[int]:
    return list(arrivals_us(Arrivals.model_validate(form), Streams(seed, 0), 1, end_us))


@pytest.mark.parametrize(
    ("form", "jobs", "spread"),
    [
        ({"poisson": "10/s"}, 36_000, 0.02),
        ({"even": "10/s"}, 36_000, 0.001),
        ({"diurnal": {"mean": "10/s", "swing": "50 %", "period": "30 min", "peak-at": "10 min"}}, 36_000, 0.02),
        ({"bursty": {"rates": ["4/s", "16/s"], "dwell": ["20 s", "10 s"]}}, 28_800, 0.15),
        ({"batch": {"rate": "1/s", "size": 10}}, 36_000, 0.06),
        ({"cron": {"when": "*/15 * * * *", "jobs": 7}}, 28, 0.0),
    ],
)
def test_arrivals_come_at_the_rate_that_they_say_and_in_order(form: dict[str, Any], jobs: int, spread: float) -> None:
    seen = times(form)
    assert len(seen) == pytest.approx(jobs, rel=spread + 1e-4)
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] < HOUR_US
    assert times(form) == seen


def test_poisson_gaps_are_exponential() -> None:
    gaps = np.diff(times({"poisson": "10/s"})) / 1e6
    assert gaps.mean() == pytest.approx(0.1, rel=0.02)
    assert gaps.std() == pytest.approx(0.1, rel=0.03)


def test_diurnal_arrivals_are_densest_at_the_peak() -> None:
    form = {"diurnal": {"mean": "10/s", "swing": "80 %", "period": "1 h", "peak-at": "15 min"}}
    quarters = Counter(at_us * 4 // HOUR_US for at_us in times(form))
    assert quarters[0] + quarters[1] > 2 * (quarters[2] + quarters[3])


def test_batches_arrive_together() -> None:
    assert set(Counter(times({"batch": {"rate": "1/s", "size": 10}})).values()) == {10}


def test_cron_entry_names_minutes_hours_and_weekdays_from_a_monday_on() -> None:
    day_us = 24 * HOUR_US
    noon_on_tuesday = times({"cron": {"when": "0 12 * * 2"}}, 8 * day_us)
    assert noon_on_tuesday == [day_us + 12 * HOUR_US]
    assert times({"cron": {"when": "30 8-9,20 * * *"}}, day_us) == [
        hour * HOUR_US + HOUR_US // 2 for hour in (8, 9, 20)
    ]


@pytest.mark.parametrize("when", ["61 * * * *", "a * * * *", "* * 0 * *", "*/x * * * *"])
def test_cron_entry_is_refused_when_it_matches_nothing(when: str) -> None:
    with pytest.raises(ConfigError):
        times({"cron": {"when": when}})


def test_trace_is_read_in_seconds_with_or_without_a_heading(tmp_path: Path) -> None:
    file = tmp_path / "history.csv"
    file.write_text("arrived,what\n0.5,a\n0.5,b\n12.25,c\n")
    assert read_trace(file) == [500_000, 500_000, 12_250_000]
    assert times({"trace": str(file)}, 1_000_000) == [500_000, 500_000]
    file.write_text("arrived\n")
    with pytest.raises(ConfigError, match="no arrivals"):
        read_trace(file)


def of(**work: Any) -> Workload:
    whole = scenario(work=work)
    return Workload.of(1, "orders", whole.work["orders"], GroupNo(1), Streams(1, 0))


def test_jobs_are_the_same_whatever_else_is_asked_of_them() -> None:
    plain, impatient = of(), of(**{"start-within": {"exponential": "1 s"}, "failure": "50 %"})
    first = [plain.draw(0).duration_us for _ in range(100)]
    assert [impatient.draw(0).duration_us for _ in range(100)] == first


def test_failing_is_a_matter_of_the_job_and_the_attempt() -> None:
    load = of(failure="30 %")
    jobs = [load.draw(0) for _ in range(5_000)]
    for attempt in (1, 2, 3):
        share = sum(load.fails(job, attempt) for job in jobs) / len(jobs)
        assert share == pytest.approx(0.3, abs=0.025)
    both = sum(load.fails(job, 1) and load.fails(job, 2) for job in jobs) / len(jobs)
    assert both == pytest.approx(0.09, abs=0.02)
    assert [load.fails(job, 2) for job in jobs[:50]] == [load.fails(job, 2) for job in jobs[:50]]


def test_job_takes_little_memory() -> None:
    job = next(islice((of().draw(0) for _ in range(1)), 1))
    assert not hasattr(job, "__dict__")
    assert SimJob.__sizeof__(job) <= 200
