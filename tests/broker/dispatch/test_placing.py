"""The other ways to place: each is what it says, under all invariants, and the same again by the same seed."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from broker.dispatch.model import Agent, AgentNo, DispatchPolicy, JobKey, Link, Placing, Spread
from broker.dispatch.placement import Placement
from broker.dispatch.placing import placement_of
from broker.dispatch.queue import LabelSet
from tests.broker.dispatch.bench import GroupBench
from tests.broker.dispatch.course import course, digest

OTHERS = (Placing.ROUND_ROBIN, Placing.RANDOM, Placing.POWER_OF_D)
PICKS = 6_000


def agent(no: int, *, held: int = 0, slots: int = 100, operations: str = "work", rank: int = 0) -> Agent:
    made = Agent(AgentNo(no), f"agent-{no}", link=Link.LIVE, slots=slots, operations=frozenset({operations, "work"}))
    made.capacity, made.rank = slots, rank
    made.detached = {(JobKey(no), number): None for number in range(held)}
    return made


def pool(placing: Placing, *agents: Agent, choices: int = 2, spread: Spread = Spread.BALANCED) -> Placement:
    policy = DispatchPolicy(placing=placing, placing_choices=choices, spread=spread)
    placement = placement_of(policy, {agent.no: agent for agent in agents}, Random(4))
    for one in agents:
        placement.classify(one)
        placement.refresh(one)
    return placement


def picks(placement: Placement, avoid: int = 0) -> Counter[int]:
    work = LabelSet(1, "work", ())
    found = [placement.pick(work, AgentNo(avoid)) for _ in range(PICKS)]
    return Counter(one.no for one in found if one is not None)


def share(seen: Counter[int], no: int) -> float:
    return seen[no] / PICKS


def test_default_is_the_least_load() -> None:
    assert DispatchPolicy().placing is Placing.LEAST_LOADED
    assert type(pool(Placing.LEAST_LOADED)) is Placement


def test_random_picks_each_agent_with_room_equally_often_whatever_it_holds() -> None:
    seen = picks(pool(Placing.RANDOM, agent(1), agent(2, held=90), agent(3, held=100), agent(4, operations="more")))
    assert set(seen) == {1, 2, 4}
    assert all(share(seen, no) == pytest.approx(1 / 3, abs=0.03) for no in seen)


def test_random_picks_nobody_when_nobody_has_room() -> None:
    assert not picks(pool(Placing.RANDOM, agent(1, held=100)))


@pytest.mark.parametrize("placing", [Placing.RANDOM, Placing.POWER_OF_D])
def test_avoided_agent_is_picked_only_when_there_is_no_other(placing: Placing) -> None:
    seen = picks(pool(placing, *map(agent, range(1, 6))), avoid=2)
    assert set(seen) >= {1, 3, 4}
    assert 2 not in seen
    assert set(picks(pool(placing, agent(2)), avoid=2)) == {2}


def test_power_of_d_picks_by_place_in_the_order_of_load() -> None:
    # Of four agents two different ones are drawn: the i-th by load is the better one in (4 - i) of 6 pairs.
    seen = picks(pool(Placing.POWER_OF_D, *(agent(no, held=no) for no in (1, 2, 3, 4))))
    assert [round(share(seen, no) * 6) for no in (1, 2, 3, 4)] == [3, 2, 1, 0]
    assert seen[4] == 0


def test_power_of_d_is_the_least_load_when_it_draws_everybody() -> None:
    assert set(picks(pool(Placing.POWER_OF_D, agent(1, held=2), agent(2, held=1), agent(3, held=3), choices=3))) == {2}


@pytest.mark.parametrize("placing", OTHERS)
@pytest.mark.parametrize(("spread", "full", "left"), [(Spread.ORDERED, 100, set()), (Spread.SPILL, 100, {2})])
def test_ranks_count_before_the_way_to_place(placing: Placing, spread: Spread, full: int, left: set[int]) -> None:
    assert set(picks(pool(placing, agent(1), agent(2, rank=1), spread=spread))) == {1}
    assert set(picks(pool(placing, agent(1, held=full), agent(2, rank=1), spread=spread))) == left


def test_round_robin_goes_round_when_loads_differ() -> None:
    group = GroupBench(placing=Placing.ROUND_ROBIN).agents("a", "b", "c", slots=9)
    for number in range(6):
        group.submit(f"j{number}")
        if number % 3 == 0:
            group.finish(f"j{number}")  # a is the least loaded all the time
    assert group.assigned == {"b": ["j1", "j4"], "c": ["j2", "j5"]}
    group.check_run()


def test_configured_group_keeps_its_way_to_place() -> None:
    group = GroupBench(placing=Placing.RANDOM).agents("a", "b", slots=50).submit("j1", "j2", "j3")
    group.configure(spread=Spread.SPILL).submit(*(f"k{number}" for number in range(20)))
    assert all(len(jobs) >= 5 for jobs in group.assigned.values())
    group.check_run()


@pytest.mark.parametrize("placing", OTHERS)
def test_course_keeps_all_invariants_and_is_the_same_again(placing: Placing) -> None:
    group = course(7, placing)
    group.check_run()
    assert len(group.placements) > 50
    assert digest(group) == digest(course(7, placing))
    assert digest(group) != digest(course(7))


@pytest.mark.req("R87")
@pytest.mark.parametrize("first", Placing)
@pytest.mark.parametrize("then", Placing)
def test_group_places_in_another_way_from_now_on_with_agents_and_jobs_where_they_are(
    first: Placing, then: Placing
) -> None:
    group = GroupBench(placing=first).agents("a", "b", "c", slots=3).submit("j1", "j2", "j3", "j4")
    before = group.assigned
    group.configure(placing=then)
    assert group.assigned == before
    assert group.dispatcher.ledger.placement.free == 3
    group.submit_together("j5", "j6", "j7", "j8", "j9", "j10")
    assert sorted(map(len, group.assigned.values())) == [3, 3, 3]
    assert group.queued == ["j10"]


def test_group_that_draws_agents_draws_the_same_ones_again_from_the_same_seed() -> None:
    def placements(seed: int) -> list[str]:
        group = GroupBench(seed=seed).agents("a", "b", "c", slots=8).configure(placing="random")
        return group.submit(*(f"j{number}" for number in range(16))).placements

    assert placements(1) == placements(1)
    assert placements(1) != placements(2)
