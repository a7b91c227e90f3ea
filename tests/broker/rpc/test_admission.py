"""Agents are let in at a rate and in their order; who comes too early waits, and only a long line sends away."""

from __future__ import annotations

import pytest

from broker.rpc import admission
from broker.rpc.admission import LATER_S_MAX, WAIT_S_MAX, Admission


class Clock:
    """In the place of `time`."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def monotonic(self) -> float:
        return self.now_s


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(admission, "time", made)
    return made


def test_agents_are_admitted_at_their_rate_with_a_second_in_hand(clock: Clock) -> None:
    rate = Admission(2)
    assert [rate.turn().in_s for _ in range(3)] == [0, 0, 0.5]
    clock.now_s += 1.0
    assert [rate.turn().in_s for _ in range(2)] == [0, 0.5]
    clock.now_s += 800.0
    assert [rate.turn().in_s for _ in range(3)] == [0, 0, 0.5]


def test_agents_over_the_rate_are_let_in_in_the_order_in_which_they_came(clock: Clock) -> None:
    rate = Admission(4)
    turns = [rate.turn() for _ in range(8)]
    assert [turn.in_s for turn in turns] == [0, 0, 0, 0, 0.25, 0.5, 0.75, 1.0]
    assert all(turn.is_booked for turn in turns)
    clock.now_s += 0.5
    assert rate.turn().in_s == 0.75, "after those that came before, and as soon as that"


def test_agents_that_would_wait_too_long_are_sent_away_each_with_a_later_time(clock: Clock) -> None:
    rate = Admission(4, wait_s=0.5)
    booked = [rate.turn() for _ in range(6)]
    later = [rate.turn() for _ in range(3)]
    assert [turn.is_booked for turn in booked + later] == 6 * [True] + 3 * [False]
    assert [turn.in_s for turn in later] == [0.75, 1.0, 1.25]
    clock.now_s += 0.75
    assert rate.turn().in_s == 0, "who comes again when it was told finds room"


def test_nobody_is_sent_away_for_longer_because_of_many_that_never_come_again(clock: Clock) -> None:
    rate = Admission(100)
    assert max(rate.turn().in_s for _ in range(10_000)) == WAIT_S_MAX + LATER_S_MAX
