"""What the page of a broker would show of a simulated group."""

import itertools

import pytest

from broker.control.status import AgentStatus, agent_status
from broker.dispatch.model import Admin, Agent, AgentNo, GroupNo, Link
from broker.series import JOB_SECONDS
from simulator.gauges import STATUSES, Tally, gauges_of, waiting_beside, word_of
from simulator.world import World
from tests.simulator.worlds import scenario


def test_word_for_an_agent_is_that_of_the_broker() -> None:
    for admin, link in itertools.product(Admin, Link):
        agent = Agent(AgentNo(1), "one")
        agent.admin, agent.link = admin, link
        assert word_of(agent) == agent_status(agent)
    assert {*STATUSES, AgentStatus.EXPIRED} == set(AgentStatus)


def test_gauges_are_those_of_the_dispatchers_books() -> None:
    world = World(scenario(arrivals={"poisson": "100/s"}, settle="0 s", run="20 s"), 1, 0)
    world.run()
    dispatcher = world.driver.dispatcher(GroupNo(1))
    seen = dict(gauges_of(dispatcher))
    assert seen["status.active"] == 6
    assert seen["occupied"] + seen["free"] == seen["capacity"] >= 24
    assert seen["queued"] == dispatcher.ledger.queue.jobs
    assert dict(waiting_beside(dispatcher, dispatcher.ledger.queue.jobs)) == {"scheduled": 0, "held": 0}
    assert max(world.timeline["erp.oldest"]) > 5.0  # 24 slots carry 60 of the 100 jobs a second


def test_tally_counts_as_a_histogram_of_prometheus_does() -> None:
    tally = Tally()
    tally.values_us += [1_000, 1_001, 500_000, 7_200_000_000]
    tally.look()
    tally.values_us.append(1)
    tally.look()
    at_most = dict(zip((*JOB_SECONDS, "+Inf"), tally.counts[1], strict=True))
    assert (at_most[0.001], at_most[0.0025], at_most[0.5], at_most[3_600.0], at_most["+Inf"]) == (2, 3, 4, 4, 5)
    assert tally.counts[0][-1] == 4
    assert tally.sums_s == [pytest.approx(7_200.502001), pytest.approx(7_200.502002)]
