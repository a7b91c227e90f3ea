from __future__ import annotations

from datetime import UTC, datetime

import pytest

from broker.cli.choice import Choice, start_of, time_of
from broker.cli.exits import UsageError

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", "2026-11-21T09:58:30+00:00"),
        ("30m", "2026-11-21T09:30:00+00:00"),
        ("1.5h", "2026-11-21T08:30:00+00:00"),
        ("7d", "2026-11-14T10:00:00+00:00"),
        ("2w", "2026-11-07T10:00:00+00:00"),
        ("2026-11-21T12:00:00+02:00", "2026-11-21T10:00:00+00:00"),
        ("2026-11-21T10:00:00Z", "2026-11-21T10:00:00+00:00"),
    ],
)
def test_time_is_so_long_ago_or_a_date(text: str, expected: str) -> None:
    found = time_of("--since", text, NOW)
    assert found is not None
    assert found.isoformat() == expected


def test_time_without_a_zone_is_that_of_this_machine() -> None:
    found = time_of("--since", "2026-11-21T10:00")
    assert found == datetime(2026, 11, 21, 10, 0).astimezone(UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30m", "2026-11-21T10:30:00+00:00"),
        ("500ms", "2026-11-21T10:00:00.500000+00:00"),
        ("2026-11-21T12:00:00Z", "2026-11-21T12:00:00+00:00"),
    ],
)
def test_start_is_so_long_from_now_or_a_date(text: str, expected: str) -> None:
    found = start_of("--start-at", text, NOW)
    assert found is not None
    assert found.isoformat() == expected


def test_start_that_is_over_is_refused() -> None:
    with pytest.raises(UsageError, match="--start-at 2020-01-01: this is over"):
        start_of("--start-at", "2020-01-01", NOW)


def test_start_that_is_no_time_is_refused_with_times_to_come() -> None:
    with pytest.raises(UsageError, match="from now"):
        start_of("--start-at", "soon", NOW)


@pytest.mark.parametrize(
    "text", ["", "yesterday", "7x", "2026-13-01", "d", "99999999999w", "3000000d", f"{'9' * 400}s"]
)
def test_time_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--since"):
        time_of("--since", text)


def test_choice_of_nothing_is_all_and_says_nothing() -> None:
    assert Choice().is_all
    assert {key: value for key, value in Choice().chosen().items() if value} == {}


def test_dead_letters_are_a_state_and_no_other() -> None:
    assert Choice(dead=True).chosen()["state"] == Choice(state="dead").chosen()["state"] == "dead"
    with pytest.raises(UsageError, match="--dead is --state dead"):
        Choice(dead=True, state="failed").chosen()
