"""The smallest fleet, where Erlang's formula knows the answer."""

from importlib.resources import as_file, files

import pytest

from simulator.erlang import servers_for, sojourn_tail
from simulator.experiments import Laboratory
from simulator.objectives import ObjectiveError, parse
from simulator.scenario import Scenario
from simulator.scenario_file import load
from simulator.solve import Evaluation, Sizes, Solution, SolveError, sizes_of, solve
from simulator.truth import simulate_with_controls
from tests.simulator.toys import ToyFleet, fleet

OBJECTIVES = [parse("orders.latency.p99 < 5.2 s"), parse("lost == 0")]


def answer(guess: int, step: int = 1) -> Solution:
    return solve(Laboratory(fleet), ToyFleet(), Sizes("agents", guess, step), OBJECTIVES, seed=4)


@pytest.mark.parametrize("guess", [1, 9, 10, 25])
def test_solve_finds_the_least_size_from_any_guess_and_has_simulated_its_neighbour(guess: int) -> None:
    assert servers_for(8.0, 1.0, 5.2, 0.99) == 10
    assert sojourn_tail(9, 8.0, 1.0, 5.2) > 0.02
    found = answer(guess)
    assert found.agents == 10
    assert found.neighbour is not None
    assert (found.neighbour.agents, found.neighbour.is_met) == (9, False)
    met = {evaluation.agents: evaluation.is_met for evaluation in found.evaluated}
    assert met[10]
    assert len(met) == len(found.evaluated)  # no size twice
    assert found.jobs == sum(len(evaluation.series.outcomes) for evaluation in found.evaluated) * 20_000


def test_solve_goes_in_steps_of_the_zones() -> None:
    found = answer(10, step=3)
    assert found.agents == 12
    assert found.neighbour is not None
    assert found.neighbour.agents == 9


def test_solve_says_that_a_size_is_unstable() -> None:
    found = answer(10, step=5)
    assert found.agents == 10
    assert found.neighbour is not None
    assert found.neighbour.as_json() | {"replications": 0} == {
        "n": 5,
        "p99_s": None,
        "half_width": None,
        "met": False,
        "unstable": True,
        "replications": 0,
        "objectives": [],
    }


def test_solve_answers_the_first_step_when_one_is_enough() -> None:
    easy = solve(Laboratory(fleet), ToyFleet(rate=0.01, jobs=200), Sizes("agents", 3), OBJECTIVES[1:], seed=1)
    assert easy.agents == 1
    assert easy.neighbour is None


def test_solve_refuses_what_has_no_answer() -> None:
    laboratory = Laboratory(fleet)
    with pytest.raises(SolveError, match="no objectives"):
        solve(laboratory, ToyFleet(), Sizes("agents", 1), [], seed=1)
    impossible = [parse("orders.latency.p99 < 1 s")]
    with pytest.raises(SolveError, match=r"no fleet up to \d+ agents meets the objectives: orders.latency.p99 is"):
        solve(laboratory, ToyFleet(jobs=2000), Sizes("agents", 12, 1, 20), impossible, seed=1)
    with pytest.raises(ObjectiveError, match="names nothing"):
        solve(laboratory, ToyFleet(jobs=100), Sizes("agents", 12), [parse("order.p99 < 1 s")], seed=1)


def sizing(run_s: int = 30) -> Scenario:
    """The library's question, for half a minute."""
    with as_file(files("simulator") / "scenarios" / "sizing.yaml") as path:
        return load(path).changed({"horizon.settle": "20 s", "horizon.run": f"{run_s} s"})


def test_sizes_begin_where_erlang_would_and_know_which_have_no_slot_spare() -> None:
    scenario = sizing()
    objectives = [parse(text) for text in scenario.objectives]
    assert sizes_of(scenario, "erp", objectives, equal=True) == Sizes("groups.erp.agents.count", 18, 3, full=17)
    assert sizes_of(scenario, "erp", objectives, equal=False) == Sizes("groups.erp.agents.count", 17, 1, full=16)


@pytest.mark.slow
def test_one_zone_of_three_down_takes_eighteen_agents_with_equal_zones_and_seventeen_without() -> None:
    scenario, known = sizing(), dict[int, Evaluation]()
    objectives = [parse(text) for text in scenario.objectives]
    answers = {}
    for equal in (True, False):
        sizes = sizes_of(scenario, "erp", objectives, equal=equal)
        answers[equal] = solve(Laboratory(simulate_with_controls), scenario, sizes, objectives, seed=7, known=known)
    assert {equal: found.agents for equal, found in answers.items()} == {True: 18, False: 17}
    unstable = [found.neighbour for found in answers.values() if found.neighbour is not None]
    assert [(one.agents, one.is_unstable, len(one.series.outcomes)) for one in unstable] == [
        (15, True, 2),
        (16, True, 2),
    ]
    assert all("no slot spare" in one.instability for one in unstable)
    assert set(known) == {15, 16, 17, 18}
