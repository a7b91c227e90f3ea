"""What an operator says of a whole group: how much is given ahead, while agents hold work, come back and recover."""

from __future__ import annotations

import pytest

from broker.dispatch.model import OWN_PREFETCH, JobState
from tests.broker.dispatch.bench import GroupBench

JOBS = ("j1", "j2", "j3", "j4", "j5", "j6")


def held(group: GroupBench, name: str = "a") -> int:
    """How many attempts the agent holds."""
    return group.agent(name).held


def test_group_that_gives_less_ahead_takes_nothing_back_and_gives_nothing_new(group: GroupBench) -> None:
    group.agents("a", slots=2, capacity=6).submit(*JOBS).configure(prefetch=0.5)
    assert group.sends == ["a: prefetch 0.5"]
    assert held(group) == 6
    group.finish("j1").finish("j2").finish("j3").submit("k1")
    assert held(group) == 3
    group.finish("j4")
    assert held(group) == 3, "2 slots, and one for both"


def test_group_that_gives_more_ahead_waits_until_the_agent_has_said_that_it_holds_more(group: GroupBench) -> None:
    group.agents("a", slots=2).submit(*JOBS).configure(prefetch=1)
    assert held(group) == 2
    assert held(group.capacity("a", 4)) == 4
    assert held(group.capacity("a", 6)) == 4, "not above what the group gives"


def test_group_that_leaves_it_to_each_agent_again_gives_what_those_say(group: GroupBench) -> None:
    group.agents("a", slots=2, capacity=6).configure(prefetch=0).submit(*JOBS)
    assert held(group) == 2
    assert held(group.configure(prefetch=OWN_PREFETCH)) == 6
    assert group.sends[0] == "a: prefetch -1"


def test_agent_that_comes_back_is_bound_by_what_its_group_said_meanwhile(group: GroupBench) -> None:
    group.agents("a", slots=2, capacity=6).lose("a").configure(prefetch=0)
    assert group.sends == []
    assert held(group.connect("a").submit(*JOBS)) == 2


def test_prefetch_of_the_group_holds_after_a_restart(group: GroupBench) -> None:
    group.agents("a", slots=2, capacity=6).configure(prefetch=1).restart()
    assert held(group.connect("a").submit(*JOBS)) == 4


@pytest.mark.parametrize("way", ["failed", "lost", "confirmed", "cancelled before"])
def test_exclusive_work_of_a_removed_group_is_cancelled_for_that_however_it_ends(group: GroupBench, way: str) -> None:
    group.agents("a").submit("j1", exclusive=True).start("j1")
    if way == "cancelled before":
        group.cancel("j1")
    group.remove_group().advance(0)
    assert group.job("j1").agent, "its agent may run it until the lease is over"
    if way == "failed":
        group.fail("j1")
    elif way == "confirmed":
        group.stopped("j1")
    else:
        group.advance(60)
    row = group.row("j1")
    assert (row.state, row.code, row.message) == (JobState.CANCELLED, "group_removed", "")
    assert [one.reason for one in group.stored.transitions][-1:] == ["group_removed"]
