from __future__ import annotations

from broker.control.status import AgentStatus, agent_status
from broker.observe.fleet import Fleet, fleet_of
from tests.broker.dispatch.bench import GroupBench


def seen(group: GroupBench) -> Fleet:
    return fleet_of(group.dispatcher.ledger, agent_status, group.now_us)


def test_slots_capacity_and_what_is_held_are_those_of_the_agents(group: GroupBench) -> None:
    group.agents("a", slots=2, capacity=3).agents("b", slots=4).submit("j1", "j2", "j3")
    found = seen(group)
    assert (found.slots, found.capacity, found.free) == (6, 7, 4)
    assert (found.held, found.queued, found.oldest_age_s) == (3, 0, 0.0)
    assert found.statuses == {AgentStatus.ACTIVE: 2}


def test_agents_that_may_not_be_given_work_have_no_room(group: GroupBench) -> None:
    group.agents("a", "b", "c", "d", "e").add("f")
    group.drain("a").disable("b").close("c").mute("d").advance(7)
    found = seen(group)
    assert found.statuses == {
        AgentStatus.DISABLED: 1,
        AgentStatus.STOPPED: 1,
        AgentStatus.NO_RESPONSE: 2,
        AgentStatus.ACTIVE: 1,
        AgentStatus.AWAITING_SETUP: 1,
    }
    assert (found.slots, found.capacity, found.free) == (1, 1, 1)


def test_agent_that_holds_more_than_it_says_it_can_has_no_room_and_takes_none_from_others(group: GroupBench) -> None:
    group.agents("a", slots=3).submit("j1", "j2", "j3").accept("j1", "j2", "j3").capacity("a", 1).agents("b")
    assert (seen(group).capacity, seen(group).free) == (2, 1)


def test_oldest_is_the_one_that_could_be_placed_first_whatever_its_lane(group: GroupBench) -> None:
    group.submit("j1", fairness="x", level=5).advance(3).submit("j2", fairness="y", level=1).advance(2)
    assert (seen(group).queued, seen(group).oldest_age_s) == (2, 5.0)


def test_returned_job_is_as_old_as_it_was(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").advance(10).lose("a")
    assert seen(group).oldest_age_s == 10 + group.policy.reconnect_grace_us / 1e6


def test_delayed_job_is_as_old_as_its_start(group: GroupBench) -> None:
    group.submit("j1", delay_s=60).advance(61)
    assert seen(group).oldest_age_s == 1.0


def test_removed_agent_is_counted_no_more_but_what_it_holds_is(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", exclusive=True).start("j1").close("a").remove("a")
    found = seen(group)
    assert [agent.agent_id for agent in found.agents] == ["b"]
    assert found.statuses == {AgentStatus.ACTIVE: 1}
    assert found.held == 1
