"""What the work of a replication was, beside what it should have been."""

import numpy as np
import pytest

from simulator.controls import expected, rate_of, seen, stray, waits_of
from simulator.laws import Arrivals
from simulator.scenario import Scenario
from simulator.statistics import interval
from simulator.trial import Tree, scenario_of


def scenario(arrivals: Tree, duration: Tree | str, slots: int = 10) -> Scenario:
    work = {"arrivals": arrivals, "duration": duration}
    return Scenario.model_validate(
        scenario_of("controls", agents={"count": slots, "slots": 1}, work=work, run_s=4000.0, settle_s=400.0)
    )


@pytest.mark.parametrize(
    ("arrivals", "duration", "slots", "one_server"),
    [
        ({"poisson": "8/s"}, {"exponential": "1 s"}, 10, 0.4),
        ({"poisson": "9/s"}, "1 s", 10, 0.45),
        ({"poisson": "9/s"}, {"hyperexponential": {"mean": "1 s", "scv": 4}}, 10, 2.25),
        ({"poisson": "0.5/s"}, {"lognormal": {"mean": "1 s", "scv": 4}}, 1, 2.5),
        ({"batch": {"rate": "0.8/s", "size": 10}}, {"exponential": "1 s"}, 10, 2.65),
    ],
    ids=["exponential", "constant", "hyperexponential", "lognormal", "batch"],
)
def test_controls_have_the_mean_that_pollaczek_and_khinchine_give(
    arrivals: Tree, duration: Tree | str, slots: int, one_server: float
) -> None:
    subject = scenario(arrivals, duration, slots)
    wanted = expected(subject)
    assert wanted["control.one-server"] == pytest.approx(one_server)
    days = [seen(subject, 5, replication) for replication in range(30)]
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


def test_controls_are_none_where_the_service_decides_who_arrives() -> None:
    closed = scenario({"closed": {"clients": 5, "think": "1 s"}}, {"exponential": "1 s"})
    assert expected(closed) == {}
    assert seen(closed, 1, 0) == {}
    overloaded = scenario({"poisson": "12/s"}, {"exponential": "1 s"})
    assert set(expected(overloaded)) == {"control.work.rate", "control.work.duration"}


def test_rate_is_that_of_the_long_run() -> None:
    bursty = {"bursty": {"rates": ["4/s", "16/s"], "dwell": ["20 s", "10 s"]}}
    assert rate_of(Arrivals.model_validate(bursty)) == pytest.approx(8.0)
    assert rate_of(Arrivals.model_validate({"closed": {"clients": 5, "think": "1 s"}})) is None


def test_waits_are_lindleys() -> None:
    generator = np.random.Generator(np.random.PCG64DXSM(1))
    at_s, work_s = np.cumsum(generator.exponential(1.0, 500)), generator.exponential(0.9, 500)
    slow, free_at = [], 0.0
    for at, work in zip(at_s.tolist(), work_s.tolist(), strict=True):
        slow.append(max(0.0, free_at - at))
        free_at = max(free_at, at) + work
    assert waits_of(at_s, work_s) == pytest.approx(slow, abs=1e-9)
