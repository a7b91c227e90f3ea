"""The three budgets: failures, crashes and bounces are counted apart and end a job apart."""

from __future__ import annotations

import pytest

from broker.dispatch import reasons
from broker.dispatch.model import SECOND_US
from tests.broker.dispatch.bench import GroupBench

pytestmark = pytest.mark.req("R81")


def fail_and_wait(group: GroupBench, name: str) -> float:
    """Fail the latest attempt; the seconds until the next is due."""
    group.fail(name)
    delay_us = group.row(name).not_before_us - group.now_us
    group.advance(delay_us / SECOND_US)
    return delay_us / SECOND_US


def test_delays_double_up_to_the_limit_with_jitter_in_the_upper_half(group: GroupBench) -> None:
    group.agents("a").submit("j1", failures_max=8, backoff_max_s=8)
    delays_s = [fail_and_wait(group, "j1") for _ in range(6)]
    for delay_s, whole_s in zip(delays_s, (1, 2, 4, 8, 8, 8), strict=True):
        assert whole_s / 2 <= delay_s < whole_s
    assert delays_s[3] != delays_s[4], "jitter"


def test_job_is_dead_when_all_failures_are_used(group: GroupBench) -> None:
    group.agents("a").submit("j1", failures_max=2)
    fail_and_wait(group, "j1")
    group.fail("j1", code="crm.down")
    row = group.row("j1")
    assert (row.state, row.failures, row.attempt) == ("dead", 2, 2)
    assert (row.code, row.message) == ("crm.down", "it broke"), "the last error is kept"


def test_job_fails_at_once_when_its_failure_is_not_retryable(group: GroupBench) -> None:
    group.agents("a").submit("j1").fail("j1", retryable=False)
    assert (group.row("j1").state, group.row("j1").failures) == ("failed", 0)


def test_job_keeps_its_place_when_it_is_tried_again(group: GroupBench) -> None:
    group.agents("a").submit("j1", "j2", "j3").fail("j1").advance(1)
    assert group.assigned == {"a": ["j2"]}
    assert group.queued == ["j1", "j3"]


def test_job_waits_for_its_next_try_no_longer_than_its_total_time(group: GroupBench) -> None:
    group.agents("a").submit("j1", total_timeout_s=30, backoff_first_s=100).fail("j1").advance(30)
    row = group.row("j1")
    assert (row.state, row.code) == ("failed", reasons.DEADLINE_EXCEEDED)
    assert row.finished_us == row.total_by_us


def test_job_that_was_cancelled_is_cancelled_when_it_fails_instead(group: GroupBench) -> None:
    group.agents("a").submit("j1", failures_max=1).start("j1").cancel("j1").fail("j1")
    assert group.states == {"j1": "cancelled"}, "and not dead, though it was its last try"


def test_job_is_dead_when_its_last_agents_crashed(group: GroupBench) -> None:
    group.agents("a").submit("j1", crashes_max=2)
    for _ in range(2):
        group.start("j1").close("a").connect("a", new=True)
    row = group.row("j1")
    assert (row.state, row.crashes, row.failures, row.bounces) == ("dead", 2, 0, 0)
    assert (row.code, "agents ended while they ran it" in row.message) == ("crashed_agents", True)


def test_dead_job_keeps_the_code_of_its_latest_failure(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", bounces_max=1).start("j1").fail("j1").advance(2).reject("j1")
    assert (group.row("j1").state, group.row("j1").code) == ("dead", "boom")


def test_crash_is_not_counted_when_the_attempt_had_not_started(group: GroupBench) -> None:
    group.agents("a").submit("j1", crashes_max=1).accept("j1").connect("a", new=True)
    assert (group.states["j1"], group.job("j1").crashes, group.job("j1").attempt) == ("assigned", 0, 2)


def test_crash_is_not_counted_when_the_broker_was_away(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").advance(1).restart().advance(30)
    assert (group.phases, group.job("j1").crashes) == ({"j1": "adoptable"}, 0)


def test_crash_is_taken_back_when_the_agent_comes_back_with_the_attempt(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").lose("a")
    assert group.job("j1").crashes == 1
    group.connect("a", held=["j1"])
    assert group.job("j1").crashes == 0


def test_crash_that_was_counted_for_an_earlier_attempt_is_not_taken_back_with_a_later_one(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").lose("a").agents("b").accept("j1").lose("b")
    assert (group.job("j1").attempt, group.job("j1").crashes) == (2, 1), "the second had not started"
    assert group.connect("b", held=["j1"]).job("j1").crashes == 1


def test_crash_is_not_counted_when_the_agent_had_asked_to_leave(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").leaving("a").lose("a")
    assert (group.phases, group.job("j1").crashes) == ({"j1": "adoptable"}, 0)


def test_crash_counts_for_exclusive_work_whose_earlier_agent_was_taken_over(group: GroupBench) -> None:
    group.agents("a").submit("j1", exclusive=True).start("j1").connect("a", new=True).leave("a").advance(60)
    group.agents("b").start("j1")
    job = group.job("j1")
    assert (job.attempt, job.crashes, job.bounces) == (2, 0, 1)
    group.close("b").advance(60)
    assert (job.crashes, job.bounces) == (1, 1)


@pytest.mark.parametrize("on_loss", ["fail", "hold"])
def test_lost_job_is_not_tried_again_when_its_type_says_so(group: GroupBench, on_loss: str) -> None:
    group.agents("a", "b").submit("j1", on_loss=on_loss).start("j1").lose("a").advance(60)
    assert group.states == {"j1": {"fail": "failed", "hold": "held"}[on_loss]}
    assert group.placements == ["j1#1 a"]


def test_lost_job_is_cancelled_when_that_was_asked_for_whatever_its_type_says(group: GroupBench) -> None:
    group.agents("a").submit("j1", on_loss="hold").start("j1").close("a").cancel("j1").advance(2)
    assert group.states == {"j1": "cancelled"}


def test_job_is_dead_when_all_bounces_are_used(group: GroupBench) -> None:
    group.agents("a").submit("j1", bounces_max=3)
    for _ in range(3):
        group.reject("j1").capacity("a", 1)
    row = group.row("j1")
    assert (row.state, row.bounces, row.failures) == ("dead", 3, 0)


def test_exclusive_job_is_dead_when_its_last_accept_timed_out(group: GroupBench) -> None:
    group.agents("a").submit("j1", exclusive=True, bounces_max=1).advance(5).stopped("j1")
    assert group.states == {"j1": "dead"}


def test_job_is_cancelled_and_not_dead_when_it_was_asked_for_before_the_last_bounce(group: GroupBench) -> None:
    group.agents("a").submit("j1", exclusive=True, bounces_max=1).accept("j1").close("a").cancel("j1").connect("a")
    assert group.states == {"j1": "cancelled"}


@pytest.mark.parametrize("way", ["disabled", "removed"])
def test_cancelled_job_names_who_cancelled_it_and_not_who_ended_its_agent(group: GroupBench, way: str) -> None:
    group.agents("a").submit("j1").start("j1").close("a").cancel("j1", actor="bob")
    group.disable("a", now=True) if way == "disabled" else group.remove("a")
    (last,) = [one for one in group.stored.transitions if one.to_state == "cancelled"]
    assert (last.reason, last.actor) == (f"agent_{way}", "bob")
