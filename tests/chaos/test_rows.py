"""The short form of each row; the whole of it is `make chaos`."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from tests.chaos.campaign import NEVER_FIRED, play, row_result, wrong
from tests.chaos.machine import NEEDS, missing
from tests.chaos.row import Control, MissedError, Ran, Row, RowError, Trial
from tests.chaos.rows import ROWS
from tests.chaos.stage import each
from tests.conftest import not_run

SEED = 11


def quiet(text: str) -> None:
    """Nobody listens."""


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.timeout(400)  # the longest is a minute where nothing else runs
@pytest.mark.parametrize("row", [row for row in ROWS if row.is_in_suite], ids=lambda row: row.id)
async def test_mesh_keeps_its_promises_under_fault(row: Row) -> None:
    result = await row_result(row, seed=SEED, is_full=False, say=quiet)

    if result["status"] == "not_run":
        not_run(result["reason"])
    assert wrong(result, must_run=True) == []


def test_rows_have_names_of_their_own_and_known_needs() -> None:
    assert len({row.id for row in ROWS}) == len(ROWS)
    assert {need for row in ROWS for need in row.needs} <= set(NEEDS)


def test_rows_say_their_fault_in_a_sentence_for_the_table() -> None:
    assert [row.fault for row in ROWS if not (row.fault[0].isupper() or row.fault[0].isdigit())] == []


def test_rows_have_a_control_or_name_the_row_whose_control_stands_for_theirs() -> None:
    controlled = {row.id for row in ROWS if row.control is not None}

    assert [row.id for row in ROWS if (row.control is None) != (row.control_of in controlled)] == []


# --- what the campaign makes of a run ---------------------------------------------------------------------------------


async def good(trial: Trial) -> Ran:
    return Ran("1 job/s", fired=1, recovery_ms=[3.0])


async def bad(trial: Trial) -> Ran:
    return Ran("1 job/s", fired=1, violations=["lost: 7"])


async def never(trial: Trial) -> Ran:
    return Ran("1 job/s")


async def breaks_off(trial: Trial) -> Ran:
    raise AssertionError("it stands still")


async def cannot(trial: Trial) -> Ran:
    raise RowError("no device")


async def misses(trial: Trial) -> Ran:
    raise MissedError("nobody was there")


async def is_confused(trial: Trial) -> Ran:
    raise KeyError("a1")


async def cannot_under_load(trial: Trial) -> Ran:
    raise ExceptionGroup("load", [ExceptionGroup("faults", [RowError("no device")])])


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        (Row("a", "", good), []),
        (Row("a", "", bad), ["lost: 7"]),
        (Row("a", "", never), ["the fault never fired: the run shows nothing"]),
        (Row("a", "", breaks_off), ["broke off with AssertionError at breaks_off: it stands still"]),
        (Row("a", "", misses), ["broke off with MissedError at misses: nobody was there"]),
        (Row("a", "", is_confused), ["broke off with KeyError at is_confused: 'a1'"]),
        (Row("a", "", cannot), ["not run: no device"]),
        (Row("a", "", bad, control=Control("known", cannot)), ["lost: 7"]),
        (Row("a", "", cannot_under_load), ["not run: no device"]),
        (Row("a", "", good, control=Control("known", bad)), []),
        (
            Row("a", "", good, control=Control("tame", good)),
            ["the control tame was not caught: the row proves nothing"],
        ),
        (Row("a", "", good, control=Control("known", bad, finds="lost")), []),
        (
            Row("a", "", good, control=Control("other", bad, finds="double")),
            ["the control other was not caught: the row proves nothing"],
        ),
        (Row("a", "", good, control=Control("long", good, is_in_suite=False)), []),
        (
            Row("a", "", good, control=Control("dead", breaks_off)),
            ["the control dead was not caught: the row proves nothing"],
        ),
        (Row("a", "", good, control=Control("still", breaks_off, finds="stands still")), []),
    ],
    ids=[
        *("good", "violated", "never-fired", "broke-off", "missed", "confused", "cannot", "violated-and-cannot"),
        "cannot-under-load",
        *("control-caught", "control-missed", "control-caught-for-what-it-is", "control-caught-for-another-reason"),
        *("control-not-in-the-suite", "control-that-broke-off", "control-known-for-standing-still"),
    ],
)
async def test_campaign_says_why_a_row_is_not_good(row: Row, texts: list[str]) -> None:
    assert wrong(await row_result(row, seed=1, is_full=False, say=quiet), must_run=True) == texts


async def test_campaign_files_no_injection_of_a_run_that_broke_off() -> None:
    result = await row_result(Row("a", "", breaks_off), seed=1, is_full=False, say=quiet)

    assert (result["fired"], result["runs"]) == (0, 1)


async def test_campaign_runs_a_row_as_often_as_the_table_asks_each_with_a_seed_of_its_own() -> None:
    seeds: list[int] = []

    async def run(trial: Trial) -> Ran:
        seeds.append(trial.seed)
        return Ran("", fired=1, recovery_ms=[float(trial.seed)])

    result = await row_result(Row("a", "", run, runs=3), seed=5, is_full=True, say=quiet)

    assert seeds == [5, 6, 7]
    assert (result["runs"], result["fired"]) == (3, 3)
    assert result["recovery_ms"] == {"p50": 6.0, "p99": 7.0}


async def test_campaign_forgives_no_run_that_hit_nothing_when_others_did() -> None:
    async def run(trial: Trial) -> Ran:
        return Ran("", fired=trial.seed % 2)

    result = await row_result(Row("a", "", run, runs=2), seed=1, is_full=True, say=quiet)

    assert result["fired"] == 1
    assert wrong(result, must_run=True) == [NEVER_FIRED]


async def test_campaign_counts_no_run_whose_fault_hit_less_often_than_it_says() -> None:
    async def run(trial: Trial) -> Ran:
        return Ran("", fired=3, wanted=4)

    result = await row_result(Row("a", "", run), seed=1, is_full=True, say=quiet)

    assert wrong(result, must_run=True) == ["the fault fired 3 times, wanted are 4"]


async def test_controls_together_are_caught_only_if_each_is_found_for_what_it_is() -> None:
    still = Control("still", breaks_off, finds="stands still")
    found = each(still, Control("known", bad, finds="lost"))
    missed = each(still, Control("tame", good, finds="lost"))

    rows = [Row("a", "", good, control=control) for control in (found, missed)]
    results = [await row_result(row, seed=1, is_full=False, say=quiet) for row in rows]

    assert [result["control"]["caught"] for result in results] == [True, False]
    assert results[1]["control"]["how"] == ["tame: not caught: []"]


async def test_run_that_takes_too_long_is_a_violation() -> None:
    async def run(trial: Trial) -> Ran:
        await asyncio.Event().wait()
        return Ran("")

    ran = await play(run, seed=1, is_full=False, timeout_s=0.01)

    assert "TimeoutError" in ran.violations[0]


def test_machine_names_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NEEDS, "wings", lambda: "it cannot fly")
    monkeypatch.setitem(NEEDS, "legs", lambda: "")

    assert missing(()) == ""
    assert missing(("legs", "wings")) == "it cannot fly"


def test_machine_that_may_not_trace_lacks_strace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refusing = tmp_path / "strace"
    refusing.write_text("#!/bin/sh\necho 'ptrace: Operation not permitted' >&2\nexit 1\n")
    refusing.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    assert NEEDS["strace"]() == "strace cannot trace here: ptrace: Operation not permitted"
