"""The start that is left out, by every command alike."""

from dataclasses import replace
from typing import Any

import pytest

from simulator.answer import answer
from simulator.compare import compare
from simulator.experiments import Laboratory, Plan, Question
from simulator.objectives import Exit, Verdict, parse
from simulator.scenario import Scenario
from simulator.settling import is_steady, left_out, look
from simulator.solve import Sizes, SolveError, solve
from simulator.sweep import row_of, sweep
from simulator.world import simulate
from tests.simulator.toys import ToyScenario, queue
from tests.simulator.worlds import scenario

FAULT = {"at": "30 s", "crash": "erp/1", "for": "20 s"}
AGENTS = "groups.erp.agents.count"
SLOW: dict[str, Any] = {
    "fidelity": "exact",
    "settle": "0 s",
    "run": "50 s",
    "arrivals": {"even": "2/s"},
}


def filling(seconds: int = 8) -> Scenario:
    """Until the first jobs end the system fills."""
    return scenario(**SLOW, duration={"constant": f"{seconds} s"})


def silent(*_: int) -> None:
    """Nobody wants to know how far it is."""


@pytest.mark.parametrize(
    ("parts", "steady"),
    [
        ({}, True),
        ({"faults": [FAULT]}, False),
        ({"faults": [{"random": "crash", "mttf": "1 h", "mttr": "1 min"}]}, True),
        ({"arrivals": {"diurnal": {"mean": "20/s"}}}, False),
    ],
    ids=["plain", "scripted fault", "random faults", "day"],
)
def test_scenario_is_steady_when_nothing_is_scripted(parts: dict[str, Any], steady: bool) -> None:
    assert is_steady(scenario(**parts)) is steady


def test_look_finds_nothing_to_leave_out_where_a_scenario_says_itself_or_is_a_toy() -> None:
    laboratory, plan = Laboratory(simulate), Plan(1)
    assert look(laboratory, Question(scenario(settle="10 s", run="10 s")), plan, silent) is None
    assert look(Laboratory(queue), Question(ToyScenario()), plan, silent) is None
    question = Question(filling(), changes={AGENTS: 7})
    assert left_out(question, None) == {AGENTS: 7}


def test_sweep_leaves_out_the_start_that_run_leaves_out() -> None:
    laboratory, plan = Laboratory(simulate), Plan(2, (parse("system.mean > 15"),))
    ran = answer(laboratory, Question(filling(), 1), plan, silent)
    found = sweep(laboratory, filling(), [{AGENTS: 6}], plan, seed=1)
    assert found.has_settled
    assert row_of(found.series[0], plan)["changes"] == {AGENTS: 6}
    assert found.series[0].interval("system.mean") == ran.series.interval("system.mean")
    assert found.judgements(plan)[0].verdict == Verdict.MET


def test_no_command_judges_a_run_that_never_settles() -> None:
    laboratory = Laboratory(simulate)
    never = filling(40).changed({"work.orders.arrivals": {"even": "0.2/s"}})
    plan = Plan(2, (parse("orders.latency.mean < 1 s"), parse("lost == 0")))
    ran = answer(laboratory, Question(never, 1), plan, silent)
    assert ran.verdict.startswith("Not precise enough for a verdict: the run never settles")
    assert ran.code is Exit.NOT_PRECISE
    found = sweep(laboratory, never, [{AGENTS: 6}], plan, seed=1)
    assert not found.has_settled
    assert {judgement.verdict for judgement in found.judgements(plan)} == {Verdict.NOT_PRECISE}
    assert not compare(laboratory, Question(never), Question(never), plan).has_settled
    with pytest.raises(SolveError, match="never settles"):
        solve(laboratory, never, Sizes(AGENTS, 3, most=4), plan.objectives[1:], seed=1)


def test_compare_looks_at_one_window_of_both() -> None:
    laboratory, plan = Laboratory(simulate), Plan(2)
    pair = compare(laboratory, Question(filling(2)), Question(filling(8)), plan)
    cut = [series.question.changes["horizon.settle"] for series in (pair.first, pair.second)]
    assert cut[0] == cut[1]
    assert float(str(cut[0]).split()[0]) >= 8
    assert pair.has_settled
    mean = next(one for one in pair.differences() if one.figure == "system.mean")
    assert mean.difference.mean == pytest.approx(12, abs=0.5)
    # One that has a beginning by nature is seen from there; so is what it is compared with.
    pair = compare(laboratory, Question(filling()), Question(filling().changed({"faults": [FAULT]})), replace(plan))
    assert pair.first.question.changes == pair.second.question.changes == {}


def test_solve_leaves_out_the_start_of_each_size() -> None:
    found = solve(Laboratory(simulate), filling(), Sizes(AGENTS, 4, full=3), [parse("system.mean > 15")], seed=1)
    assert found.agents == 4  # with the start, the mean is below 15
    assert found.neighbour is not None
    assert found.neighbour.agents == 3
