"""One scenario, many replications: what they say together."""

from collections.abc import Mapping
from typing import Any

import pytest

from simulator.answer import Answer, answer
from simulator.experiments import Laboratory, Plan, Question, Run, UnstableError
from simulator.objectives import Exit, parse
from simulator.scenario import Scenario
from simulator.statistics import StoppingRule
from simulator.world import simulate
from tests.simulator.worlds import scenario

GROWING: dict[str, Any] = {
    "arrivals": {"poisson": "80/s"},
    "horizon": {"settle": "5 s", "run": "25 s", "finish": "1 s"},
}
FAULT = {"at": "30 s", "crash": "erp/1", "for": "20 s"}


def asked(replications: int = 3, objectives: tuple[str, ...] = (), **parts: Any) -> Answer:
    """The answer to a small scenario at `exact`, in this process."""
    one = scenario(**{"fidelity": "exact", "run": "50 s", **parts})
    plan = Plan(replications, tuple(map(parse, objectives)), StoppingRule(0.2))
    return answer(Laboratory(simulate, in_depth=True), Question(one, 1), plan, lambda done, started: None)


def test_answer_has_an_interval_for_every_figure_of_the_whole_and_of_each_phase() -> None:
    found = asked(faults=[FAULT])
    assert found.figures["orders.latency.p99"].n == 3
    assert 0 < found.figures["orders.latency.p99"].half_width < 1
    assert [name for name, *_ in found.phases] == ["before", "crash erp/1", "after crash erp/1"]
    for _, _, _, seen in found.phases:
        assert {"orders.throughput", "erp.utilisation", "erp.backlog.peak", "failover.restart.mean"} <= set(seen)
        assert seen["orders.wait.p999"].n == 3


def test_phases_add_up_to_the_whole() -> None:
    found = asked(replications=1, faults=[FAULT])
    whole = {name: seen.mean for name, seen in found.figures.items()}
    parts = [(to_s - from_s, {name: one.mean for name, one in seen.items()}) for _, from_s, to_s, seen in found.phases]
    assert sum(seconds for seconds, _ in parts) == pytest.approx(50)
    for name in ("orders.arrived", "orders.succeeded", "orders.retried", "broker.commits", "failover.detect.count"):
        assert sum(seen[name] for _, seen in parts) == whole[name], name
    for name in ("orders.throughput", "erp.running.mean", "erp.up.mean", "erp.backlog.mean", "erp.availability"):
        assert sum(seconds * seen[name] for seconds, seen in parts) / 50 == pytest.approx(whole[name]), name
    assert max(seen["erp.backlog.peak"] for _, seen in parts) == whole["erp.backlog.peak"]
    assert [round(seen["erp.agents.mean"], 6) for _, seen in parts] == [6, 5, 6]


def test_answer_stops_when_the_objectives_are_precise_enough() -> None:
    found = asked(replications=0, objectives=("orders.latency.mean < 2 s", "lost == 0"))
    assert 8 <= len(found.series.outcomes) < 30
    assert found.code is Exit.MET
    assert found.verdict.startswith("All 2 objectives are met; the tightest: orders.latency.mean is ")


def test_answer_refuses_to_average_a_backlog_that_grows() -> None:
    found = asked(replications=0, objectives=("lost == 0",), **GROWING)
    assert found.verdict.startswith("UNSTABLE: backlog grows ")
    assert found.code is Exit.MISSED
    assert (found.figures, found.phases, found.judgements) == ({}, [], [])
    with pytest.raises(UnstableError):
        found.series.intervals()


def test_hump_that_a_late_fault_leaves_is_no_growth() -> None:
    late = {"at": "40 s", "crash": "all", "for": "3 s"}
    found = asked(faults=[late], arrivals={"poisson": "40/s"}, agents={"count": 8, "slots": 4})
    assert max(seen["erp.backlog.peak"].mean for _, _, _, seen in found.phases) > 80
    assert found.instability == ""


def test_one_replication_decides_nothing_but_equality() -> None:
    found = asked(replications=1, objectives=("lost == 0",))
    assert found.code is Exit.MET
    found = asked(replications=1, objectives=("orders.latency.p99 < 9 s",))
    assert found.code is Exit.NOT_PRECISE


def test_steady_scenario_without_settling_time_leaves_out_its_warm_up() -> None:
    found = asked(settle="0 s", duration={"constant": "8 s"}, arrivals={"even": "2/s"})
    assert found.warm_up is not None
    assert found.warm_up.has_settled
    assert 8 <= found.warm_up.seconds < 12  # until the first jobs end, the system fills
    assert found.scenario.horizon.settle == found.warm_up.seconds
    assert found.scenario.end_s == 50
    assert found.figures["system.mean"].mean == pytest.approx(16, abs=0.5)


def test_run_that_never_settles_is_not_precise_enough() -> None:
    found = asked(settle="0 s", duration={"constant": "200 s"}, arrivals={"even": "0.2/s"}, objectives=("lost == 0",))
    assert found.warm_up is not None
    assert not found.warm_up.has_settled
    assert found.code in (Exit.NOT_PRECISE, Exit.MISSED)
    assert "never settles" in found.verdict or "UNSTABLE" in found.verdict


def test_settling_time_that_is_given_is_kept() -> None:
    assert asked(1, settle="10 s", run="10 s").warm_up is None
    assert asked(1, settle="0 s", run="31 s", faults=[FAULT]).scenario.horizon.settle == 0


def test_digest_names_the_replications_in_their_order() -> None:
    first, again, longer = (asked(replications, run="10 s") for replications in (2, 2, 3))
    assert first.digest == again.digest != longer.digest


def losing(scenario: Scenario, /, *, seed: int, replication: int, changes: Mapping[str, object]) -> Run:
    """A world in which a job vanishes in the second replication."""
    run = simulate(scenario, seed=seed, replication=replication, changes=changes)
    run.figures["lost"] += replication == 1
    return run


def test_one_lost_job_in_one_replication_misses() -> None:
    one = scenario(fidelity="exact", run="20 s")
    found = answer(Laboratory(losing, in_depth=True), Question(one), Plan(3, (parse("lost == 0"),)), lambda *_: None)
    assert (found.lost, found.code) == (1, Exit.MISSED)
