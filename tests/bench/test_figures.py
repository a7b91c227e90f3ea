from __future__ import annotations

import pytest

from bench.figures import figure, jain, percentile


def test_figure_is_the_median_and_says_how_far_the_rounds_lie_apart() -> None:
    assert figure([3.0, 1.0, 2.5], "s") == {"value": 2.5, "unit": "s", "n": 3, "spread": 2.0}


def test_figure_has_no_spread_when_there_was_one_round() -> None:
    assert figure([3.0], "s")["spread"] is None


def test_figure_says_that_nothing_was_measured_when_there_was_no_round() -> None:
    assert figure([], "s") == {"value": None, "unit": "s", "n": 0, "spread": None}


@pytest.mark.parametrize(("counts", "index"), [([5, 5, 5], 1.0), ([9, 0, 0], 1 / 3), ([0, 0], 0.0)])
def test_jain_is_one_when_all_have_the_same(counts: list[int], index: float) -> None:
    assert jain(counts) == pytest.approx(index)


@pytest.mark.parametrize(("share", "value"), [(0.0, 1), (0.5, 51), (0.99, 100), (1.0, 100)])
def test_percentile_is_a_value_that_was_measured(share: float, value: int) -> None:
    assert percentile(range(1, 101), share) == value
