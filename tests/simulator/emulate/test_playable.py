"""A scenario is played as it is, or refused with all that cannot be played."""

from __future__ import annotations

from typing import Any

import pytest

from broker.settings import load
from simulator.emulate.playable import NotPlayableError, as_simulated, check, settings_of
from simulator.incidents import Crash
from tests.simulator.worlds import scenario

CANNOT: list[tuple[dict[str, Any], str]] = [
    ({"fidelity": "exact"}, "fidelity exact"),
    ({"group": {"autoscale": {"least": 1, "most": 3}}}, "groups.erp.autoscale"),
    ({"agents": {"count": 2, "speed": 2}}, "speed 2"),
    ({"agents": {"count": 65}}, "65 agents"),
    ({"work": {"failure": "1 %"}}, "work.orders.failure"),
    ({"work": {"exclusive": True}}, "work.orders.exclusive"),
    ({"arrivals": {"closed": {"clients": 3, "think": "1 s"}}}, "work.orders.arrivals"),
    ({"faults": [{"at": "20 s", "partition": "erp/1", "for": "5 s"}]}, r"fault 1 \(partition erp/1\)"),
    ({"faults": [{"at": "20 s", "crash": "erp/1", "for": "5 s", "silent": True}]}, "silent"),
    ({"faults": [{"at": "20 s", "hang": "erp/1", "for": "5 s", "beats": True}]}, "a process that is stopped"),
    ({"faults": [{"random": "crash", "mttf": "1 h", "mttr": "1 min"}]}, "chance is for the simulation"),
    ({"network": {"loss": "1 %"}}, "network.loss"),
    ({"run": "7 h"}, "horizon"),
]
CAN: list[dict[str, Any]] = [
    {"at": "20 s", "crash": "erp/2", "for": "5 s"},
    {"at": "20 s", "hang": "erp/2", "for": "5 s"},
    {"at": "20 s", "drain": "erp/1-2", "for": "5 s"},
    {"at": "20 s", "zone-down": "zone-b", "for": "5 s"},
    {"at": "20 s", "rolling-upgrade": "erp", "batch": 2, "each": "3 s"},
    {"at": "20 s", "broker-crash": True, "for": "5 s"},
]


@pytest.mark.parametrize(("parts", "words"), CANNOT)
def test_what_cannot_be_played_is_refused_by_name(parts: dict[str, Any], words: str) -> None:
    with pytest.raises(NotPlayableError, match=words):
        check(scenario(**parts))


def test_everything_that_cannot_be_played_is_named_at_once() -> None:
    with pytest.raises(NotPlayableError) as refusal:
        check(scenario(work={"failure": "1 %", "redraw": True}, network={"loss": "1 %"}))

    assert len(str(refusal.value).splitlines()) == 3


@pytest.mark.parametrize("fault", CAN)
def test_what_can_be_done_to_processes_is_played(fault: dict[str, Any]) -> None:
    check(scenario(faults=[fault]))


def test_simulation_of_what_is_played_has_one_loopback_and_one_operation() -> None:
    whole = scenario(faults=[{"at": "20 s", "zone-down": "zone-b", "for": "5 s"}])

    played = as_simulated(whole, {"network.same-zone": "40 us", "broker.costs": {"turn": "1 ms"}})

    assert played.network.other_zone == played.network.same_zone
    assert played.broker.costs.turn == pytest.approx(0.001)
    assert played.work["orders"].operation == "sleep"
    [fault] = played.faults
    assert isinstance(fault, Crash)
    assert (fault.crash, fault.silent, fault.for_) == (("zone-b",), False, 5)


def test_broker_is_given_the_settings_of_the_scenario() -> None:
    said = settings_of(scenario(broker={"heartbeat": "1 s", "suspect": "5.5 s"}, work={"attempts": 7}))

    dispatch = load(variables=said).settings.dispatch
    assert (dispatch.heartbeat_s, dispatch.suspect_s, dispatch.failures_max) == (1, 5.5, 7)
    assert dispatch.policy().lease_us == 10_000_000
