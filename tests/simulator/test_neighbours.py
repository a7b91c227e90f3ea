"""Queues whose answer is known: their formulas against the truth table, and against what the same queue does."""

import numpy as np
import pytest

from simulator import neighbours
from simulator.truth_table import read_table

TRUTH = {case.id: case.truth for case in read_table().cases}


def work(rate: float, mean_s: float, jobs: int, seed: int = 1) -> tuple[neighbours.Floats, neighbours.Floats]:
    generator = np.random.Generator(np.random.PCG64DXSM(seed))
    return np.cumsum(generator.exponential(1 / rate, jobs)), generator.exponential(mean_s, jobs)


def test_formulas_are_those_of_the_truth_table_where_the_neighbour_is_the_case_itself() -> None:
    many = neighbours.many_servers(10, 8.0, 1.0)
    assert (many.waits, many.wait) == pytest.approx((TRUTH["Q02"]["p_wait"], TRUTH["Q02"]["wait_mean"]))
    limits = neighbours.tail_limits_s(10, 8.0, 1.0)
    assert limits == pytest.approx((TRUTH["Q02"]["sojourn_p95"], TRUTH["Q02"]["sojourn_p99"]))
    assert neighbours.batch_sojourn_s(10, 0.8, 10, 1.0) == pytest.approx(TRUTH["Q16"]["sojourn_mean"])
    assert neighbours.waits_by_level(5, [1.0, 3.0], 1.0) == pytest.approx(TRUTH["Q14"]["wait_mean_by_priority"])
    assert neighbours.in_turn(10, 8.0, 1.0).sojourn == pytest.approx(TRUTH["P02"]["sojourn_mean"])
    assert neighbours.in_turn_limits_s(10, 8.0, 1.0)[1] == pytest.approx(TRUTH["P02"]["sojourn_p99"])
    mixed = neighbours.mixed_wait_s(
        10, 9.0, TRUTH["Q12"]["h2_p"], 1 / TRUTH["Q12"]["h2_rate1"], 1 / TRUTH["Q12"]["h2_rate2"]
    )
    assert mixed == pytest.approx(TRUTH["Q12"]["wait_mean"], rel=1e-5)
    assert neighbours.mixed_wait_s(10, 8.0, 0.3, 1.0, 1.0) == pytest.approx(TRUTH["Q02"]["wait_mean"], rel=1e-6)
    day = neighbours.endless(100.0, 0.5, 3600.0, 30.0)
    assert tuple(day) == pytest.approx([TRUTH["Q19"][name] for name in ("busy_mean", "busy_peak", "lag_s")])
    assert 5.0 / neighbours.runs_expected(0.05, 3, 1) == pytest.approx(TRUTH["F13"]["mean_s_to_false_drop"])
    done, tried = neighbours.restarts_expected(1.0)
    assert 1 + 1 / done == pytest.approx(TRUTH["F07"]["attempts_mean"])
    assert tried / done == pytest.approx(TRUTH["F07"]["p_more_than_3_attempts"])


def test_queue_that_changes_by_chance_is_the_plain_one_where_nothing_changes() -> None:
    same = neighbours.modulated_sojourn_s(
        neighbours.in_rotation((20.0, 10.0)), np.array([0.8, 0.8]), np.array([1.0, 1.0])
    )
    assert same == pytest.approx(5.0)
    turn, up = neighbours.failing(3, 1e9, 1e-3)
    assert neighbours.modulated_sojourn_s(turn, np.full(4, 0.8), up / 3) == pytest.approx(5.0, rel=1e-3)


def test_one_server_and_many_give_the_same_waits_where_many_are_one() -> None:
    at_s, work_s = work(0.8, 1.0, 2_000)
    assert neighbours.waits_at(at_s, work_s, 1) == pytest.approx(neighbours.waits_of(at_s, work_s), abs=1e-9)
    assert neighbours.waits_in_turn(at_s, work_s, 1) == pytest.approx(neighbours.waits_of(at_s, work_s), abs=1e-9)
    in_order = neighbours.waits_in_order(at_s, work_s, np.zeros(len(at_s), np.int64), 1)
    assert in_order == pytest.approx(neighbours.waits_of(at_s, work_s), abs=1e-9)
    assert len(neighbours.waits_of(np.zeros(0), np.zeros(0))) == 0


def test_queues_have_the_means_of_their_formulas() -> None:
    at_s, work_s = work(4.0, 1.0, 150_000)
    seen = neighbours.seen_of(neighbours.waits_at(at_s, work_s, 6), work_s, neighbours.tail_limits_s(6, 4.0, 1.0))
    expected = neighbours.many_servers(6, 4.0, 1.0)
    assert seen.wait == pytest.approx(expected.wait, rel=0.08)
    assert seen.waits == pytest.approx(expected.waits, rel=0.04)
    assert seen.tails == pytest.approx(expected.tails, rel=0.10)
    levels = np.random.Generator(np.random.PCG64DXSM(2)).integers(0, 2, len(at_s))
    waits = neighbours.waits_in_order(at_s, work_s, levels, 6)
    means = [float(waits[levels == level].mean()) for level in (0, 1)]
    assert means == pytest.approx(neighbours.waits_by_level(6, [2.0, 2.0], 1.0), rel=0.10)
    turned = neighbours.waits_in_turn(at_s, work_s, 6)
    assert float(turned.mean()) == pytest.approx(neighbours.in_turn(6, 4.0, 1.0).wait, rel=0.08)


def test_swing_of_a_number_is_found() -> None:
    at_s = np.arange(0.0, 3600.0, 10.0)
    values = 7.0 + 2.0 * np.cos(2 * np.pi * (at_s - 900.0 - 30.0) / 3600.0)
    assert tuple(neighbours.swing_of(at_s, values, 3600.0, 900.0)) == pytest.approx((7.0, 9.0, 30.0))
    assert neighbours.busy_at(np.array([0.5, 1.5, 2.5]), np.array([0.0, 1.0]), np.array([2.0, 1.0])).tolist() == [
        1,
        2,
        0,
    ]


def test_runs_of_losses_are_counted_once_and_begin_anew() -> None:
    lost = np.array([1, 1, 1, 0, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1], bool)
    assert neighbours.runs_in(lost, 3) == 3
    luck = np.random.Generator(np.random.PCG64DXSM(3)).random(400_000) < 0.2
    assert neighbours.runs_in(luck, 3) == pytest.approx(neighbours.runs_expected(0.2, 3, len(luck)), rel=0.06)


def test_jobs_that_begin_again_are_counted_by_failures() -> None:
    assert neighbours.restarts_in(np.array([1.5, 0.5, 0.5, 2.5, 0.5, 1.5]), 1.0) == (4 / 6, 1 / 6)
    up_s = np.random.Generator(np.random.PCG64DXSM(4)).exponential(1.0, 100_000)
    assert neighbours.restarts_in(up_s, 1.0) == pytest.approx(neighbours.restarts_expected(1.0), rel=0.04)
