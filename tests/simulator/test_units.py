"""Quantities as people write them."""

import pytest

from simulator.units import (
    UnitError,
    duration_text,
    money_of,
    nearest,
    rate_of,
    rate_text,
    seconds_of,
    share_of,
    share_text,
)


@pytest.mark.parametrize(
    ("text", "seconds"), [("250 ms", 0.25), ("10min", 600.0), ("30 d", 2_592_000.0), ("1.5 h", 5400.0), (0, 0.0)]
)
def test_duration_is_read_with_its_unit(text: object, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10 mins", "did you mean `min`"),
        (400, "400 has no unit"),
        ("-5 s", "cannot be negative"),
        ("400000 d", "longer than a thousand years"),
        ("soon", "not a duration"),
    ],
)
def test_duration_is_refused_in_words_when_it_is_none(text: object, says: str) -> None:
    with pytest.raises(UnitError, match=says):
        seconds_of(text)


def test_rate_is_read_per_second_whatever_its_unit() -> None:
    assert rate_of("6/h") == pytest.approx(6 / 3600)
    assert rate_of("100/s") == 100.0


@pytest.mark.parametrize("text", ["100", "100/sek", "-1/s", "2000000/s"])
def test_rate_is_refused_when_it_is_none(text: str) -> None:
    with pytest.raises(UnitError):
        rate_of(text)


def test_share_is_read_as_per_cent_or_as_a_number() -> None:
    assert share_of("5 %") == share_of("0.05") == 0.05
    for wrong in ("120 %", "1.2", "many"):
        with pytest.raises(UnitError):
            share_of(wrong)


def test_money_needs_its_currency() -> None:
    assert money_of("0.21 EUR") == (0.21, "EUR")
    with pytest.raises(UnitError):
        money_of("0.21")


@pytest.mark.parametrize("seconds", [0.0, 0.25, 6e-05, 90.0, 3600.0, 1 / 3, 4.5e6, 0.0123])
def test_duration_text_reads_back_as_the_same_number(seconds: float) -> None:
    assert seconds_of(duration_text(seconds)) == seconds


@pytest.mark.parametrize("value", [100.0, 0.1, 1 / 3, 6 / 3600])
def test_rate_and_share_texts_read_back_as_the_same_number(value: float) -> None:
    assert rate_of(rate_text(value)) == value
    assert value > 1 or share_of(share_text(value)) == value


def test_nearest_names_what_was_probably_meant() -> None:
    assert "`attempts`" in nearest("atempts", ["arrivals", "attempts", "duration"])
    assert nearest("xyz", ["b", "a"]) == "known are: a, b"
