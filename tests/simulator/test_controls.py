"""What the work of a replication was, beside what it should have been."""

import statistics
from typing import Any

import pytest

from simulator.controls import expected, seen, stray, variances
from simulator.drawn import rate_of, servers_of
from simulator.laws import Arrivals
from simulator.scenario import Scenario
from simulator.statistics import interval
from simulator.trial import Tree, scenario_of
from simulator.truth import trials_of
from simulator.truth_table import read_table


def scenario(arrivals: Tree, duration: Tree | str, slots: int = 10, **more: Any) -> Scenario:
    work = {"arrivals": arrivals, "duration": duration}
    agents = more.pop("agents", {"count": slots, "slots": 1})
    return Scenario.model_validate(
        scenario_of("controls", agents=agents, work=work, run_s=4000.0, settle_s=400.0, **more)
    )


@pytest.mark.parametrize(
    ("arrivals", "duration", "slots", "one_server"),
    [
        ({"poisson": "8/s"}, {"exponential": "1 s"}, 10, 0.4),
        ({"poisson": "9/s"}, "1 s", 10, 0.45),
        ({"poisson": "9/s"}, {"hyperexponential": {"mean": "1 s", "scv": 4}}, 10, 2.25),
        ({"poisson": "0.5/s"}, {"lognormal": {"mean": "1 s", "scv": 4}}, 1, 2.4266),
        ({"batch": {"rate": "0.8/s", "size": 10}}, {"exponential": "1 s"}, 10, 2.65),
    ],
    ids=["exponential", "constant", "hyperexponential", "lognormal", "batch"],
)
def test_controls_have_the_mean_that_pollaczek_and_khinchine_give(
    arrivals: Tree, duration: Tree | str, slots: int, one_server: float
) -> None:
    subject = scenario(arrivals, duration, slots)
    wanted = expected(subject)
    assert wanted["control.one-server"] == pytest.approx(one_server, rel=1e-4)
    days = [seen(subject, 5, replication) for replication in range(12)]
    for name, centre in wanted.items():
        assert interval([day[name] for day in days], 0.999).holds(centre), name
    assert stray(wanted, {name: [day[name] for day in days] for name in wanted}) == []


def test_controls_find_work_that_is_not_as_the_scenario_says() -> None:
    slow, said = (
        scenario({"poisson": "8/s"}, {"exponential": "1.05 s"}),
        scenario({"poisson": "8/s"}, {"exponential": "1 s"}),
    )
    days = [seen(slow, 5, replication) for replication in range(10)]
    found = stray(expected(said), {name: [day[name] for day in days] for name in days[0]})
    assert any(text.startswith("control.work.duration is 1.0") for text in found)


OUTAGE = {"at": "8 min", "crash": "group", "for": "100 s"}
CRASH = {"random": "crash", "mttf": "100 s", "mttr": "10 s"}


@pytest.mark.parametrize(
    ("subject", "names"),
    [
        (scenario({"poisson": "6/s"}, {"exponential": "1 s"}), "neighbour.wait neighbour.tail.p99 one-server"),
        (
            scenario({"poisson": "6/s"}, {"hyperexponential": {"mean": "1 s", "scv": 4}}),
            "neighbour.wait one-server",
        ),
        (scenario({"batch": {"rate": "0.6/s", "size": 10}}, {"exponential": "1 s"}), "neighbour.sojourn one-server"),
        (
            scenario({"bursty": {"rates": ["2/s", "6/s"], "dwell": ["20 s", "10 s"]}}, {"exponential": "1 s"}),
            "one-server work.rate",
        ),
        (scenario({"poisson": "6/s"}, {"exponential": "1 s"}, faults=[CRASH]), "one-server up work.rate"),
        (
            scenario(
                {"poisson": "6/s"},
                {"exponential": "1 s"},
                agents={"count": 10, "slots": 1, "prefetch": 1000},
                group={"policy": "round-robin"},
            ),
            "neighbour.sojourn neighbour.tail.p99",
        ),
        (
            scenario(
                {"poisson": "6/s"}, {"exponential": "1 s"}, faults=[{"at": "1 min", "crash": "group/1", "for": "9 s"}]
            ),
            "work.0 work.4",
        ),
        (scenario({"poisson": "6/s"}, {"exponential": "1 s"}, faults=[OUTAGE]), "pile.drain pile.arrivals pile.work"),
        (
            scenario(
                {"poisson": "9/s"},
                "1 s",
                faults=[{"at": "8 min", "rolling-upgrade": "group", "batch": 2, "each": "40 s"}],
            ),
            "pile.drain pile.arrivals pile.work",
        ),
        (
            scenario(
                {"poisson": "6/s"},
                {"exponential": "1 s"},
                agents={"count": 10, "slots": 1, "prefetch": 1000},
                group={"policy": "random"},
            ),
            "neighbour.sojourn neighbour.tail.p99",
        ),
        (
            Scenario.model_validate(
                scenario_of(
                    "chances",
                    agents={"count": 10, "slots": 100},
                    work={"arrivals": {"even": "1/s"}, "duration": "1 d"},
                    run_s=100.5,
                    finish_s=1.0,
                    group={"policy": "random"},
                )
            ),
            "neighbour.variance",
        ),
        (scenario({"closed": {"clients": 9, "think": "2 s"}}, {"exponential": "1 s"}), "work.think work.duration"),
        (
            scenario(
                {"closed": {"clients": 1, "think": {"constant": "1 ms"}}},
                "10 s",
                slots=1,
                faults=[CRASH | {"mttf": "10 s", "mttr": {"constant": "1 s"}}],
            ),
            "restarts.done restarts.tried",
        ),
        (
            scenario({"diurnal": {"mean": "9/s", "period": "2000 s", "peak-at": "500 s"}}, {"exponential": "9 s"}, 400),
            "day.mean day.lag",
        ),
        (
            scenario(
                {"poisson": "6/s"},
                {"exponential": "1 s"},
                faults=[{"heartbeat-loss": 0.3}],
                broker={"fidelity": "network", "heartbeat": "1 s", "idle-heartbeat": "1 s", "suspect": "3.5 s"},
            ),
            "losses",
        ),
    ],
    ids=[
        *(
            "queue",
            "mixed",
            "batch",
            "bursts",
            "failures",
            "in-turn",
            "stretches",
            "outage",
            "upgrade",
            "apart",
            "chances",
        ),
        *("clients", "restarts", "day", "losses"),
    ],
)
def test_controls_vary_around_what_they_should_be(subject: Scenario, names: str) -> None:
    wanted = expected(subject)
    assert {f"control.{name}" for name in names.split()} <= set(wanted)
    days = [seen(subject, 6, replication) for replication in range(12)]
    assert stray(wanted, {name: [day[name] for day in days] for name in wanted}) == []
    assert all(len({day[name] for day in days}) > 1 for name in wanted)


def test_variance_of_the_work_of_a_stretch_is_known() -> None:
    fault = {"at": "1 min", "crash": "group/1", "for": "9 s"}
    subject = scenario({"poisson": "6/s"}, {"exponential": "1 s"}, faults=[fault])
    known = variances(subject)
    assert known["control.work.3"] == pytest.approx(6 * 2 / 880)
    days = [seen(subject, 6, replication) for replication in range(60)]
    found = [statistics.variance([day[name] for day in days]) for name in known]
    assert statistics.fmean(found) == pytest.approx(known["control.work.3"], rel=0.4)


def test_variance_of_the_time_to_work_off_a_pile_is_that_of_a_first_passage() -> None:
    subject = scenario({"poisson": "6/s"}, {"exponential": "1 s"}, faults=[OUTAGE])
    (variance,) = variances(subject).values()
    assert variance == pytest.approx(6 * 2 * 100 / 4**2 + 600 * 12 / 4**3)
    drained_s = [seen(subject, 6, replication)["control.pile.drain"] for replication in range(80)]
    assert statistics.variance(drained_s) == pytest.approx(variance, rel=0.4)


def test_controls_are_none_where_the_service_decides_who_arrives_and_few_where_it_cannot_keep_up() -> None:
    overloaded = scenario({"poisson": "12/s"}, {"exponential": "1 s"})
    assert set(expected(overloaded)) == {"control.work.rate", "control.work.duration"}
    assert expected(scenario({"closed": {"clients": 5, "think": "1 s"}}, "1 s")) == {}


def test_servers_are_those_of_zones_that_are_there() -> None:
    pool = {"count": 5, "slots": 2, "spread": ["a", "b"]}
    gone = [{"at": 0, "zone-down": "a", "for": "2 h"}]
    assert servers_of(scenario({"poisson": "1/s"}, "1 s", agents=pool)) == 10
    assert servers_of(scenario({"poisson": "1/s"}, "1 s", agents=pool, faults=gone)) == 4


def test_rate_is_that_of_the_long_run() -> None:
    bursty = {"bursty": {"rates": ["4/s", "16/s"], "dwell": ["20 s", "10 s"]}}
    assert rate_of(Arrivals.model_validate(bursty)) == pytest.approx(8.0)
    assert rate_of(Arrivals.model_validate({"closed": {"clients": 5, "think": "1 s"}})) is None


def test_share_of_time_with_too_few_agents_is_that_of_independent_units() -> None:
    tree = trials_of(next(case for case in read_table().cases if case.id == "F06"))[0].scenario
    subject = Scenario.model_validate(tree)
    (wanted,) = expected(subject).values()
    assert wanted == pytest.approx(1 - 0.9999342809, rel=0.03)  # repairs take a hundredth longer
    shares = [seen(subject, 2, replication)["control.neighbour.short"] for replication in range(40)]
    assert interval(shares, 0.999).holds(wanted)
    crewed = subject.changed({"faults": [*tree["faults"][:1], tree["faults"][1] | {"crews": 1}]})
    assert expected(crewed) == {}
