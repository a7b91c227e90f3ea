import random

import pytest

from agent_stub.backoff import Backoff


class Fixed:
    def __init__(self, value: float) -> None:
        self.value = value

    def random(self) -> float:
        return self.value


def test_backoff_doubles_its_range_up_to_the_cap() -> None:
    backoff = Backoff(Fixed(0.5))
    delays = [backoff.next_delay_s() for _ in range(12)]
    assert delays[:5] == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8])
    assert delays[-1] == pytest.approx(15.0)


def test_backoff_first_delay_is_anywhere_in_the_first_tenth_of_a_second() -> None:
    generator = random.Random(7)
    delays = [Backoff(generator).next_delay_s() for _ in range(2_000)]
    assert 0.0 <= min(delays) < 0.002
    assert 0.098 < max(delays) < 0.1
    assert sum(delays) / len(delays) == pytest.approx(0.05, rel=0.05)


def test_backoff_never_dials_before_the_peer_allows_and_spreads_beyond() -> None:
    backoff = Backoff(Fixed(0.5))
    assert backoff.next_delay_s(retry_after_s=3.0) == pytest.approx(3.05)
    assert backoff.next_delay_s(retry_after_s=-1.0) == pytest.approx(0.1)


def test_backoff_adds_little_to_a_time_that_the_peer_names_however_long_nobody_had_answered() -> None:
    backoff = Backoff(Fixed(1.0))
    for _ in range(12):
        backoff.next_delay_s()
    assert [backoff.next_delay_s(6.0) for _ in range(3)] == pytest.approx([6.1, 6.2, 6.4])
    assert backoff.next_delay_s() == pytest.approx(0.8)


def test_backoff_spreads_more_and_more_if_the_peer_goes_on_to_name_the_same_time() -> None:
    backoff = Backoff(Fixed(1.0))
    assert max(backoff.next_delay_s(1.0) for _ in range(12)) == pytest.approx(31.0)


@pytest.mark.parametrize(("lasted_s", "next_s"), [(0.2, 30.0), (3.5, 0.1)])
def test_backoff_begins_again_after_a_session_that_lasted(lasted_s: float, next_s: float) -> None:
    """One of 3.5 s is what a broker leaves that is killed every five seconds and starts in one and a half."""
    backoff = Backoff(Fixed(1.0))
    for _ in range(10):
        backoff.next_delay_s()
    backoff.session_over(lasted_s)
    assert backoff.next_delay_s() == pytest.approx(next_s)


@pytest.mark.parametrize(("first_s", "cap_s"), [(0.0, 1.0), (2.0, 1.0)])
def test_backoff_refuses_a_range_that_is_none(first_s: float, cap_s: float) -> None:
    with pytest.raises(ValueError, match="back-off needs"):
        Backoff(Fixed(0.0), first_s, cap_s)


def test_backoff_stays_below_the_bound_that_the_broker_implies_and_spreads_below_it() -> None:
    backoff = Backoff(random.Random(3))
    for _ in range(12):
        backoff.next_delay_s()
    backoff.bound(10.0)
    delays = [backoff.next_delay_s() for _ in range(2_000)]
    assert max(delays) < 10.0
    assert sum(delays) / len(delays) == pytest.approx(5.0, rel=0.05)


def test_backoff_is_bounded_anew_and_never_wider_than_at_first_nor_below_the_first_range() -> None:
    backoff = Backoff(Fixed(1.0), cap_s=8.0)
    for bound_s, most_s in ((2.0, 2.0), (0.0, 2.0), (100.0, 8.0), (0.001, 0.1)):
        backoff.bound(bound_s)
        assert max(backoff.next_delay_s() for _ in range(12)) == pytest.approx(most_s)
