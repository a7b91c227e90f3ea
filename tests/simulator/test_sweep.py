"""Every combination of values, on the same days."""

from pathlib import Path

import pytest

from simulator.cache import ResultCache
from simulator.experiments import Laboratory, Plan
from simulator.objectives import parse
from simulator.sweep import Axis, AxisError, axis_of, points_of, row_of, sweep, value_of
from tests.simulator.toys import ToyScenario, queue


@pytest.mark.parametrize(
    ("text", "axis"),
    [
        ("groups.erp.agents.count=16,18", Axis("groups.erp.agents.count", (16, 18))),
        ("a.b=16..18", Axis("a.b", (16, 17, 18))),
        ("a.b=15..21..3,30", Axis("a.b", (15, 18, 21, 30))),
        ("broker.heartbeat=250 ms, 2 s", Axis("broker.heartbeat", ("250 ms", "2 s"))),
        ("share=0.5", Axis("share", (0.5,))),
    ],
)
def test_axis_is_read(text: str, axis: Axis) -> None:
    assert axis_of(text) == axis


@pytest.mark.parametrize("text", ["", "a.b", "=3", "a.b=", "a.b=1,,2", "a.b=1,1", "a.b=5..1", "a.b=0..99999999"])
def test_axis_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(AxisError, match="`"):
        axis_of(text)


def test_value_keeps_its_kind() -> None:
    assert [value_of(text) for text in ("3", "3.0", "true", "3 s")] == [3, 3.0, True, "3 s"]


def test_points_are_all_combinations_in_order() -> None:
    assert points_of([Axis("a", (1, 2)), Axis("b", ("x", "y"))]) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    with pytest.raises(AxisError, match="`a` is given twice"):
        points_of([Axis("a", (1,)), Axis("a", (2,))])
    with pytest.raises(AxisError, match="1000000 combinations"):
        points_of([Axis(key, tuple(range(1000))) for key in "ab"])


def test_sweep_finds_the_curve_of_a_queue_and_where_it_breaks() -> None:
    plan = Plan(8, (parse("orders.latency.mean < 3 s"),))
    found = sweep(Laboratory(queue), ToyScenario(), points_of([axis_of("rate=0.2,0.5,1.5")]), plan, seed=3)
    rows = [row_of(series, plan) for series in found.series]
    for series, truth in zip(found.series[:2], (1.25, 2.0), strict=True):
        assert series.interval("orders.latency.mean", 0.999).holds(truth)
    assert [row["unstable"] is None for row in rows] == [True, True, False]
    assert rows[2]["figures"] == {}
    assert len(found.judgements(plan)) == 2
    assert not found.partial


def test_interrupted_sweep_keeps_its_points_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    scenario = ToyScenario(jobs=100, journal=str(journal))
    laboratory = Laboratory(queue, cache=ResultCache(tmp_path / "cache"))
    points: list[dict[str, object]] = [{"rate": 0.3}, {"rate": 0.4, "interrupt_at": 1}, {"rate": 0.5}]
    first = sweep(laboratory, scenario, points, Plan(2), seed=1)
    assert first.partial
    assert [len(series.outcomes) for series in first.series] == [2, 1]
    assert [series.partial for series in first.series] == [False, True]
    ran = len(journal.read_text().splitlines())
    again = sweep(laboratory, scenario, points[:1] + points[2:], Plan(2), seed=1)
    assert not again.partial
    assert [series.cached for series in again.series] == [2, 0]
    assert len(journal.read_text().splitlines()) == ran + 2
