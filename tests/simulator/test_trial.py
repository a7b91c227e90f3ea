"""How the figures of a case are read off its replications."""

from collections.abc import Sequence
from math import exp, log

import numpy as np
import pytest

from simulator.experiments import Outcome
from simulator.trial import (
    Evidence,
    ExplainedDeviation,
    InverseMean,
    Mean,
    Quantile,
    RootMeanSquare,
    above,
    twin_of,
)


def evidence(columns: dict[str, list[float]], controls: dict[str, float], variances: dict[str, float]) -> Evidence:
    rows = zip(*columns.values(), strict=True)
    outcomes = [Outcome("", dict(zip(columns, row, strict=True)), 1, 1.0, 0.0) for row in rows]
    return Evidence(outcomes, controls, 0.90, variances)


def draws(seed: int, n: int, sd: float) -> list[float]:
    return list(np.random.Generator(np.random.PCG64DXSM(seed)).normal(0.0, sd, n).tolist())


def test_mean_is_freed_of_the_chance_that_its_control_shares() -> None:
    luck, rest = draws(1, 30, 1.0), draws(2, 30, 0.1)
    seen = evidence(
        {"work.wait.mean": [5 + a + b for a, b in zip(luck, rest, strict=True)], "control.neighbour.wait": luck},
        {"control.neighbour.wait": 0.0},
        {},
    )
    assert Mean("work.wait.mean")(seen).half_width < 0.05
    assert Mean("work.wait.mean")(seen).holds(5.0)
    assert Mean("work.wait.mean", shift=-5.0, factor=2.0)(seen).mean == pytest.approx(0.0, abs=0.1)


def test_control_that_is_the_figure_itself_is_not_used() -> None:
    luck = draws(1, 30, 1.0)
    seen = evidence({"work.rate": [8 + a for a in luck], "control.work.rate": luck}, {"control.work.rate": 0.0}, {})
    assert Mean("work.rate")(seen).half_width > 0.2


def test_control_that_is_like_the_figure_goes_first() -> None:
    known = {"control.one-server": 0.0, "control.neighbour.wait": 0.0, "control.a.neighbour.wait": 0.0}
    assert twin_of("a.wait.mean", known) == "control.a.neighbour.wait"
    assert twin_of("b.wait.mean", known) == "control.neighbour.wait"
    assert twin_of("backlog.mean", known) == "control.neighbour.wait"
    assert twin_of("b.attempts.mean", known) == ""


def test_mean_time_between_events_is_not_too_long_where_there_are_few() -> None:
    generator = np.random.Generator(np.random.PCG64DXSM(5))
    spells = [1000.0 / count for count in generator.poisson(10.0, 2_000).tolist() if count]
    seen = evidence({"up": spells}, {}, {})
    assert InverseMean("up")(seen).mean == pytest.approx(100.0, rel=0.02)
    assert Mean("up")(seen).mean > 108.0


def test_deviation_is_exact_where_what_varies_is_known() -> None:
    luck, rest = draws(3, 16, 2.0), draws(4, 16, 0.2)
    columns = {"d": [3 * a + b for a, b in zip(luck, rest, strict=True)], "control.work": luck}
    seen = ExplainedDeviation("d")(evidence(columns, {}, {"control.work": 4.0}))
    plain = ExplainedDeviation("d")(evidence(columns, {}, {}))
    assert seen.mean == pytest.approx(6.0, rel=0.05)
    assert seen.half_width < plain.half_width / 3
    assert seen.holds(6.0)


def test_deviations_are_averaged_by_their_squares() -> None:
    assert RootMeanSquare("sd")(evidence({"sd": [3.0, 4.0, 3.0, 4.0]}, {}, {})).mean == pytest.approx(12.5**0.5)


def tails(day: float, limits_s: Sequence[float]) -> Outcome:
    """A day on which sojourns are exponential, and so many times as long as they should be."""
    return Outcome("", {"v": 9.9, **{above("v", limit): exp(-limit / day) for limit in limits_s}}, 10, 1.0, 0.0)


def test_quantile_is_where_the_mean_share_above_is_what_it_should_be() -> None:
    limits_s = [4.0 * 1.02**step for step in range(-10, 11)]
    seen = Quantile("v", 0.01)(Evidence([tails(day, limits_s) for day in (0.95, 1.0, 1.05)], {}, 0.9))
    shares = [sum(exp(-limit / day) for day in (0.95, 1.0, 1.05)) / 3 for limit in (seen.mean - 0.01, seen.mean + 0.01)]
    assert shares[0] > 0.01 > shares[1]
    assert seen.holds(-log(0.01))
    assert 0.05 < seen.half_width < 1


@pytest.mark.parametrize("limits_s", [[], [1.0, 2.0], [9.0, 9.5]])
def test_quantile_that_no_limit_is_near_is_the_mean_of_the_days(limits_s: list[float]) -> None:
    seen = Quantile("v", 0.01)(Evidence([tails(day, limits_s) for day in (1.0, 1.01, 0.99)], {}, 0.9))
    assert (seen.mean, seen.half_width) == (9.9, 0.0)
