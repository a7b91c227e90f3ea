"""What a scenario refuses, and how it is changed."""

import pickle
from typing import Any

import pytest
from pydantic import ValidationError

from simulator.scenario import ChangeError, Scenario, agents_named
from tests.simulator.worlds import scenario


def test_scenario_is_the_same_after_it_was_resolved_and_pickled() -> None:
    one = scenario(faults=[{"at": "20 s", "zone-down": "zone-b", "for": "5 s"}], cost={"agent-hour": "0.21 EUR"})
    assert Scenario.model_validate(one.resolved()) == one
    assert pickle.loads(pickle.dumps(one)) == one  # noqa: S301  # what was just made


def test_scenario_is_changed_by_paths_as_sweeps_name_them() -> None:
    changed = scenario().changed({"groups.erp.agents.count": 20, "work.orders.arrivals.poisson": "5/s"})
    assert changed.groups["erp"].count == 20
    assert changed.work["orders"].arrivals.poisson == 5.0


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        ("groups.erp.agnts.count", 1, "did you mean `agents`"),
        ("groups.erp.agents.count", -1, "greater than or equal to 0"),
        ("faults.3.at", "1 s", "leads nowhere"),
        ("horizon", {"run": "1 s", "rum": 1}, "rum"),
    ],
)
def test_change_is_refused_when_it_names_nothing_or_does_not_fit(path: str, value: object, says: str) -> None:
    with pytest.raises(ChangeError, match=says):
        scenario().changed({path: value})


@pytest.mark.parametrize(
    ("faults", "says"),
    [
        ([{"at": "2 min", "crash": "erp/1", "for": "5 s"}], "the run ends at 70 s"),
        ([{"at": "5 s", "crash": "erp/9", "for": "5 s"}], "has agents 1 to 6"),
        ([{"at": "5 s", "zone-down": "zone-q", "for": "5 s"}], "is not there"),
        ([{"at": "5 s", "rolling-upgrade": "erb", "each": "5 s"}], "did you mean `erp`"),
        ([{"at": "5 s", "crash": "all"}], "for"),
        ([{"at": "5 s", "crash": "all", "hang": "all", "for": "5 s"}], "one thing"),
        ([{"at": "5 s", "crsh": "all", "for": "5 s"}], "did you mean `crash`"),
        ([{"at": f"{at} s", "crash": "all", "for": "5 s"} for at in (5, 8)], "before the one before has ended"),
        (
            [{"at": f"{at} s", "hang": who, "for": "5 s"} for at, who in ((5, "all"), (8, "erp/2"))],
            r"fault 2 \(hang erp/2\).*`hang all`, until 10 s",
        ),
        (
            [{"at": "5 s", "broker-crash": True, "for": "5 s"}, {"at": "8 s", "store-outage": True, "for": "5 s"}],
            "`broker-crash`, until 10 s",
        ),
        ([{"heartbeat-loss": "5 %"}, {"at": "8 s", "heartbeat-loss": "9 %"}], "until inf s"),
        (
            [{"at": f"{at} s", "rolling-upgrade": "erp", "each": "5 s", "batch": 2} for at in (5, 15)],
            "`rolling-upgrade erp`, until 20 s",
        ),
        ([{"at": "5 s", "loss": "all", "share": "60 %", "for": "5 s"}], "less than or equal to 0.5"),
        ([{"at": "5 s", "loss": "erp/7", "share": "6 %", "for": "5 s"}], "has agents 1 to 6"),
    ],
)
def test_fault_is_refused_in_words(faults: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        scenario(faults=faults)


@pytest.mark.parametrize("kind", ["partition", "hang", "delay", "loss"])
def test_fault_of_the_network_is_refused_where_there_is_none(kind: str) -> None:
    fault = {"at": "5 s", kind: "all", "for": "5 s"}
    more: dict[str, dict[str, str]] = {"delay": {"by": "1 s"}, "loss": {"share": "5 %"}}
    with pytest.raises(ValidationError, match="needs a network"):
        scenario(fidelity="exact", faults=[fault | more.get(kind, {})])


@pytest.mark.parametrize("fidelity", ["exact", "network"])
@pytest.mark.parametrize("kind", ["store-stall", "store-outage"])
def test_fault_of_the_store_is_refused_where_commits_cost_nothing(kind: str, fidelity: str) -> None:
    with pytest.raises(ValidationError, match="needs a store"):
        scenario(fidelity=fidelity, faults=[{"at": "5 s", kind: True, "for": "5 s"}])


def test_scenario_refuses_work_for_a_group_that_is_not_there_and_names_used_twice() -> None:
    with pytest.raises(ValidationError, match="did you mean `erp`"):
        scenario(work={"group": "erb"})
    tree = scenario().resolved()
    tree["work"]["erp"] = tree["work"]["orders"]
    with pytest.raises(ValidationError, match="both a group and work"):
        Scenario.model_validate(tree)


def test_law_is_exactly_one_thing() -> None:
    with pytest.raises(ValidationError, match="exactly one of"):
        scenario(duration={"exponential": "1 s", "constant": "1 s"})


def test_agents_are_named_by_group_number_range_and_zone() -> None:
    one = scenario()
    assert [number for _, number in agents_named(one, "all")] == [1, 2, 3, 4, 5, 6]
    assert list(agents_named(one, "zone-b")) == [("erp", 2), ("erp", 5)]
    assert list(agents_named(one, "erp/2-3")) == [("erp", 2), ("erp", 3)]
    with pytest.raises(LookupError):
        list(agents_named(one, "zone-x"))


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("groups.erp.agents.cout", 3, "unknown key `cout`; did you mean `count`?"),
        ("groups.erp.agents.count", "many", "should be a valid integer"),
        ("version", 2, "`2` is not known here; it is 1"),
    ],
)
def test_change_that_does_not_fit_is_refused_with_what_was_probably_meant(key: str, value: object, words: str) -> None:
    with pytest.raises(ChangeError) as refused:
        scenario().changed({key: value})
    assert words in str(refused.value)
    assert "https://" not in str(refused.value)
