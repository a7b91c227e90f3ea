"""Which agent gets the next job: the least loaded that may take it, the one that waited longest among equals."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.dispatch.model import Admin, Agent, AgentNo, DispatchPolicy, JobKey, Link
from broker.dispatch.placement import Placement
from broker.dispatch.queue import LabelSet
from tests.broker.dispatch.bench import GroupBench

pytestmark = pytest.mark.req("R72")


def pool(*agents: Agent, classes_max: int = 32) -> Placement:
    placement = Placement(DispatchPolicy(agent_classes_max=classes_max), {agent.no: agent for agent in agents})
    for agent in agents:
        placement.classify(agent)
        placement.refresh(agent)
    return placement


def agent(no: int, *, slots: int = 1, held: int = 0, capacity: int | None = None, operations: str = "work") -> Agent:
    made = Agent(AgentNo(no), f"agent-{no}", link=Link.LIVE, slots=slots, operations=frozenset({operations}))
    made.capacity = slots if capacity is None else capacity
    made.detached = {(JobKey(no), number): None for number in range(held)}
    return made


def work() -> LabelSet:
    """What jobs ask for; it remembers the classes of one placement."""
    return LabelSet(1, "work", ())


def picked(placement: Placement, avoid: int = 0) -> int | None:
    found = placement.pick(work(), AgentNo(avoid))
    return found.no if found else None


def test_agent_with_the_lowest_load_is_picked_when_slots_differ() -> None:
    assert picked(pool(agent(1, slots=2, held=1), agent(2, slots=10, held=4))) == 2


def test_agent_without_room_is_not_picked() -> None:
    assert picked(pool(agent(1, held=1), agent(2, slots=9, held=9))) is None


def test_agent_with_prefetch_is_picked_beyond_its_slots() -> None:
    assert picked(pool(agent(1, slots=1, held=1, capacity=2))) == 1


@pytest.mark.parametrize("capacity", [0, 1])
def test_agent_that_holds_more_than_its_capacity_is_not_picked(capacity: int) -> None:
    assert picked(pool(agent(1, slots=4, held=2, capacity=capacity))) is None


@pytest.mark.parametrize("link", [Link.NEVER, Link.SUSPECT, Link.GONE, Link.LEFT])
def test_agent_is_not_picked_when_it_is_not_live(link: Link) -> None:
    one = agent(1)
    one.link = link
    assert picked(pool(one)) is None


@pytest.mark.parametrize("admin", [Admin.DISABLED, Admin.DRAINING, Admin.PAUSED])
def test_agent_is_not_picked_when_an_operator_said_so(admin: Admin) -> None:
    one = agent(1)
    one.admin = admin
    assert picked(pool(one)) is None


@pytest.mark.parametrize("trouble", ["is_busy", "is_deaf"])
def test_agent_is_not_picked_when_it_is_busy_or_deaf(trouble: str) -> None:
    one = agent(1)
    setattr(one, trouble, True)
    assert picked(pool(one)) is None


def test_agent_of_the_attempt_before_is_picked_only_if_there_is_no_other() -> None:
    placement = pool(agent(1), agent(2, slots=2, held=1))
    assert picked(placement) == 1
    assert picked(placement, avoid=1) == 2
    assert picked(pool(agent(1)), avoid=1) == 1


def test_agent_of_the_attempt_before_stays_in_the_order_when_it_was_passed_over() -> None:
    placement = pool(agent(1), agent(2))
    picked(placement, avoid=1)
    assert picked(placement) == 1


def test_agent_is_picked_by_labels_that_include_those_asked_for() -> None:
    one, two = agent(1), agent(2, slots=4, held=3)
    one.labels, two.labels = frozenset({"zone=us"}), frozenset({"zone=eu", "disk=ssd"})
    found = pool(one, two).pick(LabelSet(1, "work", ("zone=eu",)), AgentNo(0))
    assert found is two


def test_agent_is_in_no_class_when_the_group_has_as_many_as_it_may() -> None:
    one, two = agent(1, operations="work"), agent(2, operations="other")
    placement = pool(one, classes_max=1)
    assert placement.classify(two) is False
    assert two.agent_class is None
    assert list(placement.room_for(work())) == [one]


def test_class_goes_with_its_last_agent_and_makes_room_for_another() -> None:
    one, two = agent(1, operations="work"), agent(2, operations="other")
    placement = pool(one, classes_max=1)
    placement.forget(one)
    assert placement.classify(two) is True
    assert picked(placement) is None


def test_heap_stays_small_when_one_agent_changes_often() -> None:
    one = agent(1, slots=1_000)
    placement = pool(one)
    for number in range(999):
        one.detached[JobKey(number), 1] = None
        placement.refresh(one)
    assert one.agent_class is not None
    assert len(one.agent_class.heap) <= 2 + 64


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=12))
def test_pick_agrees_with_a_search_of_all_agents(loads: list[tuple[int, int]]) -> None:
    agents = [agent(number, slots=slots, held=held) for number, (slots, held) in enumerate(loads, start=1)]
    able = [one for one in agents if one.held < one.capacity]
    best = min(able, key=lambda one: (one.held / one.slots, one.no), default=None)
    assert picked(pool(*agents)) == (best.no if best else None)


# --- in a group -----------------------------------------------------------------------------------------------------


def test_equal_agents_take_turns_when_they_are_idle_at_each_arrival(group: GroupBench) -> None:
    group.agents("a", "b", "c")
    for number in range(10):
        group.submit(f"j{number}").finish(f"j{number}")
    counts = Counter(line.split()[1] for line in group.placements)
    assert counts == {"a": 4, "b": 3, "c": 3}


def test_big_agent_gets_work_in_proportion_to_its_slots(group: GroupBench) -> None:
    group.agents("small", slots=2).agents("big", slots=6)
    group.submit_together(*(f"j{number}" for number in range(4)))
    assert {name: len(jobs) for name, jobs in group.assigned.items()} == {"small": 1, "big": 3}


def test_next_attempt_goes_to_another_agent_when_there_is_one(group: GroupBench) -> None:
    group.agents("a", "b", slots=3).submit("j1").fail("j1").advance(2)
    assert group.placements == ["j1#1 a", "j1#2 b"]


def test_agent_that_states_more_capacity_gets_work_at_once(group: GroupBench) -> None:
    group.agents("a", slots=2, capacity=0).submit("j1", "j2", "j3")
    assert group.assigned == {}
    assert group.capacity("a", 2).assigned == {"a": ["j1", "j2"]}


def test_agent_that_states_less_capacity_keeps_what_it_has(group: GroupBench) -> None:
    group.agents("a", slots=2).submit("j1", "j2", "j3").capacity("a", 1).finish("j1")
    assert group.assigned == {"a": ["j2"]}
    assert group.queued == ["j3"]


def test_statement_of_capacity_is_ignored_when_it_is_older(group: GroupBench) -> None:
    group.agents("a", slots=2).capacity("a", 0, seq=9).capacity("a", 2, seq=8).submit("j1")
    assert group.queued == ["j1"]


def test_suspect_waits_for_the_first_rank_that_works_where_agents_fail_over_in_order() -> None:
    group = GroupBench(spread="ordered")
    group.agents("a", "b", slots=2).rank("b", 1)
    group.submit("s1", "s2").start("s1", "s2").close("a").connect("a", new=True)
    group.start("s1", "s2").close("a").connect("a", new=True)
    assert group.job("s1").is_suspect
    assert group.job("s2").is_suspect
    assert group.assigned == {"a": ["s1"]}
    assert group.queued == ["s2"]
    assert group.lose("a").assigned == {"b": ["s1"]}
