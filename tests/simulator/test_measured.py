"""Figures that stand for something, and those that stand for nothing."""

from math import isnan

import pytest

from simulator.answer import answer
from simulator.document import interval_json
from simulator.experiments import Laboratory, Plan, Question, interval_of
from simulator.measured import is_measured, measured
from simulator.objectives import Exit, parse
from simulator.sheet import table
from simulator.world import simulate
from tests.simulator.worlds import scenario

NONE = {"work.arrived": 0.0, "work.latency.p99": 0.0, "work.wait.mean": 0.0, "work.attempts.mean": 0.0}
SOME = {
    "work.arrived": 5.0,
    "work.succeeded": 3.0,
    "work.expired": 2.0,
    "work.failed": 2.0,
    "failover.detect.count": 0.0,
}


@pytest.mark.parametrize(
    ("name", "figures", "measured"),
    [
        ("work.latency.p99", NONE, False),
        ("work.wait.mean", NONE, False),
        ("work.attempts.mean", NONE, False),
        ("work.arrived", NONE, True),
        ("work.latency.p99", SOME, True),
        ("work.latency.p99", SOME | {"work.failed": 5.0}, False),
        ("work.wait.p50", SOME | {"work.expired": 5.0}, False),
        ("work.latency.p99", SOME | {"work.succeeded": 0.0, "work.failed": 0.0}, True),  # all of them took too long
        ("failover.detect.p95", SOME, False),
        ("failover.detect.count", SOME, True),
        ("failover.detect.p95", SOME | {"failover.detect.count": 1.0}, True),
        ("reconnect.peak", {"reconnect.count": 0.0}, True),
        ("reconnect.mean", {"reconnect.count": 0.0}, False),
        ("lost", SOME, True),
    ],
)
def test_figure_is_measured_when_something_was_seen_behind_it(
    name: str, figures: dict[str, float], *, measured: bool
) -> None:
    assert is_measured(name, figures) is measured


def test_mean_is_over_the_runs_that_measured_it() -> None:
    runs = [{"failover.detect.count": count, "failover.detect.mean": 3.0 * count} for count in (0.0, 1.0, 0.0)]
    assert measured("failover.detect.mean", runs) == [3.0]
    assert interval_of("failover.detect.mean", runs).n == 1
    nothing = interval_of("failover.detect.mean", runs[:1])
    assert isnan(nothing.mean)
    assert interval_json(nothing) == {"value": None, "half_width": None, "n": 0}


def test_run_without_jobs_shows_no_latency_and_decides_nothing_about_it() -> None:
    quiet = scenario(arrivals={"poisson": "0/s"}, objectives=["orders.latency.p99 < 2 s"], settle="1 s", run="10 s")
    plan = Plan(2, [parse(text) for text in quiet.objectives])
    seen = answer(Laboratory(simulate, in_depth=True), Question(quiet, 1), plan, lambda done, started: None)
    lines = {line.split("  ")[1]: line.split()[-1] for line in table(seen) if line.startswith("  ") and line.strip()}
    assert lines["end to end p99"] == lines["wait p50"] == lines["attempts a job"] == "-"
    assert lines["jobs arrived"] == "0"
    assert (seen.code, [judgement.seen.n for judgement in seen.judgements]) == (Exit.NOT_PRECISE, [0])
