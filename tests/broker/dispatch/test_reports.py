"""What agents report about attempts counts once, from the latest attempt and its own agent: rows 2, 3, 5, 13, 14."""

from __future__ import annotations

import pytest

from broker.dispatch.messages import RejectCause
from broker.dispatch.model import SECOND_US, OutcomeStatus
from tests.broker.dispatch.bench import GroupBench

pytestmark = pytest.mark.req("R82")


@pytest.fixture
def running(group: GroupBench) -> GroupBench:
    """j1 runs on a; b has room."""
    return group.agents("a", "b").submit("j1").start("j1")


# --- row 2 ----------------------------------------------------------------------------------------------------------


def test_accept_ends_the_wait_for_it(group: GroupBench) -> None:
    group.agents("a").submit("j1").accept("j1").advance(60)
    assert group.phases == {"j1": "accepted"}
    assert group.states == {"j1": "assigned"}


def test_start_implies_the_accept_and_starts_the_run_deadline(group: GroupBench) -> None:
    group.agents("a").submit("j1", run_timeout_s=10).advance(3).start("j1")
    assert group.states == {"j1": "running"}
    assert group.dispatcher.ledger.job_due_us(group.job("j1")) == group.now_us + 11 * SECOND_US


def test_start_that_is_said_twice_does_not_move_the_run_deadline(group: GroupBench) -> None:
    group.agents("a").submit("j1", run_timeout_s=10).start("j1").advance(6).start("j1").advance(5)
    assert group.phases == {"j1": "stopping"}


def test_checkpoint_is_written_with_the_next_commit(running: GroupBench) -> None:
    running.progress("j1", body=b"half")
    assert not running.last.writes
    running.advance(1)
    assert running.stored.checkpoints == {running.row("j1").job_key: b"half"}


def test_checkpoint_of_a_superseded_attempt_is_ignored(running: GroupBench) -> None:
    running.lose("a").connect("a").progress("j1#1", agent="a", body=b"old").advance(2)
    assert running.stored.checkpoints == {}


# --- row 3 ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cause", [RejectCause.BUSY, RejectCause.LEAVING])
def test_agent_that_rejects_gets_nothing_before_its_next_capacity(group: GroupBench, cause: str) -> None:
    group.agents("a").submit("j1").reject("j1", cause=cause).advance(20)
    assert group.queued == ["j1"]
    assert group.capacity("a", 1).assigned == {"a": ["j1"]}


def test_unfit_closes_one_operation_until_the_next_hello(group: GroupBench) -> None:
    group.agents("a", slots=2, operations=("fetch", "store"))
    group.submit("j1", operation="fetch").reject("j1", cause=RejectCause.UNFIT).capacity("a", 2)
    group.submit("j2", operation="store")
    assert group.assigned == {"a": ["j2"]}
    assert group.connect("a", held=["j2"]).assigned == {"a": ["j2", "j1"]}


def test_reject_that_crosses_a_cancel_waits_for_the_confirmation(group: GroupBench) -> None:
    group.agents("a").submit("j1").cancel("j1").reject("j1")
    assert group.phases == {"j1": "stopping"}
    assert group.stopped("j1").states == {"j1": "cancelled"}


def test_reject_of_a_detached_attempt_gives_its_slot_back(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1").advance(5).reject("j1#1", agent="a")
    assert group.detached == {}
    assert group.assigned == {"b": ["j1"]}
    assert group.job("j1").bounces == 1, "the timeout was counted, the late reject is not"


# --- row 5 ----------------------------------------------------------------------------------------------------------


def test_success_is_final_acknowledged_and_stored(running: GroupBench) -> None:
    running.finish("j1", body=b"42")
    row = running.row("j1")
    assert (row.state, row.finished_us, row.phase) == ("succeeded", running.now_us, "none")
    assert running.stored.results == {row.job_key: b"42"}
    assert running.sends == ["a: outcome of j1#1 accepted"]
    assert running.phases == {}


def test_outcome_implies_accept_and_start(group: GroupBench) -> None:
    group.agents("a").submit("j1").finish("j1").advance(10)
    assert group.states == {"j1": "succeeded"}


def test_first_attempt_that_succeeds_writes_no_row_of_its_own(running: GroupBench) -> None:
    running.finish("j1")
    assert running.stored.attempts == []


def test_outcome_after_the_loss_counts_and_its_row_no_longer_says_lost(group: GroupBench) -> None:
    group.agents("a").submit("j1").start("j1").lose("a").connect("a", outcomes=["j1=succeeded"])
    assert group.states == {"j1": "succeeded"}
    assert [(row.attempt, row.ending) for row in group.stored.attempts] == [(1, "lost"), (1, "succeeded")]


def test_later_attempt_that_succeeds_writes_its_row(running: GroupBench) -> None:
    running.lose("a").finish("j1")
    assert [(row.attempt, row.ending) for row in running.stored.attempts] == [(1, "lost"), (2, "succeeded")]


def test_fenced_attempt_goes_back_and_counts_nothing(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", exclusive=True).start("j1").fenced("j1")
    job = group.job("j1")
    assert (job.attempt, job.failures, job.crashes, job.bounces) == (2, 0, 0, 0)
    assert group.assigned == {"b": ["j1"]}


def test_attempt_that_its_agent_stopped_unasked_goes_back_and_counts_a_bounce(running: GroupBench) -> None:
    running.stopped("j1")
    assert (running.job("j1").bounces, running.assigned) == (1, {"b": ["j1"]})


# --- rows 13 and 14 -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("report", "state"), [("finish", "succeeded"), ("stopped", "cancelled"), ("fenced", "cancelled")]
)
def test_outcome_wins_over_a_cancel_and_a_confirmation_ends_it(running: GroupBench, report: str, state: str) -> None:
    getattr(running.cancel("j1"), report)("j1")
    assert running.states == {"j1": state}


def test_failure_that_is_not_retryable_wins_over_a_cancel(running: GroupBench) -> None:
    running.cancel("j1").fail("j1", retryable=False)
    assert running.states == {"j1": "failed"}


def test_run_that_is_stopped_at_its_deadline_is_a_retryable_failure(group: GroupBench) -> None:
    group.agents("a").submit("j1", run_timeout_s=10).start("j1").advance(11).stopped("j1")
    job = group.job("j1")
    assert (job.state, job.failures, job.code) == ("scheduled", 1, "run_timeout")
    assert job.message == "ran longer than 10 s"


def test_run_that_is_stopped_at_the_last_deadline_is_dead(group: GroupBench) -> None:
    group.agents("a").submit("j1", run_timeout_s=10, failures_max=1).start("j1").advance(11).stopped("j1")
    assert group.states == {"j1": "dead"}


def test_exclusive_job_is_stopped_when_nobody_accepts_it_and_counts_one_bounce(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", exclusive=True).advance(5).stopped("j1")
    assert (group.job("j1").bounces, group.assigned) == (1, {"b": ["j1"]})


def test_detached_attempt_that_succeeds_counts_when_it_is_the_latest(group: GroupBench) -> None:
    group.agents("a").submit("j1").advance(5)
    assert group.detached == {"a": ["j1#1"]}
    assert group.finish("j1").states == {"j1": "succeeded"}


@pytest.mark.parametrize("exclusive", [False, True])
def test_attempt_whose_stop_was_given_up_counts_when_it_succeeds_after_all(group: GroupBench, exclusive: bool) -> None:
    group.agents("a").submit("j1", run_timeout_s=10, exclusive=exclusive).start("j1").advance(26)
    assert group.states == {"j1": "held" if exclusive else "scheduled"}
    assert group.finish("j1").states == {"j1": "succeeded"}
    assert group.detached == {}


def test_run_deadline_is_counted_once_when_the_attempt_fails_after_it_was_given_up(group: GroupBench) -> None:
    group.agents("a").submit("j1", run_timeout_s=10).start("j1").advance(26).fail("j1")
    assert (group.states, group.job("j1").failures) == ({"j1": "scheduled"}, 1)


# --- row 18 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("report", ["finish", "fail", "stopped", "fenced"])
def test_outcome_of_a_superseded_attempt_is_refused_and_changes_nothing(running: GroupBench, report: str) -> None:
    running.lose("a").connect("a")
    before = running.dispatcher.durable_view()
    getattr(running, report)("j1#1", agent="a")
    assert running.sends == ["a: outcome of j1#1 refused, superseded"]
    assert running.dispatcher.durable_view() == before


@pytest.mark.parametrize("status", OutcomeStatus)
def test_outcome_of_a_finished_job_is_refused(running: GroupBench, status: OutcomeStatus) -> None:
    running.finish("j1").connect("a", outcomes=[f"j1={status}"])
    assert "a: outcome of j1#1 refused, final" in running.sends
    assert running.states == {"j1": "succeeded"}


def test_outcome_from_another_agent_is_refused(running: GroupBench) -> None:
    running.finish("j1", agent="b")
    assert running.sends == ["b: outcome of j1#1 refused, foreign"]
    assert running.states == {"j1": "running"}


@pytest.mark.parametrize("report", ["accept", "start"])
def test_running_attempt_that_is_not_ours_is_told_to_stop(running: GroupBench, report: str) -> None:
    getattr(running, report)("j1", agent="b")
    assert running.sends == ["b: cancel j1#1, superseded, grace 0 s"]


def test_detached_attempt_that_starts_is_not_told_to_stop_twice(group: GroupBench) -> None:
    group.agents("a").submit("j1").advance(5).start("j1#1", agent="a")
    assert group.sends == []
    assert group.detached == {"a": ["j1#1"]}


# --- who did it -----------------------------------------------------------------------------------------------------


def deeds(group: GroupBench) -> list[tuple[str, str]]:
    """Why and by whom, of all transitions that were written."""
    return [(row.reason, row.actor) for row in group.stored.transitions]


def test_job_that_had_to_be_stopped_first_is_cancelled_by_who_asked_first(group: GroupBench) -> None:
    group.agents("a", slots=2).submit("j1", "j2").start("j1", "j2")
    group.cancel("j1", actor="ann").cancel("j1", actor="bob").stopped("j1")
    assert deeds(group) == [("cancelled", "ann")]
    group.cancel("j2", actor="bob").close("a").advance(10)
    assert deeds(group)[1:] == [("cancelled", "bob")]
    assert group.dispatcher.ledger.cancelled_by == {}


@pytest.mark.parametrize(
    ("then", "deed"), [("requeue", ("drain_requeue", "ann")), ("kill", ("killed", "ann"))], ids=["requeue", "kill"]
)
def test_work_that_a_drain_stops_says_who_drained(group: GroupBench, then: str, deed: tuple[str, str]) -> None:
    group.agents("a").submit("j1").start("j1").drain("a", then=then, deadline_s=5).advance(5).stopped("j1")
    assert deeds(group) == [deed]


def test_work_that_a_disabled_or_removed_agent_gives_back_says_who_said_so(group: GroupBench) -> None:
    group.agents("a", "b").submit("j1", "j2").start("j1", "j2")
    group.disable("a", now=True).stopped("j1", agent="a").close("b").remove("b")
    assert deeds(group) == [("agent_disabled", "ann"), ("agent_removed", "ann")]
