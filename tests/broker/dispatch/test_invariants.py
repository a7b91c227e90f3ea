"""Each invariant can fail: a state or a course of events that breaks it is reported by its number.

Invariant 13 speaks of drains and comes with them.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from broker.dispatch.deadlines import Deadlines
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.invariants import Violation, check
from broker.dispatch.messages import (
    AssignJob,
    AttemptFinished,
    CancelRequested,
    Effects,
    Event,
    Send,
    TimerFired,
    Transition,
)
from broker.dispatch.model import SECOND_US, Admin, DrainThen, JobKey, JobState, OutcomeStatus, Phase, Placing
from tests.broker.dispatch.bench import GroupBench
from tests.broker.dispatch.driver import BrokenInvariantError


@pytest.fixture
def busy() -> GroupBench:
    """j1 runs on a, j2 is sent to b, j3 and j4 wait, j5 is scheduled, others are finished. Never checked at the end."""
    group = GroupBench().agents("a", "b").submit("j0", "j9").finish("j0", "j9")
    return group.submit("j1", "j2", "j3", "j4", payload_bytes=1).submit("j5", delay_s=60).start("j1")


def judged(group: GroupBench, event: Event, *sends: Send) -> list[Violation]:
    """What a watcher says of a step that did just this."""
    group.watcher.judge(event, Effects(sends=list(sends)), is_known=True)
    return group.watcher.violations


def assigned_again(group: GroupBench, name: str) -> AssignJob:
    """The frame of the job's latest attempt, as if it had been placed in this step."""
    job = group.job(name)
    session = group.dispatcher.ledger.agents[job.agent].session
    return AssignJob(session, job.key, job.attempt, job.job_id, job.operation, 0, 0, exclusive=False)


# --- of a state -----------------------------------------------------------------------------------------------------


def queued_and_live(group: GroupBench) -> list[Violation]:
    group.dispatcher.ledger.queue.push(group.job("j1"))
    return check(group.dispatcher)


def nowhere(group: GroupBench) -> list[Violation]:
    del group.agent("a").live[group.job("j1").key]
    return check(group.dispatcher)


def waiting_with_a_live_attempt(group: GroupBench) -> list[Violation]:
    group.job("j5").phase = Phase.ACCEPTED
    return check(group.dispatcher)


def on_two_agents(group: GroupBench) -> list[Violation]:
    job = group.job("j1")
    group.agent("b").live[job.key] = job
    return check(group.dispatcher)


def sent_to_an_agent_that_does_not_serve_it(group: GroupBench) -> list[Violation]:
    group.agent("b").operations = frozenset({"other"})
    return check(group.dispatcher)


def idle_while_work_waits(group: GroupBench) -> list[Violation]:
    group.agent("a").capacity = 2
    return check(group.dispatcher)


def believes_in_a_deadline(group: GroupBench) -> list[Violation]:
    group.job("j1").due_us = group.now_us + SECOND_US
    return check(group.dispatcher)


def has_no_deadline(group: GroupBench) -> list[Violation]:
    job = group.job("j5")
    due_us, job.due_us = job.due_us, 0
    group.dispatcher.ledger.deadlines.disarm(job.key, due_us)
    return check(group.dispatcher)


def miscounted_jobs(group: GroupBench) -> list[Violation]:
    group.dispatcher.ledger.queue.jobs += 1
    return check(group.dispatcher)


def miscounted_waiting(group: GroupBench) -> list[Violation]:
    group.job("j3").lane.level.label_set.waiting = 0
    return check(group.dispatcher)


def miscounted_bytes(group: GroupBench) -> list[Violation]:
    group.dispatcher.ledger.queued_bytes -= 1
    return check(group.dispatcher)


def out_of_service(group: GroupBench) -> list[Violation]:
    group.job("j3").lane.level.heap.clear()
    return check(group.dispatcher)


def at_another_load(group: GroupBench) -> list[Violation]:
    group.agent("a").heap_key = 5
    return check(group.dispatcher)


def in_another_class(group: GroupBench) -> list[Violation]:
    group.agent("a").agent_class = None
    return check(group.dispatcher)


def waits_for_an_accept_that_came(group: GroupBench) -> list[Violation]:
    group.agent("a").sent[group.job("j1").key] = group.now_us
    return check(group.dispatcher)


def accepted_on_an_absent_agent(group: GroupBench) -> list[Violation]:
    group.close("a")
    group.job("j1").phase = Phase.ACCEPTED
    return check(group.dispatcher)


def remembers_finished_jobs(group: GroupBench) -> list[Violation]:
    group.dispatcher.ledger.checkpoints[JobKey(1)] = b"of a job that is gone"
    return check(group.dispatcher)


def hoards_deadlines(group: GroupBench) -> list[Violation]:
    for owner in range(1_000):
        group.dispatcher.ledger.deadlines.arm(1_000_000 + owner, group.now_us + 600 * SECOND_US)
    return check(group.dispatcher)


def out_of_order(group: GroupBench) -> list[Violation]:
    group.job("j3").order_us = group.now_us + SECOND_US
    return check(group.dispatcher)


def out_of_its_lane(group: GroupBench) -> list[Violation]:
    group.job("j3").behind = None
    return check(group.dispatcher)


def counted_as_returned(group: GroupBench) -> list[Violation]:
    group.job("j3").has_returned = True
    return check(group.dispatcher)


# --- of a course of events ------------------------------------------------------------------------------------------


def over_capacity(group: GroupBench) -> list[Violation]:
    group.agent("b").capacity = 0
    return judged(group, TimerFired(), assigned_again(group, "j2"))


def number_that_went_back(group: GroupBench) -> list[Violation]:
    group.job("j1").attempt = 0
    return judged(group, TimerFired())


def number_made_twice(group: GroupBench) -> list[Violation]:
    return judged(group, TimerFired(), assigned_again(group, "j2"))


def other_epoch(group: GroupBench) -> list[Violation]:
    group.dispatcher.ledger.epoch += 1
    return judged(group, TimerFired())


def placed_on_a_busy_agent(group: GroupBench) -> list[Violation]:
    group.agent("b").is_busy = True
    return judged(group, TimerFired(), assigned_again(group, "j2"))


def left_a_deadline_behind(group: GroupBench) -> list[Violation]:
    ledger = group.dispatcher.ledger
    ledger.deadlines = Deadlines(ledger._is_armed)
    ledger.lazy.clear()
    ledger.now_us += 3_600 * SECOND_US
    return judged(group, TimerFired())


def finished_job_that_moved(group: GroupBench) -> list[Violation]:
    key = group.row("j0").job_key
    states = (JobState.SUCCEEDED, JobState.QUEUED)
    moved = Transition(group.dispatcher.ledger.group, key, 1, group.now_us, *states, "again", group.agent("a").no)
    group.watcher.judge(TimerFired(), Effects(notices=[moved]), is_known=True)
    return group.watcher.violations


def request_without_a_reply(group: GroupBench) -> list[Violation]:
    return judged(group, CancelRequested(99, group.row("j1").job_key))


def outcome_without_an_acknowledgement(group: GroupBench) -> list[Violation]:
    agent, key = group.agent("a"), group.row("j1").job_key
    return judged(group, AttemptFinished(agent.no, agent.session, key, 1, OutcomeStatus.SUCCEEDED))


def drain_that_does_not_end(group: GroupBench) -> list[Violation]:
    agent = group.agent("a")
    agent.admin, agent.drain_then, agent.admin_due_us = Admin.DRAINING, DrainThen.REQUEUE, 0
    return check(group.dispatcher)


def drain_of_an_empty_agent(group: GroupBench) -> list[Violation]:
    group.add("z").agent("z").admin = Admin.DRAINING
    return check(group.dispatcher)


def other_effects_when_replayed(group: GroupBench) -> list[Violation]:
    group.watcher.taken[0] = Effects()
    return group.watcher.replay(group.fresh())


def other_row_when_recovered(group: GroupBench) -> list[Violation]:
    row = group.row("j1")
    group.stored.jobs[row.job_key] = row._replace(failures=2)
    return group.watcher.recovery(group.stored)


def other_order_when_recovered(group: GroupBench) -> list[Violation]:
    row = group.row("j3")
    group.stored.jobs[row.job_key] = row._replace(order_us=row.order_us + SECOND_US)
    return group.watcher.recovery(group.stored)


def fewer_acceptances_when_recovered(group: GroupBench) -> list[Violation]:
    group.dispatcher.ledger.acceptance_no += 1
    return group.watcher.recovery(group.stored)


def not_the_least_loaded(group: GroupBench) -> list[Violation]:
    group.agents("c").finish("j1").finish("j3")
    assert group.watcher.violations == []
    group.agent("a").capacity = group.agent("a").slots = 9
    return judged(group, TimerFired(), assigned_again(group, "j2"))


def not_its_turn(_: GroupBench) -> list[Violation]:
    group = GroupBench(placing=Placing.ROUND_ROBIN).agents("a", "b", slots=9).submit("j1", "j2")
    assert group.watcher.violations == []
    return judged(group, TimerFired(), assigned_again(group, "j2"))


def worse_than_any_that_was_drawn(_: GroupBench) -> list[Violation]:
    group = GroupBench(placing=Placing.POWER_OF_D, placing_choices=2).agents("a", "b", slots=3)
    group.submit("j1")
    assert group.watcher.violations == []
    busy = next(iter(group.assigned))
    group.agent(busy).slots = group.agent(busy).capacity = 2
    group.agent(busy).detached = {(group.job("j1").key, 7): None}
    return judged(group, TimerFired(), assigned_again(group, "j1"))


BROKEN: list[tuple[int, Callable[[GroupBench], list[Violation]]]] = [
    (1, queued_and_live),
    (1, nowhere),
    (1, waiting_with_a_live_attempt),
    (2, on_two_agents),
    (2, over_capacity),
    (3, number_that_went_back),
    (3, number_made_twice),
    (3, other_epoch),
    (4, sent_to_an_agent_that_does_not_serve_it),
    (4, placed_on_a_busy_agent),
    (5, idle_while_work_waits),
    (6, believes_in_a_deadline),
    (6, has_no_deadline),
    (6, left_a_deadline_behind),
    (7, finished_job_that_moved),
    (8, request_without_a_reply),
    (8, outcome_without_an_acknowledgement),
    (9, other_effects_when_replayed),
    (10, other_row_when_recovered),
    (10, other_order_when_recovered),
    (10, fewer_acceptances_when_recovered),
    (11, miscounted_jobs),
    (11, miscounted_waiting),
    (11, miscounted_bytes),
    (11, out_of_service),
    (11, out_of_its_lane),
    (11, counted_as_returned),
    (11, at_another_load),
    (11, in_another_class),
    (11, waits_for_an_accept_that_came),
    (11, accepted_on_an_absent_agent),
    (12, remembers_finished_jobs),
    (12, hoards_deadlines),
    (13, drain_that_does_not_end),
    (13, drain_of_an_empty_agent),
    (14, out_of_order),
    (15, not_the_least_loaded),
    (15, not_its_turn),
    (15, worse_than_any_that_was_drawn),
]


@pytest.mark.parametrize(
    ("number", "break_it"), BROKEN, ids=[f"inv{number:02}-{one.__name__}" for number, one in BROKEN]
)
def test_broken_invariant_is_reported_by_its_number(
    busy: GroupBench, number: int, break_it: Callable[[GroupBench], list[Violation]]
) -> None:
    assert check(busy.dispatcher) == []
    assert busy.watcher.violations == []
    found = break_it(busy)
    assert number in {violation.number for violation in found}, found
    assert all(violation.text for violation in found)


def test_every_invariant_can_be_broken() -> None:
    assert {number for number, _ in BROKEN} == set(range(1, 16))


def test_bench_raises_and_names_the_invariant_when_a_step_breaks_one(busy: GroupBench) -> None:
    busy.dispatcher.ledger.queued_bytes += 7
    with pytest.raises(BrokenInvariantError, match=r"\[inv11\] payloads of live jobs are 4 bytes, counted 11"):
        busy.add("c")


def test_agents_that_a_start_leaves_to_be_looked_at_must_wake_somebody(
    group: GroupBench, monkeypatch: pytest.MonkeyPatch
) -> None:
    group.agents("a").submit("j1").start("j1").drain("a").restart()
    assert group.dispatcher.ledger.unsettled
    assert check(group.dispatcher) == []
    monkeypatch.setattr(Dispatcher, "next_deadline_us", lambda self: None)
    assert [one.number for one in check(group.dispatcher)] == [13]
