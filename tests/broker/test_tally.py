from __future__ import annotations

from broker.tally import LITTLE, WINDOW_S, Tally


def test_source_says_little_until_it_has_said_more_than_that_in_two_windows() -> None:
    tally = Tally()
    assert tally.note("a", LITTLE // 2, 10.0)
    assert tally.note("b", 1, 10.0)
    assert tally.note("a", LITTLE // 2, 10.0 + WINDOW_S)
    assert not tally.note("a", 1, 10.0 + WINDOW_S)
    assert not tally.says_little("a")
    assert tally.says_little("b")
    assert tally.is_anybody_modest()


def test_source_says_little_again_when_it_was_quiet_for_two_windows() -> None:
    tally = Tally()
    assert not tally.note("a", LITTLE + 1, 10.0)
    assert not tally.note("a", 0, 10.0 + WINDOW_S)
    assert tally.note("a", 0, 10.0 + 2 * WINDOW_S)
    assert not tally.note("a", LITTLE + 1, 20.0)
    assert tally.note("a", LITTLE, 20.0 + 2 * WINDOW_S)


def test_nobody_modest_is_about_when_those_who_were_have_been_quiet_for_two_windows() -> None:
    tally = Tally()
    assert not tally.is_anybody_modest()
    assert tally.note("a", 1, 10.0)
    assert not tally.note("flood", LITTLE + 1, 10.0 + WINDOW_S)
    assert tally.is_anybody_modest()
    assert not tally.note("flood", LITTLE + 1, 10.0 + 2 * WINDOW_S)
    assert not tally.is_anybody_modest()


def test_source_that_says_more_than_little_is_no_longer_modest() -> None:
    tally = Tally()
    assert tally.note("a", LITTLE, 10.0)
    assert not tally.note("a", 1, 10.0)
    assert not tally.is_anybody_modest()
