"""Intervals that cover what they promise, on series whose truth is known."""

from math import inf, sqrt

import numpy as np
import pytest

from simulator.statistics import (
    Interval,
    StoppingRule,
    controlled,
    deviation,
    growth_of,
    interval,
    paired,
    quantile_t,
    warm_up,
)


def covering(draws: "np.ndarray[tuple[int, int], np.dtype[np.float64]]", truth: float, level: float) -> float:
    """The share of rows whose interval holds the truth."""
    return sum(interval([float(v) for v in row], level).holds(truth) for row in draws) / len(draws)


@pytest.mark.parametrize("level", [0.90, 0.95, 0.99])
def test_interval_covers_the_mean_as_often_as_it_says(level: float) -> None:
    draws = np.random.Generator(np.random.PCG64DXSM(17)).normal(3.0, 2.0, (1000, 8))
    # Binomial: 1,000 intervals miss their level by less than four standard deviations.
    assert abs(covering(draws, 3.0, level) - level) < 4 * sqrt(level * (1 - level) / 1000)


def test_interval_covers_a_percentile_of_replications() -> None:
    generator = np.random.Generator(np.random.PCG64DXSM(5))
    days = np.quantile(generator.exponential(1.0, (1000, 10, 2000)), 0.95, axis=2)
    assert abs(covering(days, -float(np.log(0.05)), 0.95) - 0.95) < 0.03


def test_interval_that_forgets_the_small_number_would_not_cover() -> None:
    """The control of the tests above: a normal quantile in place of Student's is found out."""
    draws = np.random.Generator(np.random.PCG64DXSM(17)).normal(3.0, 2.0, (1000, 4))
    too_narrow = 1.96 / quantile_t(0.95, 3)
    covered = 0
    for row in draws:
        seen = interval([float(value) for value in row])
        covered += Interval(seen.mean, seen.half_width * too_narrow, seen.n).holds(3.0)
    assert covered / 1000 < 0.93


def test_interval_is_the_textbook_one() -> None:
    seen = interval([1.0, 2.0, 3.0, 4.0])
    assert seen.mean == 2.5
    assert seen.half_width == pytest.approx(3.182446 * sqrt(5 / 3) / 2, rel=1e-6)


def test_interval_of_one_replication_is_infinite_and_of_equal_ones_has_no_width() -> None:
    assert interval([0.1]).half_width == inf
    assert not interval([0.1]).is_precise(0.5)
    assert interval([0.1, 0.1, 0.1]) == Interval(0.1, 0.0, 3)
    assert interval([0.0, 0.0]).is_precise(0.05)
    with pytest.raises(ValueError, match="at least one"):
        interval([])


def test_interval_is_precise_beside_a_bound_that_is_far_away() -> None:
    assert not Interval(0.1, 0.02, 5).is_precise(0.05)
    assert Interval(0.1, 0.02, 5).is_precise(0.05, scale=2.0)


def test_paired_difference_is_narrow_when_the_days_are_the_same() -> None:
    generator = np.random.Generator(np.random.PCG64DXSM(2))
    days = [float(day) for day in generator.normal(10.0, 3.0, 20)]
    later = [day + 0.5 + float(generator.normal(0.0, 0.05)) for day in days]
    difference = paired(days, later)
    assert difference.low > 0.4
    assert difference.high < 0.6
    assert interval(days).half_width > 10 * difference.half_width
    with pytest.raises(ValueError, match="zip"):
        paired(days, later[1:])


def test_controls_narrow_the_interval_and_leave_the_mean_where_it_is() -> None:
    generator = np.random.Generator(np.random.PCG64DXSM(8))
    covered, narrower = 0, 0
    for _ in range(400):
        control = generator.exponential(2.0, 20)
        values = 5.0 + 3.0 * (control - 2.0) + generator.normal(0.0, 0.5, 20)
        seen = controlled(values.tolist(), [control.tolist()], [2.0])
        covered += seen.holds(5.0)
        narrower += seen.half_width < 0.5 * interval(values.tolist()).half_width
    assert abs(covered / 400 - 0.95) < 0.04
    assert narrower == 400


def test_controls_that_cannot_help_change_nothing() -> None:
    values = [1.0, 2.0, 4.0, 3.0]
    assert controlled(values, [[7.0] * 4], [7.0]) == interval(values)
    assert controlled(values[:2], [[1.0, 2.0]], [1.5]) == interval(values[:2])
    assert controlled([2.0] * 4, [values], [2.5]) == Interval(2.0, 0.0, 4)


def test_deviation_is_covered_by_its_interval() -> None:
    draws = np.random.Generator(np.random.PCG64DXSM(12)).normal(0.0, 3.0, (400, 60))
    assert sum(deviation(row.tolist()).holds(3.0) for row in draws) / 400 > 0.90
    with pytest.raises(ValueError, match="at least three"):
        deviation([1.0, 2.0])


def test_warm_up_cuts_where_the_start_has_died_away() -> None:
    generator = np.random.Generator(np.random.PCG64DXSM(3))
    level = 50.0
    series = []
    for _ in range(2000):
        level = 0.98 * level + float(generator.normal(0.0, 1.0))
        series.append(level)
    cut = warm_up(series)
    assert 50 <= cut <= 400  # the start has fallen to 1/e after 50 observations, to the noise after 115
    assert warm_up([value + 1e7 for value in series]) == cut


def test_warm_up_leaves_nothing_of_a_run_that_never_settles() -> None:
    assert warm_up([float(number) for number in range(1000)]) == 1000
    assert warm_up([1.0, 2.0, 3.0]) == 3


def test_warm_up_leaves_a_settled_run_alone() -> None:
    generator = np.random.Generator(np.random.PCG64DXSM(4))
    assert warm_up([float(value) for value in generator.normal(5.0, 1.0, 1000)]) <= 100


def test_rule_stops_only_when_precision_has_stayed() -> None:
    rule = StoppingRule(0.05, at_least=3, at_most=50)
    steady = [10.0, 10.1, 9.9, 10.0, 10.1, 9.9, 10.0]
    assert not rule.is_enough([(steady[:5], 0.0)])
    assert rule.is_enough([(steady[:6], 0.0)])
    jumpy = [*steady[:5], 25.0]
    assert not rule.is_enough([(jumpy, 0.0)])
    assert not rule.is_enough([(steady, 0.0), ([1.0, 2.0, 1.0, 3.0, 1.0, 2.0, 9.0], 0.0)])


def test_rule_stops_at_its_bounds() -> None:
    rule = StoppingRule(0.001, at_least=3, at_most=8)
    rough = [1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0]
    assert not rule.is_enough([(rough, 0.0)])
    assert rule.is_enough([([*rough, 6.0], 0.0)])
    assert rule.is_enough([])


def test_rule_that_stops_early_still_covers() -> None:
    """Looking after every replication must not spoil the interval by much: that is what `stays` is for."""
    generator = np.random.Generator(np.random.PCG64DXSM(23))
    rule = StoppingRule(0.10, at_least=5, at_most=200)
    covered = 0
    for _ in range(300):
        values: list[float] = []
        while len(values) < rule.at_least or not rule.is_enough([(values, 0.0)]):
            values.append(float(generator.normal(1.0, 0.25)))
        covered += interval(values).holds(1.0)
    assert covered / 300 > 0.90


def queue_backlog(rate: float, seconds: float, seed: int) -> tuple[float, int, float]:
    """An M/M/1 queue of one job a second: (growth, finished, seconds)."""
    generator = np.random.Generator(np.random.PCG64DXSM(seed))
    now, backlog, finished = 0.0, 0, 0
    while now < seconds:
        total = rate + (1.0 if backlog else 0.0)
        now += float(generator.exponential(1 / total))
        if generator.random() < rate / total:
            backlog += 1
        else:
            backlog, finished = backlog - 1, finished + 1
    return backlog / seconds, finished, seconds


def test_growth_refuses_an_overloaded_queue_and_says_how_fast_it_grows() -> None:
    growth = growth_of([queue_backlog(1.3, 2000.0, seed) for seed in range(4)])
    assert growth.is_unstable
    assert growth.per_s == pytest.approx(0.3, rel=0.25)
    assert str(growth).startswith("UNSTABLE: backlog grows 0.")


def test_growth_accepts_a_busy_queue() -> None:
    for seed in range(10):
        assert not growth_of([queue_backlog(0.9, 2000.0, seed)]).is_unstable
    assert not growth_of([(0.0, 0, 0.0)]).is_unstable


def test_growth_takes_replications_that_differ_by_bursts_at_their_word() -> None:
    """Half an hour at 7.6 jobs a second with bursts of minutes: now and then a replication ends in one."""
    ends = [5.43, 0.01, 4.1, -0.02, 0.6, 0.0, 2.7, -0.4]
    for n in range(2, len(ends) + 1):
        assert not growth_of([(growth, 13_700, 1_800.0) for growth in ends[:n]]).is_unstable
    # Runs that begin in the quiet end in a burst more often than they begin in one: however many, the mean is above 0.
    many = growth_of([(growth, 13_700, 1_800.0) for growth in ends * 15])
    assert many.low_per_s > 1
    assert not many.is_unstable
    overloaded = growth_of([(growth, 13_700, 1_800.0) for growth in (2.1, 3.4, 2.8, 1.9)])
    assert overloaded.spread_per_s > 3 * overloaded.noise_per_s
    assert overloaded.is_unstable
