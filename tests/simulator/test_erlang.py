"""Erlang's C formula against tables and against the definition."""

from math import exp, factorial

import pytest

from simulator.erlang import agents_for, erlang_c, servers_for, sojourn_tail


@pytest.mark.parametrize(("servers", "load", "truth"), [(1, 0.8, 0.8), (10, 8.0, 0.4091802), (100, 95.0, 0.5064569)])
def test_erlang_c_is_that_of_the_tables(servers: int, load: float, truth: float) -> None:
    assert erlang_c(servers, load) == pytest.approx(truth, rel=1e-6)


def test_erlang_c_is_its_definition() -> None:
    top = 5.0**7 / factorial(7) * 7 / (7 - 5.0)
    assert erlang_c(7, 5.0) == pytest.approx(top / (sum(5.0**k / factorial(k) for k in range(7)) + top))
    assert erlang_c(3, 3.0) == 1.0
    assert 0.0 < erlang_c(20_000, 19_900.0) < 1.0


def test_sojourn_tail_is_that_of_one_server_and_of_no_wait() -> None:
    assert sojourn_tail(1, 0.8, 1.0, 23.02585) == pytest.approx(0.01, rel=1e-5)
    assert sojourn_tail(1000, 0.8, 1.0, 2.0) == pytest.approx(exp(-2.0))
    assert sojourn_tail(10, 8.0, 1.0, 4.946111) == pytest.approx(0.01, rel=1e-5)
    assert sojourn_tail(10, 10.0, 1.0, 5.0) == 1.0
    # As many spare services a second as one server gives: the formula's removable pole.
    assert sojourn_tail(2, 1.0, 1.0, 3.0) == pytest.approx(sojourn_tail(2, 1.0 + 1e-6, 1.0, 3.0), rel=1e-4)


def test_servers_are_the_least_that_keep_the_time() -> None:
    assert servers_for(100.0, 0.4, 2.0, 0.99) == 43
    assert sojourn_tail(43, 100.0, 0.4, 2.0) <= 0.01 < sojourn_tail(42, 100.0, 0.4, 2.0)
    assert servers_for(100.0, 0.4, 1.0, 0.99) == 41  # the jobs themselves take longer: only to keep up


@pytest.mark.parametrize(
    ("servers", "slots", "zones", "lost", "equal", "agents"),
    [
        (43, 4, 3, 1, True, 18),
        (43, 4, 3, 1, False, 17),
        (43, 4, 3, 0, False, 11),
        (43, 4, 3, 0, True, 12),
        (1, 4, 1, 0, True, 1),
    ],
)
def test_agents_leave_enough_when_zones_are_lost(
    servers: int, slots: int, zones: int, lost: int, equal: bool, agents: int
) -> None:
    assert agents_for(servers, slots, zones, lost, equal=equal) == agents
