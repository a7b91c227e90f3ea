"""Costs are found again from what phases of different mixtures spent; commit times from a histogram."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulator.calibrate.costs import fitted, quantiles_of_buckets

PRIOR = {"turn": 60e-6, "job": 40e-6, "frame": 90e-6}
MIXTURES = (
    {"turn": 100.0, "job": 20_000.0},
    {"turn": 5_000.0, "job": 5_000.0, "frame": 10_000.0},
    {"turn": 9_000.0, "frame": 2_000.0},
)


def spent(mixture: dict[str, float], costs: dict[str, float]) -> float:
    return sum(count * costs[kind] for kind, count in mixture.items())


def test_costs_of_phases_are_found_again_whatever_the_prior_says() -> None:
    costs = {"turn": 120e-6, "job": 30e-6, "frame": 200e-6}

    found = fitted([(mixture, spent(mixture, costs)) for mixture in MIXTURES], PRIOR)

    assert found == pytest.approx(costs, rel=0.05)


def test_cost_of_which_no_phase_tells_is_the_prior() -> None:
    found = fitted([({"turn": 1_000.0}, 0.2)], PRIOR)

    assert found["turn"] == pytest.approx(200e-6, rel=0.05)
    assert found["frame"] == pytest.approx(PRIOR["frame"], rel=1e-6)


def test_no_cost_is_negative_when_a_phase_spent_less_than_it_should() -> None:
    found = fitted([({"turn": 1_000.0}, 0.2), ({"turn": 1_000.0, "job": 1_000.0}, 0.1)], PRIOR)

    assert min(found.values()) >= 0


def test_quantiles_of_a_histogram_lie_in_its_buckets_and_have_its_mean() -> None:
    drawn = np.random.default_rng(1).lognormal(math.log(0.002), 0.8, 20_000)
    bounds = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, math.inf]
    buckets = {bound: float((drawn <= bound).sum()) for bound in bounds}

    found = quantiles_of_buckets(buckets, float(drawn.sum()))

    assert float(np.trapezoid(found, dx=0.01)) == pytest.approx(float(drawn.mean()), rel=1e-6)
    assert float(found[50]) == pytest.approx(float(np.median(drawn)), rel=0.15)
    assert float(found[95]) == pytest.approx(float(np.quantile(drawn, 0.95)), rel=0.25)
    assert list(found) == sorted(found)
