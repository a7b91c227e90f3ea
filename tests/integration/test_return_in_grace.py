"""A whole fleet is back within the broker's recovery grace by the back-off alone: else its work would be run again."""

from __future__ import annotations

import random
from heapq import heapify, heappop, heappush

import pytest

from agent_stub.backoff import Backoff
from agent_stub.client import BACK_BY
from broker.dispatch.model import SECOND_US
from broker.rpc import admission
from broker.settings import DispatchSettings, LimitSettings


class Clock:
    """In the place of `time`, for the rate at which a broker admits agents."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s


def returns(
    monkeypatch: pytest.MonkeyPatch, agents: int, outage_s: float, grace_s: float, seed: int = 1
) -> list[float]:
    """When each agent is back after the start of the broker, which was away for `outage_s`."""
    clock, generator = Clock(), random.Random(seed)
    monkeypatch.setattr(admission, "time", clock)
    backoffs = [Backoff(generator) for _ in range(agents)]
    for backoff in backoffs:
        backoff.bound(grace_s * BACK_BY)
    dials = [(backoff.next_delay_s(), number) for number, backoff in enumerate(backoffs)]
    heapify(dials)
    broker: admission.Admission | None = None
    back: list[float] = []
    while dials:
        at_s, number = heappop(dials)
        clock.now_s = at_s
        if at_s < outage_s:
            heappush(dials, (at_s + backoffs[number].next_delay_s(), number))
            continue
        broker = broker or admission.Admission(LimitSettings().hellos_per_s)
        turn = broker.turn()
        if turn.is_booked:
            back.append(at_s + turn.in_s - outage_s)
        else:
            heappush(dials, (at_s + backoffs[number].next_delay_s(turn.in_s), number))
    return back


@pytest.mark.parametrize("outage_s", [0.5, 20.0, 300.0])
def test_five_thousand_agents_are_back_within_the_grace_however_long_the_broker_was_away(
    monkeypatch: pytest.MonkeyPatch, outage_s: float
) -> None:
    grace_s = DispatchSettings().policy().recovery_grace_us / SECOND_US
    back = returns(monkeypatch, 5_000, outage_s, grace_s)
    assert len(back) == 5_000
    assert max(back) < grace_s


def test_agents_that_lose_their_streams_in_one_moment_are_back_as_fast_as_they_are_let_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nobody is sent away twice, and none of the turns is left unused."""
    agents, per_s = 5_000, LimitSettings().hellos_per_s
    back = returns(monkeypatch, agents, outage_s=0.0, grace_s=30.0)
    assert max(back) < 1.1 * agents / per_s


def test_agent_that_knows_no_grace_would_not_be_back_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    back = returns(monkeypatch, 500, 300.0, grace_s=0.0)
    assert max(back) > 25.0


def test_agent_of_a_fast_broker_is_back_within_its_shorter_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    grace_s = DispatchSettings(profile="fast").policy().recovery_grace_us / SECOND_US
    back = returns(monkeypatch, 200, 300.0, grace_s)
    assert max(back) < grace_s
