"""Histograms against the values that went into them."""

import numpy as np
import pytest

from simulator.histogram import Histogram


def of(values: "list[float] | np.ndarray[tuple[int], np.dtype[np.float64]]") -> Histogram:
    histogram = Histogram()
    histogram.add(np.asarray(values, np.float64))
    return histogram


def test_quantiles_are_those_of_the_values_to_well_within_a_bucket() -> None:
    values = np.random.default_rng(1).exponential(2.0, 200_000)
    seen = of(values)
    for share in (0.01, 0.5, 0.9, 0.99, 0.999):
        assert seen.quantile(share) == pytest.approx(np.quantile(values, share), rel=0.003)
    assert seen.mean == pytest.approx(values.mean())
    assert seen.most == values.max()
    assert seen.quantile(1.0) == pytest.approx(values.max())


def test_merged_histograms_are_as_one() -> None:
    values = np.random.default_rng(2).exponential(1.0, 3_000)
    whole, merged = of(values), of(values[:1_000]).merge([of(values[1_000:]), Histogram()])
    assert (whole.counts == merged.counts).all()
    assert (merged.count, merged.least, merged.most) == (whole.count, whole.least, whole.most)
    assert merged.total == pytest.approx(whole.total)


def test_histogram_of_nothing_and_of_zeros_is_zero() -> None:
    assert Histogram().quantile(0.99) == Histogram().mean == 0.0
    zeros = of([0.0, 0.0, 0.0, 5.0])
    assert zeros.quantile(0.5) == 0.0
    assert zeros.quantile(1.0) == pytest.approx(5.0)
    assert zeros.share_above(1.0) == 0.25


def test_share_above_is_right_to_far_less_than_a_bucket() -> None:
    values = np.random.default_rng(3).exponential(1.0, 100_000)
    seen = of(values)
    for limit in (0.5, 2.0, 2.005, 2.01, 2.015, 6.0):
        assert seen.share_above(limit) == pytest.approx((values > limit).mean(), abs=2e-4)
    assert (seen.share_above(0.0), seen.share_above(1e9)) == (1.0, 0.0)


def test_values_that_are_infinite_move_the_quantiles_and_are_the_last_of_them() -> None:
    seen = Histogram()
    seen.add(np.full(98, 0.5))
    assert seen.quantile(0.98, never=2) == pytest.approx(0.5, rel=0.01)
    assert seen.quantile(0.99, never=2) == float("inf")
    assert seen.quantile(0.99, never=0) == pytest.approx(0.5, rel=0.01)
    assert Histogram().quantile(0.5, never=1) == float("inf")
