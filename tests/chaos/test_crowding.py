from __future__ import annotations

import pytest

from tests.chaos import floods
from tests.chaos.crowding import compared, is_at_most_doubled

CALM = [1.0] * 98 + [10.0, 10.0]


@pytest.mark.parametrize(
    ("with_ms", "is_kept"),
    [(CALM, True), ([1.0] * 98 + [24.0, 24.0], True), ([1.0] * 98 + [26.0, 26.0], False)],
    ids=["the-same", "doubled-and-noise", "more"],
)
def test_waits_may_double_and_no_more(with_ms: list[float], is_kept: bool) -> None:
    figures = compared(CALM, with_ms)

    assert figures["wait_p99_without_ms"] == 10.0
    assert is_at_most_doubled(figures, noise_ms=5.0) is is_kept


def test_neighbour_takes_its_share_of_a_core_and_no_more() -> None:
    counts = floods.neighbour("0.3", seed=0, number=1)

    lasted_ms = counts["ended_ms"] - counts["began_ms"]
    assert lasted_ms >= 999
    assert 0 < counts["busy_ms"] < 0.6 * lasted_ms
