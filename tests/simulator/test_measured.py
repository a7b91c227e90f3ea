"""Figures that stand for something, and those that stand for nothing."""

from math import isnan
from typing import Any

import pytest

from simulator.answer import Answer, answer
from simulator.document import interval_json
from simulator.experiments import Laboratory, Plan, Question, interval_of
from simulator.measured import is_measured, measured
from simulator.objectives import Exit, parse
from simulator.sheet import table
from simulator.world import simulate
from tests.simulator.worlds import scenario

NONE = {f"work.{name}": 0.0 for name in ("arrived", "latency.count", "wait.count")}
SOME = {
    "work.arrived": 5.0,
    "work.cancelled": 5.0,
    "work.latency.count": 1.0,
    "work.wait.count": 0.0,
    "failover.detect.count": 0.0,
}


@pytest.mark.parametrize(
    ("name", "figures", "measured"),
    [
        ("work.latency.p99", NONE, False),
        ("work.wait.mean", NONE, False),
        ("work.wait.share", NONE, False),
        ("work.attempts.mean", NONE, False),
        ("work.expired.share", NONE, False),
        ("work.arrived", NONE, True),
        ("work.latency.p99", SOME, True),
        ("work.wait.p50", SOME, False),
        ("work.wait.share", SOME, True),
        ("work.attempts.mean", SOME, True),
        ("work.attempts.mean", SOME | {"work.cancelled": 0.0}, False),
        ("work.expired.share", SOME, True),
        ("erp.evenness.jain", {"erp.evenness.count": 0.0}, False),
        ("erp.evenness.peak", {"erp.evenness.count": 2.0}, True),
        ("erp.evenness.window.least", {"erp.evenness.count": 2.0, "erp.evenness.window.count": 0.0}, False),
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


def _shown(**parts: Any) -> tuple[dict[str, str], Answer]:
    """What the table has for each line, by its words."""
    quiet = scenario(settle="1 s", run="10 s", **parts)
    plan = Plan(2, [parse(text) for text in quiet.objectives])
    seen = answer(Laboratory(simulate, in_depth=True), Question(quiet, 1), plan, lambda done, started: None)
    lines = [line.split() for line in table(seen) if line.startswith("  ") and line.strip()]
    return {" ".join(words[:-1]): words[-1] for words in lines}, seen


def test_run_without_jobs_shows_no_latency_and_decides_nothing_about_it() -> None:
    lines, seen = _shown(arrivals={"poisson": "0/s"}, objectives=["orders.latency.p99 < 2 s"])
    assert lines["jobs arrived"] == "0"
    unknown = ("end to end p99", "wait p50", "attempts a job", "evenness (Jain)", "evenness, max/mean")
    assert [words for words in (*unknown, "evenness, worst window") if lines[words] != "-"] == []
    assert (seen.code, [judgement.seen.n for judgement in seen.judgements]) == (Exit.NOT_PRECISE, [0])


def test_run_whose_jobs_never_begin_shows_no_wait() -> None:
    lines, seen = _shown(
        agents={"count": 1},
        arrivals={"even": "2/s"},
        work={"deadline": "1 s"},
        faults=[{"at": "1 ms", "crash": "erp/1", "for": "60 s"}],
    )
    assert seen.figures["orders.failed"].mean == seen.figures["orders.arrived"].mean > 10
    assert (lines["wait p50"], lines["attempts a job"], lines["evenness (Jain)"]) == ("-", "0", "-")
