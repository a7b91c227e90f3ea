"""How soon the work of an agent that is gone begins elsewhere."""

from __future__ import annotations

from tests.chaos.elsewhere import moved, too_late
from tests.e2e.history import Entry, Fault
from tests.e2e.stored import SECOND_US, StoredAttempt, StoredJob

KILL = Fault("kill", "a1", 10.0, 11.0, 2)


def attempt(number: int, agent: str, assigned_s: float, ended_s: float = 0.0) -> StoredAttempt:
    return StoredAttempt(number, agent, int(assigned_s * SECOND_US), int(ended_s * SECOND_US), "lost")


def job(key: int, *attempts: StoredAttempt) -> StoredJob:
    return StoredJob(key, b"", "succeeded", attempts[-1].number, attempts=attempts)


def begun(key: str, t: float, agent: str = "a2") -> Entry:
    return Entry(t, agent, "run", key, "invoke")


def test_what_the_agent_had_begun_is_told_apart_from_what_it_had_only_been_sent() -> None:
    jobs = [
        job(1, attempt(1, "a1", 9.0, 12.0), attempt(2, "a2", 12.0)),
        job(2, attempt(1, "a1", 9.9, 10.1), attempt(2, "a2", 10.1)),
    ]
    entries = [begun("1/1", 9.1, "a1"), begun("2/2", 10.125), begun("1/2", 12.5)]

    assert moved(entries, jobs, KILL) == ([125.0], [2_500.0])


def test_what_was_over_or_elsewhere_at_that_moment_has_not_moved() -> None:
    jobs = [
        job(1, attempt(1, "a1", 5.0, 6.0), attempt(2, "a2", 6.0)),  # over before
        job(2, attempt(1, "a2", 9.0, 12.0), attempt(2, "a3", 12.0)),  # of another agent
        job(3, attempt(1, "a1", 9.0, 12.0), attempt(2, "a2", 12.0)),  # never begun again
        job(4, attempt(1, "a1", 11.0, 12.0), attempt(2, "a2", 12.0)),  # sent afterwards
    ]
    entries = [begun("1/2", 6.1), begun("2/2", 12.1), begun("4/2", 12.1)]

    assert moved(entries, jobs, KILL) == ([], [])


def test_placement_that_no_agent_began_is_passed_over() -> None:
    jobs = [job(1, attempt(1, "a1", 9.0, 10.1), attempt(2, "a3", 10.1, 10.2), attempt(3, "a2", 10.2))]

    assert moved([begun("1/3", 10.25)], jobs, KILL).unaccepted_ms == [250.0]


def test_one_in_a_hundred_may_be_late() -> None:
    assert too_late("begun", [1.0] * 199 + [9.0], 5.0) == []
    assert too_late("begun", [1.0] * 8 + [9.0] * 2, 5.0) == [
        "begun 9 ms (p99 of 10) after the fault, promised are 5 ms"
    ]
    assert too_late("begun", [], 5.0) == []


def test_nobody_may_be_late_where_each_is_promised() -> None:
    assert too_late("ready", [5.0] * 200, 5.0, share=1) == []
    assert too_late("ready", [1.0] * 199 + [9.0], 5.0, share=1) == [
        "ready 9 ms (the slowest of 200) after the fault, promised are 5 ms"
    ]
