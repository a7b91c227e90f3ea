from __future__ import annotations

from typing import Any

from broker.dispatch.model import AgentNo, GroupNo, JobKey, JobState, Phase
from broker.dispatch.rows import AttemptRow, JobRow, TransitionRow
from broker.store.base import JobRecord
from broker.store.timeline import attempts_of, transitions_of

KEY, GROUP = JobKey(7), GroupNo(1)


def record(
    attempts: tuple[AttemptRow, ...] = (), transitions: tuple[TransitionRow, ...] = (), **columns: Any
) -> JobRecord:
    """A job accepted at 10; `columns` are what else is known of it."""
    empty: dict[str, Any] = dict.fromkeys(JobRow._fields, 0)
    empty |= {"job_key": KEY, "group_no": GROUP, "state": JobState.QUEUED, "phase": Phase.NONE, "code": ""}
    return JobRecord(
        JobRow(**{**empty, "accepted_us": 10, "order_us": 10, **columns}),
        "",
        attempts=attempts,
        transitions=transitions,
    )


def attempt(number: int, at_us: int, ending: str, code: str = "") -> AttemptRow:
    """Assigned at this time, started one later, ended two later."""
    return AttemptRow(KEY, number, AgentNo(number), at_us, at_us + 1, at_us + 2, ending, code)


def step(number: int, at_us: int, before: str, to: str, reason: str, actor: str = "") -> TransitionRow:
    return TransitionRow(GROUP, KEY, number, at_us, before, to, reason, AgentNo(number), actor)


def told(record: JobRecord) -> list[tuple[int, str, str, str]]:
    return [(one.at_us, one.from_state, one.to_state, one.reason) for one in transitions_of(record)]


def test_job_that_waits_was_accepted_and_no_more() -> None:
    assert told(record()) == [(10, "", "queued", "accepted")]
    assert attempts_of(record()) == []


def test_job_that_is_delayed_becomes_due() -> None:
    assert told(record(state="scheduled", order_us=50)) == [(10, "", "scheduled", "accepted")]
    assert told(record(order_us=50))[1:] == [(50, "scheduled", "queued", "due")]


def test_good_first_attempt_is_told_from_the_columns_of_the_job() -> None:
    job = record(state="succeeded", attempt=1, agent_no=AgentNo(4), assigned_us=20, started_us=21, finished_us=30)
    assert attempts_of(job) == [AttemptRow(KEY, 1, AgentNo(4), 20, 21, 30, "succeeded", "")]
    assert told(job) == [
        (10, "", "queued", "accepted"),
        (20, "queued", "assigned", "placed"),
        (21, "assigned", "running", "started"),
        (30, "running", "succeeded", "succeeded"),
    ]


def test_live_attempt_has_no_ending() -> None:
    job = record(state="running", phase=Phase.ACCEPTED, attempt=1, agent_no=AgentNo(4), assigned_us=20, started_us=21)
    assert attempts_of(job) == [AttemptRow(KEY, 1, AgentNo(4), 20, 21, 0, "", "")]
    assert told(job)[-1] == (21, "assigned", "running", "started")


def test_attempt_that_was_lost_and_came_back_is_live_again() -> None:
    back = step(1, 22, "running", "queued", "agent_lost")
    job = record(
        (attempt(1, 20, "lost"),),
        (back,),
        state="running",
        phase=Phase.ACCEPTED,
        attempt=1,
        assigned_us=20,
        started_us=21,
    )
    assert [(one.ended_us, one.ending) for one in attempts_of(job)] == [(0, "")]


def test_attempt_that_was_lost_and_came_back_and_succeeded_has_succeeded() -> None:
    back = step(1, 22, "running", "queued", "agent_lost")
    times = {"attempt": 1, "agent_no": AgentNo(1), "assigned_us": 20, "started_us": 21, "finished_us": 40}
    job = record((attempt(1, 20, "lost"),), (back,), state="succeeded", **times)
    assert [(one.ended_us, one.ending) for one in attempts_of(job)] == [(40, "succeeded")]
    assert told(job)[-2:] == [(22, "running", "queued", "agent_lost"), (40, "queued", "succeeded", "succeeded")]


def test_attempt_that_was_lost_stays_lost_when_a_person_lets_the_job_succeed() -> None:
    held = step(1, 22, "running", "held", "agent_lost")
    decided = step(1, 40, "held", "succeeded", "resolved", "ann")
    job = record((attempt(1, 20, "lost"),), (held, decided), state="succeeded", attempt=1, finished_us=40)
    assert [(one.ended_us, one.ending) for one in attempts_of(job)] == [(22, "lost")]


def test_failures_back_off_and_the_last_one_ends_the_job() -> None:
    job = record(
        (attempt(1, 20, "failed", "csv.bad_row"), attempt(2, 40, "failed", "csv.bad_row")),
        state="dead",
        attempt=2,
        agent_no=AgentNo(2),
        finished_us=42,
        code="csv.bad_row",
    )
    assert told(job) == [
        (10, "", "queued", "accepted"),
        (20, "queued", "assigned", "placed"),
        (21, "assigned", "running", "started"),
        (22, "running", "scheduled", "failed"),
        (40, "queued", "assigned", "placed"),
        (41, "assigned", "running", "started"),
        (42, "running", "dead", "failed"),
    ]


def test_what_was_recorded_is_told_as_it_was_and_once() -> None:
    lost = step(1, 22, "running", "held", "agent_lost")
    decided = step(1, 60, "held", "failed", "resolved", "operator: half done")
    job = record(
        (attempt(1, 20, "incarnation_ended"),),
        (lost, decided),
        state="failed",
        attempt=1,
        finished_us=60,
        code="resolved",
    )
    assert transitions_of(job)[-2:] == [lost, decided]
    assert len(transitions_of(job)) == 5


def test_rejected_attempt_goes_back_to_the_queue() -> None:
    rejected = AttemptRow(KEY, 1, AgentNo(1), 20, 0, 21, "rejected_busy", "")
    assert told(record((rejected,), attempt=1))[-2:] == [
        (20, "queued", "assigned", "placed"),
        (21, "assigned", "queued", "rejected_busy"),
    ]


def test_job_that_ended_without_an_attempt_says_why() -> None:
    job = record(state="failed", finished_us=90, code="not_started_in_time")
    assert told(job)[-1] == (90, "queued", "failed", "not_started_in_time")
