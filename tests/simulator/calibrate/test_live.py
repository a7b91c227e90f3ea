"""What is measured becomes a profile: the simulation of the measured run has the means that were measured."""

from __future__ import annotations

import numpy as np
import pytest

from simulator.calibrate.counters import Counters
from simulator.calibrate.live import Measured, costs_of, one_way_seconds, profile_of, scenario_of, ways_of
from simulator.emulate.play import EmulationError, Played
from simulator.emulate.playable import as_simulated
from simulator.emulate.simulated import play
from simulator.emulate.stage import Starts
from simulator.profile import parts_of

SLOW_S = 0.015
"""What the machine of these tests adds to each job."""


def counters(loop_s: float, turns: float, submissions: float, reports: float, frames: float) -> Counters:
    buckets = {0.001: turns / 2, 0.0025: turns, float("inf"): turns}
    return Counters(loop_s, turns, turns + submissions + reports, submissions, 0, frames, turns, turns * 0.001, buckets)


def measured() -> Measured:
    """A real run of 50 jobs a second, made up from a simulated one: each job took so much longer."""
    seen = play(scenario_of(50, 10), 5)
    for job in seen.jobs:
        job.accepted_s += SLOW_S / 3
        job.finished_s += SLOW_S
    phases = {
        "idle": (counters(0.002, 4, 0, 0, 8), 2.0),
        "steady": (counters(1.2, 3_000, 500, 1_500, 2_000), 12.0),
        "batches": (counters(0.2, 30, 2_048, 0, 0), 1.0),
        "singles": (counters(0.3, 300, 300, 0, 0), 2.0),
        "drained": (counters(0.4, 150, 0, 6_000, 300), 2.0),
    }
    return Measured(Starts(1.1, 0.7), phases, seen, np.full(100, 50e-6))


def test_simulation_with_the_profile_has_the_means_of_the_run_that_was_measured() -> None:
    scenario, run = scenario_of(50, 10), measured()

    profile = profile_of(scenario, 50, 5, run)

    wanted = [float(way.mean()) for way in ways_of(scenario, run.played)]
    found = [float(way.mean()) for way in ways_of(scenario, play(as_simulated(scenario, parts_of(profile)), 5))]
    assert found == pytest.approx(wanted, rel=0.03)
    assert (profile.broker_start, profile.agent_start, profile.jobs) == (1.1, 0.7, len(run.played.jobs))
    assert profile.network.empirical is not None


def test_costs_add_up_to_what_the_loop_spent() -> None:
    phases = measured().phases
    costs = costs_of(phases)

    steady, _ = phases["steady"]
    spent_s = (
        steady.turns * costs.turn
        + steady.submissions * costs.submission
        + (steady.events - steady.turns - steady.submissions) * costs.report
        + steady.frames * costs.frame
    )
    assert spent_s == pytest.approx(steady.loop_s, rel=0.3)


def test_run_in_which_nothing_succeeded_is_no_measurement() -> None:
    with pytest.raises(EmulationError, match="nothing was measured"):
        ways_of(scenario_of(50, 10), Played())


def test_loopback_takes_time() -> None:
    assert one_way_seconds(20).min() > 0
