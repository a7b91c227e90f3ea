from __future__ import annotations

from broker.control.presence import UNKNOWN, Machine, Presence
from broker.dispatch.messages import AttemptId
from broker.dispatch.model import AgentNo, GroupNo, JobKey, SessionId


def test_machine_is_the_newest_that_the_agent_spoke_of() -> None:
    presence = Presence()
    presence.note(GroupNo(1), AgentNo(1), Machine(host="old", pid=1))
    presence.note(GroupNo(1), AgentNo(1), Machine(host="new", pid=2))
    assert presence.machine(GroupNo(1), AgentNo(1)) == Machine(host="new", pid=2)


def test_machine_is_unknown_of_an_agent_that_said_nothing() -> None:
    presence = Presence()
    presence.note(GroupNo(1), AgentNo(1), Machine(host="one"))
    assert presence.machine(GroupNo(2), AgentNo(1)) is presence.machine(GroupNo(1), AgentNo(2)) is UNKNOWN


def test_stuck_attempts_are_those_of_a_session_until_that_one_ends() -> None:
    presence, stuck = Presence(), frozenset({AttemptId(JobKey(7), 1)})
    presence.note_stuck(SessionId(1), stuck)
    presence.note_stuck(SessionId(2), frozenset())
    assert (presence.stuck(SessionId(1)), presence.stuck(SessionId(2))) == (stuck, frozenset())
    presence.note_stuck(SessionId(1), frozenset())
    assert presence.stuck(SessionId(1)) == frozenset()
