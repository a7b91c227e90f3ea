"""A history says when jobs come in a week, how long they run, and how often they fail."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from simulator.calibrate.files import add_history
from simulator.calibrate.history import Past, per_minute, read_history, work_of
from simulator.profile import MINUTES, ProfileError, read

MONDAY = datetime(2026, 1, 5, tzinfo=UTC)
SAID: list[str] = []


def past(at: datetime, ran_s: float = 1.0, *, state: str = "succeeded", attempt: int = 1, failures: int = 0) -> Past:
    return Past("orders", at, at, at + timedelta(seconds=ran_s), state, attempt, failures)


def row(at: datetime, operation: str = "orders") -> dict[str, object]:
    """A job as `mesh jobs list` prints it, as far as it is read."""
    return {
        "operation": operation,
        "accepted_at": at.isoformat(),
        "started_at": (at + timedelta(seconds=1)).isoformat(),
        "finished_at": (at + timedelta(seconds=3)).isoformat(),
        "state": "succeeded",
        "attempt": 1,
        "failures": 0,
    }


def test_minutes_of_the_week_have_the_mean_of_the_weeks_in_which_they_came() -> None:
    busy = [MONDAY + timedelta(minutes=5, seconds=second) for second in range(30)]
    week_later = [at + timedelta(weeks=1) for at in busy[:10]]

    rates = per_minute([*busy, *week_later])

    assert len(rates) == MINUTES
    assert rates[5] == 20
    assert rates[6] == 0


def test_minutes_that_a_short_history_never_saw_have_its_mean() -> None:
    rates = per_minute([MONDAY, MONDAY + timedelta(minutes=1), MONDAY + timedelta(minutes=1, seconds=5)])

    assert (rates[0], rates[1], rates[100]) == (1, 2, 1.5)


def test_durations_are_those_of_jobs_that_ended_at_their_first_attempt() -> None:
    whole = [past(MONDAY + timedelta(minutes=n), ran_s=n + 1) for n in range(40)]
    lost = [past(MONDAY, ran_s=10_000, attempt=2), past(MONDAY, ran_s=20_000, state="cancelled")]

    work = work_of([*whole, *lost])["orders"]

    assert work.jobs == 42
    assert (work.quantiles[0], work.quantiles[-1]) == (1, 40)


def test_failures_are_counted_by_attempt() -> None:
    jobs = [past(MONDAY + timedelta(minutes=n)) for n in range(30)]
    jobs += [past(MONDAY, state="failed") for _ in range(5)]
    jobs += [past(MONDAY, attempt=3, failures=2) for _ in range(5)]

    assert work_of(jobs)["orders"].failure == pytest.approx((5 + 10) / (30 + 5 + 15))


def test_too_short_a_history_is_refused_in_words() -> None:
    with pytest.raises(ProfileError, match="no operation has 20 jobs"):
        work_of([past(MONDAY)])


@pytest.mark.parametrize("is_list", [True, False])
def test_profile_keeps_its_other_work_when_a_file_is_added(tmp_path: Path, *, is_list: bool) -> None:
    profile = tmp_path / "profile.yaml"
    for operation in ("orders", "invoices"):
        rows = [row(MONDAY + timedelta(minutes=n), operation) for n in range(25)]
        file = tmp_path / "jobs.json"
        file.write_text(json.dumps(rows) if is_list else "\n".join(map(json.dumps, rows)))
        add_history(profile, str(file), timedelta(days=28), SAID.append)

    found = read(profile)
    assert set(found.work) == {"orders", "invoices"}
    assert found.work["orders"].quantiles[100] == 2
    assert found.work["orders"].per_minute[3] == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("no json", "jobs.json:1: this is not JSON"),
        ('[{"operation": "orders"}]', "job 1 is not what"),
        ('[{"operation": "orders", "accepted_at": "yesterday", "state": "x"}]', "job 1 is not what"),
    ],
)
def test_file_that_is_no_history_is_refused_in_words(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "jobs.json").write_text(text)

    with pytest.raises(ProfileError, match=words):
        read_history(str(tmp_path / "jobs.json"), timedelta(days=1), SAID.append)


def test_source_that_is_neither_file_nor_broker_is_refused_in_words() -> None:
    with pytest.raises(ProfileError, match="neither a file nor HOST:PORT"):
        read_history("nothing", timedelta(days=1), SAID.append)
