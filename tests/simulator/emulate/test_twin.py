"""The twin error: two runs that are alike are within the bars, others are not; every fail-over is seen."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from simulator.courses import JobCourse
from simulator.emulate import simulated
from simulator.emulate.play import Played, dues_of
from simulator.emulate.twin import Twin, compare
from simulator.scenario import Scenario
from tests.meta.schemas import validate
from tests.simulator.worlds import scenario

KILL: dict[str, Any] = {"at": "30 s", "crash": "erp/2", "for": "10 s"}


@pytest.fixture(scope="module")
def whole() -> Scenario:
    return scenario(faults=[KILL], arrivals={"poisson": "40/s"}, agents={"count": 6, "slots": 6})


@pytest.fixture(scope="module")
def seen(whole: Scenario) -> Played:
    return simulated.play(whole, 3)


def twin_of(whole: Scenario, seen: Played, longer_s: float = 0.0, fewer: int = 0) -> Twin:
    """The simulation, beside itself with jobs that took so much longer, and so many fewer."""
    real = copy.deepcopy(seen)
    for job in real.jobs:
        job.finished_s += longer_s
    del real.jobs[: fewer or 0]
    return compare(whole, 3, real, seen, "another run")


def test_run_beside_itself_is_within_every_bar(whole: Scenario, seen: Played) -> None:
    twin = twin_of(whole, seen)

    assert twin.is_met
    assert {figure.error for figure in twin.figures.values()} == {0.0}
    validate("emulate", twin.as_json())


def test_latency_that_is_off_misses_its_bar_and_no_other(whole: Scenario, seen: Played) -> None:
    figures = twin_of(whole, seen, longer_s=0.04).figures

    assert figures["orders.latency.mean"].met is False
    assert figures["orders.latency.mean"].error == pytest.approx(-0.09, abs=0.02)
    assert figures["orders.throughput"].met is True
    assert figures["failover.detect.mean"].met is True


def test_throughput_that_is_off_misses_its_bar(whole: Scenario, seen: Played) -> None:
    assert twin_of(whole, seen, fewer=len(seen.jobs) // 4).figures["orders.throughput"].met is False


def test_failover_counts_from_the_loss_of_the_agent(whole: Scenario, seen: Played) -> None:
    figures = twin_of(whole, seen).figures

    cut = [job for job in seen.jobs if len(job.attempts) > 1]
    assert figures["failover.detect.mean"].real_n == len(cut) > 0
    assert {job.attempts[0].agent for job in cut} == {"erp-2"}
    assert figures["failover.detect.max"].real == pytest.approx(whole.broker.reconnect_grace, abs=0.1)
    assert figures["failover.restart.max"].real >= figures["failover.detect.max"].real


def test_run_on_a_machine_without_room_says_so(whole: Scenario, seen: Played) -> None:
    crowded = copy.deepcopy(seen)
    crowded.busy = 0.97

    twin = compare(whole, 3, crowded, seen, "another run")

    assert twin.as_json()["crowded"] is True
    assert "no room" in list(twin.lines())[-1]
    assert twin_of(whole, seen).is_crowded is False


def test_failover_that_is_off_by_less_than_two_tenths_of_a_second_is_met(whole: Scenario, seen: Played) -> None:
    later = copy.deepcopy(seen)
    for loss in later.losses:
        loss.lost_s += 0.15  # it was real so much later: everything after it took less
    assert compare(whole, 3, later, seen, "another run").figures["failover.detect.mean"].met is True
    for loss in later.losses:
        loss.lost_s += 0.5
    assert compare(whole, 3, later, seen, "another run").figures["failover.detect.mean"].met is False


@pytest.mark.parametrize("side", ["real", "simulated"])
def test_failovers_of_one_side_alone_miss_their_bar(whole: Scenario, seen: Played, side: str) -> None:
    without = copy.deepcopy(seen)
    without.losses.clear()
    sides = (seen, without) if side == "real" else (without, seen)

    twin = compare(whole, 3, *sides, "another run")

    figure = twin.figures["failover.detect.mean"]
    assert figure.met is False
    assert bool(figure.real_n) is (side == "real")
    assert not twin.is_met
    validate("emulate", twin.as_json())


def test_runs_in_which_nothing_succeeded_meet_no_bar(whole: Scenario, seen: Played) -> None:
    failed = copy.deepcopy(seen)
    failed.losses.clear()
    for job in failed.jobs:
        job.state = "failed"

    twin = compare(whole, 3, failed, failed, "another run")

    assert twin.figures["orders.latency.mean"].bar is None
    assert not twin.is_met
    validate("emulate", twin.as_json())


def test_jobs_that_are_submitted_are_those_of_the_simulation(whole: Scenario, seen: Played) -> None:
    dues = dues_of(whole, 3)

    def plain(job: JobCourse) -> tuple[float, float]:
        return job.due_s, job.duration_s

    assert [(due.at_us / 1e6, due.job.duration_us / 1e6) for due in dues] == [plain(job) for job in seen.jobs]
    assert len({due.job_id for due in dues}) == len(dues)
