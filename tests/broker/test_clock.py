"""Engine time never steps."""

import pytest

from broker.clock import ClockBehindError, EngineClock


class Hands:
    """A wall clock and a monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.wall_ns = 1_000_000_000_000
        self.monotonic_ns = 5_000_000_000

    def clock(self) -> EngineClock:
        return EngineClock(lambda: self.wall_ns, lambda: self.monotonic_ns)


def test_clock_goes_on_with_the_monotonic_clock_when_the_wall_clock_jumps() -> None:
    hands = Hands()
    clock = hands.clock()
    before_us = clock.now_us()
    hands.wall_ns -= 3_600_000_000_000
    hands.monotonic_ns += 2_000_000
    assert clock.now_us() == before_us + 2_000


def test_clock_refuses_a_start_far_before_the_last_commit_and_names_both_times() -> None:
    clock = Hands().clock()
    with pytest.raises(ClockBehindError, match=r"1000\.000 s.*1006\.000 s"):
        clock.resume_from(1_006_000_000)


def test_clock_never_goes_behind_what_was_committed_when_it_is_a_little_late() -> None:
    clock = Hands().clock()
    clock.resume_from(1_003_000_000)
    assert clock.now_us() == 1_003_000_000
