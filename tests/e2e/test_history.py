"""The checker finds each kind of fault, and finds none in a history that is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.counters import Page
from tests.e2e.history import WRONGS, Budgets, Entry, Fault, History, attempt_key, check, jain, read
from tests.e2e.stored import SECOND_US, StoredAttempt, StoredJob

JOB, ID = 7, bytes(15) + b"\x07"


def submitted(*phases: str, job_id: bytes = ID) -> list[Entry]:
    return [Entry(float(at_s), "submitter", "submit", job_id.hex(), phase) for at_s, phase in enumerate(phases)]


def ran(attempt: int, *, at_s: float = 2.0, agent: str = "a1", end: str = "ok") -> list[Entry]:
    key = attempt_key(JOB, attempt)
    return [Entry(at_s, agent, "run", key, "invoke"), *([Entry(at_s + 0.5, agent, "run", key, end)] if end else [])]


def answered(attempt: int, *, at_s: float = 3.0, agent: str = "a1", answer: str = "ok") -> list[Entry]:
    return [Entry(at_s, agent, "outcome", attempt_key(JOB, attempt), answer)]


def act(op: str, key: str, *, at_s: float, phases: tuple[str, ...] = ("invoke", "ok")) -> list[Entry]:
    return [Entry(at_s + 0.1 * number, "course", op, key, phase) for number, phase in enumerate(phases)]


def given(
    number: int, agent: str = "a1", *, at_s: float = 1.5, until_s: float = 3.0, ending: str = ""
) -> StoredAttempt:
    return StoredAttempt(number, agent, int(at_s * SECOND_US), int(until_s * SECOND_US), ending)


def stored(*attempts: StoredAttempt, state: str = "succeeded", **fields: int | str | bytes) -> StoredJob:
    known = attempts or (given(1),)
    facts = {"job_id": ID, "finished_us": 10 * SECOND_US, **fields}
    return StoredJob(JOB, state=state, attempt=known[-1].number, attempts=known, **facts)  # type: ignore[arg-type]  # of three types


GOOD = [*submitted("invoke", "ok"), *ran(1), *answered(1)]
SECOND = [*ran(2, at_s=4.0, agent="a2"), *answered(2, at_s=5.0, agent="a2")]
RERUN = [*submitted("invoke", "ok"), *ran(1, end=""), *SECOND]
LOST_FIRST = stored(given(1, ending="lost"), given(2, "a2", at_s=3.5, until_s=5.0))
FAILED_FIRST = stored(given(1, ending="failed"), given(2, at_s=3.5, until_s=5.0))


def test_checker_finds_nothing_when_all_is_right() -> None:
    findings = check(GOOD, [stored()])

    assert findings.wrong() == {}
    assert (findings.acknowledged, findings.final) == (1, 1)


def test_checker_accepts_a_job_that_is_stored_when_its_answer_was_lost() -> None:
    assert check([*submitted("invoke", "info"), *ran(1), *answered(1)], [stored()]).wrong() == {}


def test_checker_accepts_a_second_attempt_when_the_first_never_arrived() -> None:
    entries = [*submitted("invoke", "ok"), *SECOND]

    assert check(entries, [stored(given(1, ending="not_listed"), given(2, "a2"))]).wrong() == {}


def test_checker_accepts_a_second_attempt_when_the_first_failed() -> None:
    entries = [*submitted("invoke", "ok"), *ran(1, end="fail"), *answered(1), *SECOND]

    assert check(entries, [FAILED_FIRST]).wrong() == {}


@pytest.mark.parametrize("op", ["kill", "freeze", "cut", "disable_now"])
def test_checker_accepts_a_second_run_when_the_first_agent_had_a_fault(op: str) -> None:
    stopped = [] if op == "kill" else [Entry(2.5, "a1", "run", attempt_key(JOB, 1), "info")]
    entries = sorted([*RERUN, *stopped, *act(op, "a1", at_s=2.2)])

    findings = check(entries, [LOST_FIRST])

    assert findings.wrong() == {}
    assert findings.faults == [Fault(op, "a1", 2.2, 2.2 + 0.1, in_flight=1)]


def test_checker_accepts_a_second_run_when_a_connection_was_cut_off_before_the_first_was_accepted() -> None:
    stopped = Entry(2.9, "a1", "run", attempt_key(JOB, 1), "info")

    findings = check(sorted([*RERUN, stopped, *act("reset", "broker", at_s=2.8)]), [LOST_FIRST])

    assert findings.wrong() == {}


def test_checker_counts_outcomes_that_were_refused() -> None:
    late = [*ran(1, end=""), Entry(6.0, "a1", "run", attempt_key(JOB, 1), "ok"), *answered(1, at_s=7.0, answer="fail")]
    entries = sorted([*submitted("invoke", "ok"), *late, *SECOND, *act("freeze", "a1", at_s=2.2, phases=("invoke",))])

    findings = check(entries, [LOST_FIRST])

    assert findings.wrong() == {}
    assert findings.stale_refused == 1


def test_checker_sees_how_even_the_work_was_also_over_agents_that_were_given_none() -> None:
    sessions = [Entry(0.5, agent, "session", agent, "ok") for agent in ("a1", "a2")]

    findings = check([*sessions, *GOOD], [stored()])

    assert findings.assigned == {"a1": 1, "a2": 0}
    assert findings.evenness == 0.5
    assert jain([3, 3, 3]) == jain([]) == 1.0


def test_checker_says_that_a_fault_hit_nothing_when_nothing_ran() -> None:
    entries = sorted([*GOOD, *act("kill", "a1", at_s=8.0), *act("kill", "broker", at_s=2.2)])

    assert [(fault.key, fault.in_flight) for fault in check(entries, [stored()]).faults] == [("broker", 1), ("a1", 0)]


GONE_BACK = stored(
    given(1, at_s=1.5, until_s=2.5, ending="lost"), given(2, "a2", at_s=3.5, until_s=5.0), accepted_us=SECOND_US
)
FIGURES: dict[tuple[str, tuple[str, ...]], float] = {
    ("mesh_jobs_submitted_total", ()): 1.0,
    **{("mesh_jobs_finished_total", (state,)): 0.0 for state in ("failed", "cancelled", "dead")},
    ("mesh_jobs_finished_total", ("succeeded",)): 1.0,
    ("mesh_job_latency_seconds_count", ()): 1.0,
    ("mesh_attempts_assigned_total", ()): 2.0,
    ("mesh_agent_attempts_assigned_total", ("a1",)): 1.0,
    ("mesh_agent_attempts_assigned_total", ("a2",)): 1.0,
    ("mesh_job_wait_seconds_count", ()): 1.0,
    ("mesh_jobs_returned_total", ("agent_lost",)): 1.0,
    ("mesh_jobs_waiting", ("queued",)): 0.0,
    ("mesh_jobs_oldest_age_seconds", ()): 0.0,
    ("mesh_agents", ("active",)): 1.0,
    ("mesh_agents", ("no_response",)): 1.0,
}
"""What a broker tells of this job and of its agents."""


def told(others: dict[tuple[str, tuple[str, ...]], float]) -> Page:
    samples: dict[str, dict[tuple[str, ...], float]] = {}
    for (name, labels), figure in (FIGURES | others).items():
        samples.setdefault(name, {})[labels] = figure
    return Page(SECOND_US // 2, samples, agents=["a1", "a2"])


def test_checker_says_how_long_jobs_waited_during_a_fault_and_after() -> None:
    other = bytes(15) + b"\x08"
    later = [Entry(at_s, "s", "submit", other.hex(), phase) for at_s, phase in ((5.0, "invoke"), (5.25, "ok"))]
    entries = sorted([*RERUN, *later, *act("kill", "a1", at_s=2.2)])

    found = check(entries, [LOST_FIRST])

    # The first job was accepted and had begun before the kill.
    assert found.latency_ms == {"accepted_p99_after_ms": 250.0}


def test_checker_says_how_long_jobs_waited_that_a_fault_kept_waiting() -> None:
    entries = sorted([*submitted("invoke", "ok"), *SECOND, *act("restart", "broker", at_s=0.5)])

    assert check(entries, [stored()]).latency_ms == {"accepted_p99_during_ms": 1_000.0, "begun_p99_during_ms": 4_000.0}


def test_checker_says_nothing_of_waiting_where_there_was_no_fault() -> None:
    assert check(GOOD, [stored()]).latency_ms == {}


WRONG_HISTORIES: list[tuple[str, list[Entry], list[StoredJob]]] = [
    ("lost", GOOD, []),
    ("lost", GOOD, [stored(state="running", phase="accepted")]),
    ("phantom", [], [stored()]),
    ("phantom", submitted("invoke", "fail"), [stored()]),
    ("double", [*GOOD, *answered(1, at_s=4.0)], [stored()]),
    ("double", [*GOOD, *ran(2), *answered(2)], [FAILED_FIRST]),
    ("unfenced", GOOD, [FAILED_FIRST]),
    ("unfounded", submitted("invoke", "ok"), [stored()]),
    ("unfounded", [*submitted("invoke", "ok"), *ran(1, end="fail"), *answered(1)], [stored()]),
    ("ran_after_terminal", [*GOOD, *ran(2, at_s=9.0)], [FAILED_FIRST]),
    ("ran_after_terminal", GOOD, [stored(given(1), given(2, at_s=11.0))]),
    ("ran_twice", [*GOOD, *ran(1)], [stored()]),
    ("dispatched_while", [*GOOD, *act("drain", "a1", at_s=0.5)], [stored()]),
    ("dispatched_while", [*GOOD, *act("disable", "a1", at_s=0.5), *act("enable", "a1", at_s=1.7)], [stored()]),
    ("dispatched_while", [*GOOD, *act("disable_now", "a1", at_s=0.5)], [stored()]),
    ("over_max", GOOD, [stored(failures=4)]),
    ("over_max", GOOD, [stored(crashes=4)]),
    ("over_max", GOOD, [stored(bounces=21)]),
    ("stuck", GOOD, [stored(state="queued")]),
    ("stuck", GOOD, [stored(phase="accepted")]),
    ("stuck", [*submitted("invoke", "ok"), *ran(1, end=""), *SECOND], [LOST_FIRST]),
    ("wasted", [*GOOD, *ran(2, at_s=2.0)], [stored(given(1, ending="lost"), given(2))]),
    ("wasted", sorted([*RERUN, *act("kill", "a1", at_s=6.0)]), [LOST_FIRST]),
    ("wasted", sorted([*RERUN, *act("kill", "a2", at_s=2.2)]), [LOST_FIRST]),
    ("wasted", sorted([*RERUN, *act("stall", "a1", at_s=2.2)]), [LOST_FIRST]),
    ("wasted", sorted([*RERUN, *act("drain", "a1", at_s=2.2)]), [LOST_FIRST]),
    ("wasted", sorted([*RERUN, *act("reset", "broker", at_s=1.8)]), [LOST_FIRST]),
    ("wasted", sorted([*RERUN, *act("restart", "broker", at_s=2.2)]), [LOST_FIRST]),
]


@pytest.mark.parametrize(("name", "entries", "jobs"), WRONG_HISTORIES)
def test_checker_finds_what_is_wrong(name: str, entries: list[Entry], jobs: list[StoredJob]) -> None:
    assert name in check(sorted(entries), jobs).wrong()


RETURNED = ("mesh_jobs_returned_total", ("agent_lost",))


@pytest.mark.parametrize(
    ("key", "figure"),
    [
        (("mesh_jobs_submitted_total", ()), 2.0),
        (("mesh_jobs_submitted_total", ()), 0.0),
        (("mesh_jobs_finished_total", ("succeeded",)), 0.0),
        (("mesh_jobs_finished_total", ("dead",)), 1.0),
        (("mesh_job_latency_seconds_count", ()), 2.0),
        (("mesh_attempts_assigned_total", ()), 1.0),
        (("mesh_agent_attempts_assigned_total", ("a1",)), 0.0),
        (("mesh_job_wait_seconds_count", ()), 2.0),
        (RETURNED, 0.0),
        (("mesh_jobs_waiting", ("queued",)), 1.0),
        (("mesh_jobs_oldest_age_seconds", ()), 0.5),
        (("mesh_agents", ("active",)), 2.0),
    ],
)
def test_checker_finds_a_figure_of_the_page_that_is_not_that_of_the_store(
    key: tuple[str, tuple[str, ...]], figure: float
) -> None:
    [wrong] = check(RERUN, [GONE_BACK], page=told({key: figure})).counters

    assert wrong.startswith(key[0])


def test_checker_finds_nothing_when_the_page_says_what_the_store_says() -> None:
    assert check(RERUN, [GONE_BACK], page=told({})).counters == []
    assert check(RERUN, [GONE_BACK], page=told({RETURNED: 2.0})).counters == []  # under one row


def test_checker_counts_only_what_the_last_broker_did() -> None:
    second = {
        ("mesh_jobs_submitted_total", ()): 0.0,
        ("mesh_attempts_assigned_total", ()): 1.0,
        ("mesh_agent_attempts_assigned_total", ("a1",)): 0.0,
        ("mesh_job_wait_seconds_count", ()): 0.0,
        RETURNED: 0.0,
    }
    page = told(second)._replace(since_us=3 * SECOND_US)

    assert check(RERUN, [GONE_BACK], page=page).counters == []
    assert len(check(RERUN, [GONE_BACK], page=told(second)).counters) == len(second)


def test_checker_holds_the_page_of_one_group_against_its_jobs_only() -> None:
    other = stored(accepted_us=SECOND_US, group="default/other")

    assert check(RERUN, [GONE_BACK, other], page=told({})).counters == []


def test_checker_takes_no_agent_for_an_earlier_one_of_its_name() -> None:
    page = told({("mesh_agent_attempts_assigned_total", ("a1",)): 0.0})

    assert check(RERUN, [GONE_BACK], page=page._replace(removed=["a1"])).counters == []


def test_checker_finds_that_a_page_says_nothing() -> None:
    assert "mesh_jobs_submitted_total{}: not told, stored 1" in check(RERUN, [GONE_BACK], page=Page(0, {})).counters


def test_every_figure_of_the_checker_is_broken_by_one_of_these_histories() -> None:
    assert {name for name, _, _ in WRONG_HISTORIES} | {"counters"} == set(WRONGS)


def test_checker_counts_failures_that_the_store_has_forgotten() -> None:
    failures = [
        line for number in (1, 2, 3) for line in (*ran(number, at_s=2.0 * number, end="fail"), *answered(number))
    ]
    entries = sorted([*submitted("invoke", "ok"), *failures, *ran(4, at_s=8.0), *answered(4, at_s=9.0)])
    attempts = [given(number, ending="failed") for number in (1, 2, 3)]

    job = stored(*attempts, given(4))

    assert check(entries, [job], Budgets(failures=2)).wrong() == {"over_max": [str(JOB)]}
    assert check(entries, [job], Budgets(failures=3)).wrong() == {}


def test_checker_lets_an_agent_be_given_work_when_it_was_resumed() -> None:
    entries = sorted([*GOOD, *act("drain", "a1", at_s=0.5), *act("resume", "a1", at_s=1.2)])

    assert check(entries, [stored()]).wrong() == {}


def test_history_is_read_in_the_order_of_time_without_a_line_that_was_cut_off(tmp_path: Path) -> None:
    first, second = History(tmp_path / "one", "one"), History(tmp_path / "two", "two")
    for history, key in ((first, "a"), (second, "b"), (first, "c")):
        history.add("submit", key, "invoke")
    with second.during("kill", "d"):
        pass
    first.close()
    second.close()
    with (tmp_path / "two").open("a") as file:
        file.write('{"t": 1.0, "proc')

    found = [(entry.key, entry.phase) for entry in read([tmp_path / "one", tmp_path / "two"])]
    assert found == [("a", "invoke"), ("b", "invoke"), ("c", "invoke"), ("d", "invoke"), ("d", "ok")]
