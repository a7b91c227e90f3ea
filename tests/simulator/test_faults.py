"""Faults of lines, store and clocks, carried out in small worlds: no job is lost, and what they cost is seen."""

from typing import Any

import pytest

from simulator.recorder import Run
from tests.simulator.worlds import play


def fault(*faults: dict[str, Any], **parts: Any) -> Run:
    """A minute in which this happens; whatever it is, no job is lost and all of them end."""
    seen = play(faults=list(faults), **parts)
    assert seen.figures["lost"] == seen.figures["unfinished"] == 0
    return seen


def test_loss_makes_frames_late_and_loses_no_job() -> None:
    plain = fault(duration="100 ms")
    lossy = fault({"at": "1 s", "loss": "all", "share": "5 %", "for": "68 s"}, duration="100 ms")
    # Three frames of a job cross the line; each has one chance in twenty to be 200 ms late or more.
    more = lossy.figures["orders.latency.mean"] - plain.figures["orders.latency.mean"]
    assert 0.005 < more < 0.1
    assert plain.figures["orders.latency.p95"] < 0.2 < lossy.figures["orders.latency.p99"]


@pytest.mark.parametrize(("way", "ways"), [("to-broker", 1), ("to-agents", 1), ("both", 2)])
def test_delay_of_one_way_costs_half_of_that_of_both(way: str, ways: int) -> None:
    delay = {"at": "1 s", "delay": "all", "by": "500 ms", "for": "68 s", "way": way}
    slow = fault(delay, duration="100 ms")
    assert slow.figures["orders.latency.p50"] == pytest.approx(0.11 + ways * 0.5, abs=0.08)


@pytest.mark.parametrize("way", ["to-broker", "to-agents"])
def test_loss_of_one_way_is_over_when_it_is_over(way: str) -> None:
    seen = fault({"at": "20 s", "loss": "zone-b", "share": "50 %", "for": "20 s", "way": way}, duration="100 ms")
    before, during, after = (phase.figures["orders.latency.p99"] for phase in seen.phases)
    assert during > before + 0.5
    assert after < before + 0.2


def test_store_outage_ends_the_broker_and_costs_what_a_crash_of_that_length_costs() -> None:
    outage = fault({"at": "30 s", "store-outage": True, "for": "5 s"})
    crash = fault({"at": "30 s", "broker-crash": True, "for": "5 s"})
    assert outage.figures["reconnect.count"] == crash.figures["reconnect.count"] == 6
    assert outage.figures["backlog.peak"] == pytest.approx(crash.figures["backlog.peak"], abs=20)
    assert outage.figures["overlapped"] == 0


def test_store_outage_passes_unseen_when_nobody_commits() -> None:
    outage = {"at": "30 s", "store-outage": True, "for": "5 s"}
    seen = fault(outage, arrivals={"poisson": "0/s"}, settle="29 s", run="10 s")
    assert seen.figures["reconnect.count"] == 0


def test_agent_gives_back_the_slots_of_jobs_that_ended_while_the_broker_was_away() -> None:
    crash = {"at": "30 s", "broker-crash": True, "for": "5 s"}
    seen = fault(crash, agents={"count": 1, "slots": 2}, arrivals={"poisson": "2/s"}, duration="500 ms")
    assert seen.figures["orders.succeeded"] == seen.figures["orders.arrived"]
    assert seen.phases[-1].figures["orders.succeeded"] > 50


def test_drain_ends_when_the_broker_is_back_if_it_was_away_then() -> None:
    seen = fault(
        {"at": "15 s", "drain": "all", "for": "10 s"},
        {"at": "20 s", "broker-crash": True, "for": "10 s"},
        agents={"count": 2, "slots": 8},
    )
    assert seen.phases[-1].figures["orders.succeeded"] > 200


def test_clock_that_jumped_ahead_is_felt_by_the_next_broker_only() -> None:
    jump = {"at": "15 s", "clock-jump": "ahead", "by": "1 h"}
    crash = {"at": "40 s", "broker-crash": True, "for": "2 s"}
    # Two slots for twenty jobs a second: many wait, and may do so for ten minutes.
    parts: dict[str, Any] = {
        "agents": {"count": 1, "slots": 2},
        "work": {"start-within": "10 min"},
        "run": "50 s",
    }
    plain, jumped = fault(crash, **parts), fault(jump, crash, **parts)
    assert plain.figures["orders.expired"] == 0
    assert 300 < jumped.figures["orders.expired"] < 900
    assert jumped.phases[-1].figures["orders.succeeded"] > 0


def test_broker_whose_clock_is_far_behind_does_not_start_before_it_has_caught_up() -> None:
    crash = {"at": "30 s", "broker-crash": True, "for": "2 s"}
    far, near = (
        fault({"at": "15 s", "clock-jump": "behind", "by": by}, crash, duration="100 ms") for by in ("25 s", "4 s")
    )
    # Behind by 25 s, of which 5 s are forgiven; it died at 30 s.
    assert far.figures["orders.latency.max"] > 19.5
    assert near.figures["orders.latency.max"] < 15.0


def test_jump_back_after_a_jump_ahead_leaves_time_where_it_was() -> None:
    seen = fault(
        {"at": "12 s", "clock-jump": "ahead", "by": "1 h"},
        {"at": "20 s", "broker-crash": True, "for": "2 s"},
        {"at": "30 s", "clock-jump": "behind", "by": "1 h"},
        {"at": "31 s", "broker-crash": True, "for": "2 s"},
        horizon={"run": "60 s", "settle": "10 s", "finish": "2 h"},
    )
    # The second broker finds a store that was written an hour ahead, and waits for that.
    assert seen.figures["orders.latency.max"] > 3_000


@pytest.mark.parametrize(
    "passing",
    [
        {"at": "20 s", "hang": "erp/1", "for": "1 s"},
        {"at": "20 s", "partition": "erp/1", "for": "1 s"},
    ],
    ids=["hang", "partition"],
)
def test_agent_that_was_away_unnoticed_was_not_lost(passing: dict[str, Any]) -> None:
    failing = {"failure": 0.05, "attempts": 5}
    assert fault(passing, work=failing).figures["failover.detect.count"] == 0
    # What its stream breaks for much later is no consequence of it either.
    later = {"at": "50 s", "reconnect-herd": "erp/1", "for": "40 s"}
    assert fault(passing, later).figures["failover.decide.max"] < 30


def test_attempts_that_fail_while_an_agent_hears_nothing_are_no_failover() -> None:
    deaf = {"at": "20 s", "partition": "all", "way": "to-agents", "for": "1 s"}
    assert fault(deaf, work={"failure": 0.5, "attempts": 50, "backoff": "10 ms"}).figures["failover.detect.count"] == 0
