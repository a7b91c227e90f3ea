"""What is counted of jobs, from the notices of a real dispatcher."""

from __future__ import annotations

import pytest

from broker.dispatch.model import JobState
from tests.broker.dispatch import course
from tests.broker.observe.counted import CountedBench


@pytest.fixture
def group() -> CountedBench:
    """Agents a and b with a slot each."""
    return CountedBench().agents("a", "b")


def test_jobs_are_counted_from_submission_to_their_end(group: CountedBench) -> None:
    group.submit("j1", "j2", "j3").finish("j1").fail("j2", retryable=False).cancel("j3")
    group.stopped("j3")
    counts = group.counts
    assert counts.submitted == 3
    assert counts.finished == {
        JobState.SUCCEEDED: 1,
        JobState.FAILED: 1,
        JobState.CANCELLED: 1,
        JobState.DEAD: 0,
    }
    assert counts.assigned_total == counts.assigned.total() == 3
    assert counts.returned.total() == 0


def test_same_submission_again_counts_once(group: CountedBench) -> None:
    group.submit("j1").submit("j1")
    assert group.counts.submitted == 1


def test_wait_run_and_latency_are_measured_from_when_a_job_could_be_placed(group: CountedBench) -> None:
    group.submit("j1", "j2").start("j1", "j2").submit("j3").advance(4)
    group.finish("j1").start("j3").advance(2).finish("j3").advance(1).finish("j2")
    counts = group.counts
    assert (counts.wait.count, counts.wait.total) == (3, 4.0)
    assert (counts.run.count, counts.run.total) == (3, 4.0 + 2.0 + 7.0)
    assert (counts.latency.count, counts.latency.total) == (3, 4.0 + 6.0 + 7.0)


def test_time_until_a_wished_start_is_no_waiting(group: CountedBench) -> None:
    group.submit("j1", delay_s=60).advance(60).start("j1").advance(2).finish("j1")
    counts = group.counts
    assert counts.submitted == 1
    assert (counts.wait.count, counts.wait.total) == (1, 0.0)
    assert (counts.latency.count, counts.latency.total) == (1, 2.0)


def test_latency_has_the_retries_and_run_time_every_attempt_that_ended(group: CountedBench) -> None:
    group.submit("j1").start("j1").advance(1).fail("j1").advance(3).start("j1").advance(1).finish("j1")
    counts = group.counts
    assert (counts.wait.count, counts.run.count, counts.run.total) == (1, 2, 2.0)
    assert (counts.latency.count, counts.latency.total) == (1, 5.0)
    assert counts.returned["failed"] == 1


def test_job_that_was_never_heard_to_run_has_a_latency_and_no_run_time(group: CountedBench) -> None:
    group.submit("j1").finish("j1")
    assert (group.counts.latency.count, group.counts.run.count) == (1, 0)


def test_jobs_that_come_back_are_counted_by_reason(group: CountedBench) -> None:
    group.submit("j1").start("j1").lose("a")
    assert +group.counts.returned == {"agent_lost": 1}
    group.reject("j1#2")
    assert +group.counts.returned == {"agent_lost": 1, "rejected_busy": 1}


# --- attempts that may have overlapped --------------------------------------------------------------------------------


def test_attempt_may_have_overlapped_when_its_job_was_taken_from_an_agent_that_is_away(group: CountedBench) -> None:
    group.submit("j1").start("j1").lose("a")
    assert group.assigned["b"] == ["j1"]
    assert group.counts.overlapped == 1


def test_attempt_may_have_overlapped_when_its_agent_did_not_take_it_in_time(group: CountedBench) -> None:
    group.submit("j1").advance(5)
    assert group.assigned["b"] == ["j1"]
    assert group.counts.overlapped == 1


def test_nothing_overlapped_when_the_agent_said_goodbye(group: CountedBench) -> None:
    group.submit("j1").start("j1").leave("a")
    assert group.assigned["b"] == ["j1"]
    assert group.counts.overlapped == 0


def test_nothing_overlapped_when_the_agent_comes_back_as_another_process(group: CountedBench) -> None:
    group.submit("j1").start("j1").connect("a", new=True)
    assert group.counts.returned["agent_lost"] == 1
    assert group.counts.overlapped == 0


def test_nothing_overlapped_when_the_job_is_exclusive(group: CountedBench) -> None:
    group.submit("j1", exclusive=True).start("j1").close("a").advance(20)
    assert group.assigned["b"] == ["j1"]
    assert group.counts.overlapped == 0


def test_nothing_overlapped_when_the_agent_comes_back_with_the_attempt_before_it_is_placed(
    group: CountedBench,
) -> None:
    group.submit("j1", "j2").start("j1", "j2").lose("a").connect("a", held=["j1#1"]).finish("j1").submit("j3")
    assert group.counts.finished[JobState.SUCCEEDED] == 1
    assert group.counts.overlapped == 0


# --- waiting ----------------------------------------------------------------------------------------------------------


def test_scheduled_and_held_jobs_are_counted_as_they_come_and_go(group: CountedBench) -> None:
    group.submit("j1", delay_s=60).submit("j2", on_loss="hold").start("j2").lose("a")
    assert group.counts.waiting == {JobState.SCHEDULED: 1, JobState.HELD: 1}
    group.advance(60).resolve("j2", "fail")
    assert group.counts.waiting == {JobState.SCHEDULED: 0, JobState.HELD: 0}


def test_jobs_that_wait_are_found_again_when_the_broker_starts_anew(group: CountedBench) -> None:
    group.submit("j1", delay_s=60).restart()
    assert group.counts.waiting[JobState.SCHEDULED] == 1
    assert group.counts.submitted == 0


@pytest.mark.parametrize("seed", [3, 4, 5])
def test_waiting_jobs_agree_with_the_books_in_any_course(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr(course, "GroupBench", CountedBench)
    group = course.course(seed)
    assert isinstance(group, CountedBench)
    assert group.counts.waiting == group.waiting()


# --- evenness ---------------------------------------------------------------------------------------------------------


@pytest.mark.req("R72")
def test_equal_agents_that_share_a_groups_work_are_even_and_again_when_another_one_comes() -> None:
    group = CountedBench().agents("a", "b")
    _work(group, 20)
    assert _evenness(group) == 1.0
    group.agents("c")
    assert _evenness(group) is None
    _work(group, 24)
    assert _evenness(group) == 1.0


@pytest.mark.req("R72")
def test_agents_are_uneven_when_one_may_not_do_what_the_other_does() -> None:
    group = CountedBench().agents("a").agents("b", operations=("other",))
    _work(group, 20)
    assert _evenness(group) == 0.5


def _work(group: CountedBench, jobs: int) -> None:
    for number in range(group.counts.submitted, group.counts.submitted + jobs):
        group.submit(f"j{number}").finish(f"j{number}")


def _evenness(group: CountedBench) -> float | None:
    agents = group.dispatcher.ledger.agents.values()
    return group.counts.evenness.index([agent for agent in agents if agent.is_active])


def test_agents_that_are_gone_are_forgotten_and_what_they_were_given_is_not() -> None:
    group = CountedBench().agents("a", "b").submit("j1", "j2", "j3")
    group.counts.turn({group.agent("a").no})
    assert group.counts.assigned == {group.agent("a").no: 1}
    assert group.counts.assigned_total == 2
