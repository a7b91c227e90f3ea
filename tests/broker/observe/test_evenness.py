from __future__ import annotations

from broker.dispatch.model import Agent, AgentNo
from broker.observe.evenness import ASSIGNED_MIN, Evenness

A, B = AgentNo(1), AgentNo(2)
ENOUGH = 2 * ASSIGNED_MIN


def agents(*slots: int) -> list[Agent]:
    return [Agent(AgentNo(number), f"agent-{number}", slots=one) for number, one in enumerate(slots, 1)]


def test_index_is_one_when_each_slot_was_given_the_same() -> None:
    evenness = Evenness()
    evenness.add({A: 10, B: 30})
    assert evenness.index(agents(1, 3)) == 1.0
    assert evenness.index(agents(1, 1)) == (40 * 40) / (2 * (100 + 900))


def test_index_of_an_agent_that_gets_all_is_one_in_n() -> None:
    evenness = Evenness()
    evenness.add({A: 100})
    assert evenness.index(agents(1, 1, 1, 1)) == 0.25


def test_nothing_is_said_of_one_agent_or_of_too_few_assignments() -> None:
    evenness = Evenness()
    evenness.add({A: ENOUGH - 1})
    assert evenness.index(agents(1)) is None
    assert evenness.index(agents(1, 1)) is None
    evenness.add({B: 1})
    assert evenness.index(agents(1, 1)) is not None


def test_what_is_two_windows_back_is_forgotten_and_what_is_one_back_is_not() -> None:
    evenness = Evenness()
    evenness.add({A: ENOUGH})
    evenness.turn()
    evenness.add({B: ENOUGH})
    assert evenness.index(agents(1, 1)) == 1.0
    evenness.turn()
    assert evenness.index(agents(1, 1)) == 0.5
    evenness.turn()
    assert evenness.index(agents(1, 1)) is None
