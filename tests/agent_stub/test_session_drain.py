"""Drains, of the agent itself and of operators, and Goodbye."""

from __future__ import annotations

import pytest

from agent_stub.session import (
    OutcomeStatus,
    Phase,
    RejectedReason,
)
from tests.agent_stub.sessions import Bench, S

# Drain and Goodbye ---------------------------------------------------------------------------------------------------


def test_drained_agent_asks_for_it_finishes_and_says_goodbye_when_nothing_is_held(live: Bench) -> None:
    live.assign((1, 1))
    live.frames()
    live.session.drain("SIGTERM")
    frame = live.frame()
    assert (frame.drain_request, frame.drain_status, frame.goodbye) == ("SIGTERM", [(1, 1)], None)
    live.finish((1, 1))
    assert live.frame().goodbye is None, "its outcome is not acknowledged"
    live.ack((1, 1))
    assert live.frame().goodbye == "SIGTERM"
    assert live.session.phase is Phase.LEFT
    assert live.frames() == []


def test_idle_agent_says_goodbye_at_once(live: Bench) -> None:
    live.session.drain("SIGTERM")
    assert live.frame().goodbye == "SIGTERM"


def test_draining_agent_takes_nothing_new(live: Bench) -> None:
    live.assign((1, 1))
    live.session.drain("SIGTERM")
    live.assign((2, 1))
    assert [(one.job_key, one.reason) for one in live.frame().rejected] == [(2, RejectedReason.LEAVING)]


def test_drain_goes_on_after_a_reconnect_and_waits_for_the_acknowledgement(live: Bench) -> None:
    live.assign((1, 1))
    live.session.drain("SIGTERM")
    assert live.frame().drain_request == "SIGTERM"
    live.finish((1, 1))
    live.session.disconnected(live.now)
    live.connect()
    frame = live.frame()
    assert (frame.drain_request, frame.goodbye) == ("SIGTERM", None)
    live.ack((1, 1))
    assert live.frame().goodbye == "SIGTERM"


def test_goodbye_waits_for_a_run_that_a_verdict_stopped(live: Bench) -> None:
    live.assign((1, 1))
    live.session.disconnected(live.now)
    live.connect((1, 1))
    live.session.drain("SIGTERM")
    assert live.frame().goodbye is None
    live.finish((1, 1), OutcomeStatus.CANCELLED)
    frame = live.frame()
    assert len(frame.outcomes) == 1
    assert frame.goodbye == "SIGTERM"


def test_operators_drain_is_reported_with_each_heartbeat_that_finds_a_change(live: Bench) -> None:
    live.assign((1, 1), (2, 1))
    live.frames()
    live.session.drain_started()
    assert live.frame().drain_status == [(1, 1), (2, 1)]
    live.finish((1, 1))
    live.ack((1, 1))
    assert live.frames() == []
    live.now += 2 * S
    assert live.frame().drain_status == [(2, 1)]
    live.session.drain_cancelled()
    live.finish((2, 1))
    assert live.frame().drain_status is None


@pytest.mark.parametrize(("is_stop", "goodbye"), [(True, "drained"), (False, None)])
def test_agent_leaves_after_a_drain_to_stop_and_stays_after_one_to_pause(
    live: Bench, is_stop: bool, goodbye: str | None
) -> None:
    live.session.drain_started()
    live.frames()
    live.session.drain_done(is_stop=is_stop)
    assert [frame.goodbye for frame in live.frames()] == ([goodbye] if goodbye else [])
