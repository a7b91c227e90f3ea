"""Two scenarios day by day."""

from math import inf

import pytest

from simulator.compare import Comparison, Difference, compare, sentence
from simulator.experiments import Laboratory, Outcome, Plan, Question, Series, UnstableError
from simulator.statistics import paired
from tests.simulator.toys import ToyScenario, queue


def test_compare_sees_a_small_change_that_two_intervals_would_hide() -> None:
    pair = compare(
        Laboratory(queue), Question(ToyScenario()), Question(ToyScenario(), changes={"speed": 1.02}), Plan(12)
    )
    mean = next(difference for difference in pair.differences() if difference.figure == "orders.latency.mean")
    assert mean.first.low < mean.second.high  # side by side they overlap
    assert mean.is_clear
    assert mean.difference.holds(1 / (1.02 - 0.5) - 1 / 0.5)
    assert "orders.latency.mean" in sentence(pair.differences(), "A", "B")


def test_compare_of_a_scenario_with_itself_differs_in_nothing() -> None:
    pair = compare(Laboratory(queue), Question(ToyScenario()), Question(ToyScenario()), Plan(4))
    assert all(not difference.is_clear and difference.difference.mean == 0 for difference in pair.differences())
    assert sentence(pair.differences(), "A", "B") == "B does not differ from A in any figure by more than chance."


def drains(*values: float) -> Series:
    """One figure, which is infinite where a backlog never drained."""
    outcomes = [Outcome("", {"backlog.drain": value}, 1, 1.0, 0.0) for value in values]
    return Series(Question(ToyScenario()), tuple(outcomes))


def test_infinite_figures_differ_when_they_are_not_the_same() -> None:
    def difference(first: Series, second: Series) -> Difference:
        return Comparison(first, second).differences()[0]

    same = difference(drains(inf, inf, inf), drains(inf, inf, inf))
    assert (same.is_clear, same.difference.mean, same.share) == (False, 0.0, None)
    assert difference(drains(inf, inf, 3.0), drains(inf, inf, 3.0)).is_clear is False
    assert difference(drains(inf, 2.0, 3.0), drains(4.0, 2.0, 3.0)).is_clear is False  # one day is no rule
    never = difference(drains(5.0, 6.0, 7.0), drains(inf, inf, inf))
    assert never.is_clear
    assert Comparison(drains(inf, 2.0), drains(inf, 3.0)).by_day() == {"backlog.drain": [0.0, 1.0]}
    assert sentence([never], "A", "B").endswith("backlog.drain 6 s -> never.")


def test_compare_seldom_calls_chance_a_change() -> None:
    """Two halves of nothing: fleets that differ only in the days that they saw are rarely told apart."""
    laboratory = Laboratory(queue)
    false = 0
    for seed in range(40):
        first = laboratory.replicate(Question(ToyScenario(jobs=200), seed=seed), Plan(6))
        second = laboratory.replicate(Question(ToyScenario(jobs=200), seed=1000 + seed), Plan(6))
        false += not paired(first.values("orders.latency.mean"), second.values("orders.latency.mean")).holds(0.0)
    assert false <= 6  # 2 expected of 40; more than 6 happens once in 300 sets of seeds


def test_compare_refuses_different_seeds_and_unstable_scenarios() -> None:
    laboratory = Laboratory(queue)
    with pytest.raises(ValueError, match="one seed, not 1 and 2"):
        compare(laboratory, Question(ToyScenario(), 1), Question(ToyScenario(), 2), Plan(2))
    pair = compare(laboratory, Question(ToyScenario()), Question(ToyScenario(rate=1.5)), Plan(2))
    with pytest.raises(UnstableError):
        pair.differences()
    with pytest.raises(KeyboardInterrupt):
        compare(laboratory, Question(ToyScenario(interrupt_at=1)), Question(ToyScenario()), Plan(3))
