"""The checker finds each kind of fault, and finds none in a history that is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.history import Entry, History, attempt_key, check, read
from tests.e2e.processes import JobRecord

JOB, ID = 7, bytes(15) + b"\x07"


def submitted(*phases: str, job_id: bytes = ID) -> list[Entry]:
    return [Entry(float(at_s), "submitter", "submit", job_id.hex(), phase) for at_s, phase in enumerate(phases)]


def ran(attempt: int, *, at_s: float = 2.0, agent: str = "a1") -> list[Entry]:
    key = attempt_key(JOB, attempt)
    return [Entry(at_s, agent, "run", key, "invoke"), Entry(at_s + 0.5, agent, "run", key, "ok")]


def accepted(attempt: int, *, at_s: float = 3.0, agent: str = "a1") -> list[Entry]:
    return [Entry(at_s, agent, "outcome", attempt_key(JOB, attempt), "ok")]


def stored(
    state: str = "succeeded", attempt: int = 1, earlier: tuple[tuple[int, str, str], ...] = (), job_id: bytes = ID
) -> JobRecord:
    return JobRecord(JOB, job_id, state, attempt, "a1", accepted_us=1, finished_us=2, attempts=earlier)


GOOD = [*submitted("invoke", "ok"), *ran(1), *accepted(1)]


def test_checker_finds_nothing_when_all_is_right() -> None:
    findings = check(GOOD, [stored()])

    assert findings.wrong() == {}
    assert (findings.acknowledged, findings.final) == (1, 1)


def test_checker_accepts_a_job_that_is_stored_when_its_answer_was_lost() -> None:
    assert check([*submitted("invoke", "info"), *ran(1), *accepted(1)], [stored()]).wrong() == {}


def test_checker_accepts_a_second_attempt_when_the_first_never_arrived() -> None:
    entries = [*submitted("invoke", "ok"), *ran(2), *accepted(2)]

    assert check(entries, [stored(attempt=2, earlier=((1, "a1", "not_listed"),))]).wrong() == {}


def test_checker_accepts_a_second_run_when_the_first_agent_was_killed() -> None:
    entries = [*submitted("invoke", "ok"), *ran(1, agent="a2")[:1], *ran(2, at_s=4.0), *accepted(2, at_s=5.0)]
    records = [stored(attempt=2, earlier=((1, "a2", "lost"),))]

    assert check(entries, records, killed=["a2"]).wrong() == {}
    assert check(entries, records).wrong() == {"needless_reruns": [attempt_key(JOB, 1)]}


@pytest.mark.parametrize(
    ("entries", "records", "name"),
    [
        (GOOD, [], "lost"),
        (GOOD, [stored("running")], "lost"),
        ([], [stored()], "phantom"),
        (submitted("invoke", "fail"), [stored()], "phantom"),
        ([*GOOD, *accepted(1, at_s=4.0)], [stored()], "double"),
        ([*GOOD, *ran(2, at_s=2.0), *accepted(2)], [stored(attempt=2, earlier=((1, "a1", "failed"),))], "double"),
        (GOOD, [stored(attempt=2, earlier=((1, "a1", "failed"),))], "unfenced"),
        ([*GOOD, *ran(2, at_s=9.0)], [stored(attempt=2, earlier=((1, "a1", "failed"),))], "ran_after_final"),
        ([*GOOD, *ran(1)], [stored()], "ran_twice"),
        ([*GOOD, *ran(2, at_s=2.0)], [stored(attempt=2)], "needless_reruns"),
    ],
)
def test_checker_finds_what_is_wrong(entries: list[Entry], records: list[JobRecord], name: str) -> None:
    assert name in check(sorted(entries), records).wrong()


def test_history_is_read_in_the_order_of_time_without_a_line_that_was_cut_off(tmp_path: Path) -> None:
    first, second = History(tmp_path / "one", "one"), History(tmp_path / "two", "two")
    for history, key in ((first, "a"), (second, "b"), (first, "c")):
        history.add("submit", key, "invoke")
    first.close()
    second.close()
    with (tmp_path / "two").open("a") as file:
        file.write('{"t": 1.0, "proc')

    assert [entry.key for entry in read([tmp_path / "one", tmp_path / "two"])] == ["a", "b", "c"]
