"""The tables are total, and nothing moves but along them."""

from __future__ import annotations

from typing import get_args

import pytest

from broker.dispatch.dispatcher import _AGENT_REPORTS, Dispatcher
from broker.dispatch.messages import Event
from broker.dispatch.model import FINAL_STATES, LIVE_PHASES, JobState, Phase
from broker.dispatch.transitions import ATTEMPT_MOVES, JOB_MOVES, ROWS, Cause
from tests.broker.dispatch.bench import GroupBench


def test_every_state_says_what_may_follow() -> None:
    assert set(JOB_MOVES) == {None, *JobState}


def test_nothing_follows_a_final_state() -> None:
    assert all(not JOB_MOVES[state] for state in FINAL_STATES)


def test_every_state_can_be_reached_and_every_other_can_end() -> None:
    assert set().union(*JOB_MOVES.values()) == set(JobState)
    assert all(JOB_MOVES[state] >= FINAL_STATES for state in set(JobState) - FINAL_STATES)


def test_every_phase_can_be_reached_and_left() -> None:
    assert {to for moves in ATTEMPT_MOVES.values() for to in moves} == set(Phase)
    assert {phase for phase, _ in ATTEMPT_MOVES} == set(Phase)


def test_every_cause_moves_something() -> None:
    assert {row.cause for row in ROWS} == set(Cause)


def test_a_live_attempt_begins_by_a_placement_and_nothing_else() -> None:
    begun = {(phase, cause) for (phase, cause), to in ATTEMPT_MOVES.items() if phase is Phase.NONE and to & LIVE_PHASES}
    assert begun == {(Phase.NONE, Cause.PLACED)}


def test_every_event_has_one_handler(group: GroupBench) -> None:
    dispatcher: Dispatcher = group.dispatcher
    reports, others = set(_AGENT_REPORTS), set(dispatcher._handlers)
    assert reports | others == set(get_args(Event))
    assert not reports & others


def test_ledger_refuses_a_move_that_is_not_in_the_table(group: GroupBench) -> None:
    group.submit("j1")
    job = group.job("j1")
    with pytest.raises(AssertionError, match="queued -> held"):
        group.dispatcher.ledger.move(job, JobState.HELD, "nobody said so")
    with pytest.raises(KeyError):
        group.dispatcher.ledger.set_phase(job, Cause.ACCEPTED, Phase.ACCEPTED)
    assert job.phase is Phase.NONE
