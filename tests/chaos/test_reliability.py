"""The files of results and the table of the page: what ran, what did not, and what must not be overlooked."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos import __main__ as chaos
from tests.chaos.reliability import BEGIN, END, FORMS, SOURCES, Kept, best, kept, mark, sources, table, write_table
from tests.chaos.row import Control, Ran, Row, Trial
from tests.meta.check import ROOT


async def unused(trial: Trial) -> Ran:
    return Ran("")


ROW = Row("disk-full", "the disk is full", unused)
GOOD: dict[str, Any] = {
    "id": "disk-full",
    "fault": "the disk is full",
    "status": "ran",
    "reason": "",
    "fired": 1_200,
    "runs": 2,
    "load": "20 jobs/s",
    "violations": [],
    "recovery_ms": {"p50": 300.0, "p99": 1_250.0},
    "figures": {},
    "control": {"name": "eatmydata", "caught": True, "how": ["lost"]},
}


NOT_RUN: dict[str, object] = {"status": "not_run", "reason": "it needs root"}


def file(folder: Path, form: str, **changes: object) -> None:
    """File a result that differs so from a good one."""
    Kept.of({**GOOD, **changes}, seed=1, is_full=form == "full").file(folder)


def line(tmp_path: Path, **changes: object) -> str:
    """The line of the table for a result that differs so from a good one."""
    folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
    file(folder, "full", **changes)
    return table([ROW], folder).splitlines()[-1]


def test_table_tells_what_a_row_gave(tmp_path: Path) -> None:
    told = line(tmp_path)

    assert told.startswith("| `disk-full`: the disk is full | 20")
    assert told.endswith(f", full, {mark(sources())} | 2 | 1,200 | 20 jobs/s | 0 | 0.30 / 1.25 s | eatmydata: caught |")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"violations": ["lost: 7"]}, "| **1** |"),
        ({"control": {"name": "tame", "caught": False, "how": []}}, "tame: **not caught**"),
        (NOT_RUN, "| not run: it needs root |"),
    ],
    ids=["violated", "control-missed", "not-run"],
)
def test_table_shows_what_is_not_good(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    told = line(tmp_path, **changes)

    assert words in told
    assert told.count("|") == line(tmp_path).count("|")


def test_table_names_rows_that_never_ran(tmp_path: Path) -> None:
    assert best(ROW.id, tmp_path) is None
    assert "| `disk-full`: the disk is full | not run yet |" in table([ROW], tmp_path)


def test_table_says_whose_control_stands_for_a_row_and_that_one_was_not_played(tmp_path: Path) -> None:
    Kept.of({**GOOD, "control": None}, seed=1, is_full=False).file(tmp_path)
    dear = replace(ROW, control=Control("eatmydata", unused, is_in_suite=False))

    assert table([replace(ROW, control_of="power-cut")], tmp_path).endswith("| that of `power-cut` |\n")
    assert table([dear], tmp_path).endswith("| not in the short form |\n")


@pytest.mark.parametrize("form", FORMS)
def test_file_of_a_form_is_left_alone_by_the_other_one(tmp_path: Path, form: str) -> None:
    for other in (form, *FORMS):
        file(tmp_path, other, fired=FORMS.index(other))

    found = kept(ROW.id, form, tmp_path)
    assert found is not None
    assert (found.form, found.result["fired"]) == (form, FORMS.index(form))


@pytest.mark.parametrize("form", FORMS)
def test_file_of_both_forms_is_read_by_what_it_says(tmp_path: Path, form: str) -> None:
    before = Kept(form, 1, "2026-11-21", "1603925811b9ba90", GOOD)
    (tmp_path / "disk-full.json").write_text(json.dumps(before._asdict()))

    assert [kept(ROW.id, one, tmp_path) for one in FORMS] == [before if one == form else None for one in FORMS]
    assert f"| 2026-11-21, {form}, 16039258 | 2 |" in table([ROW], tmp_path)


def test_file_of_a_row_that_ran_gives_way_to_one_that_ran(tmp_path: Path) -> None:
    file(tmp_path, "full")
    file(tmp_path, "full", **NOT_RUN)
    file(tmp_path, "full", fired=7)

    found = kept(ROW.id, "full", tmp_path)
    assert found is not None
    assert found.result["fired"] == 7


@pytest.mark.parametrize("form", FORMS)
def test_file_of_a_row_that_ran_stays_where_it_cannot_run(tmp_path: Path, form: str) -> None:
    file(tmp_path, form)
    file(tmp_path, form, **NOT_RUN)

    found = kept(ROW.id, form, tmp_path)
    assert found is not None
    assert found.has_run


@pytest.mark.parametrize(
    ("full", "short", "words"),
    [({}, {}, ", full, "), (NOT_RUN, {}, ", short, "), ({}, NOT_RUN, ", full, "), (NOT_RUN, NOT_RUN, "not run: it")],
    ids=["both", "short", "full", "neither"],
)
def test_table_prefers_what_ran_and_then_the_full_form(
    tmp_path: Path, full: dict[str, object], short: dict[str, object], words: str
) -> None:
    file(tmp_path, "full", **full)
    file(tmp_path, "short", **short)

    assert words in table([ROW], tmp_path)


FULL, SHORT = "2026-11-20, full, 16039258", "2099-01-01, short"


@pytest.mark.parametrize(
    ("form", "changes", "measured", "stays"),
    [
        ("", {}, FULL, True),
        ("", {}, "not run: it needs root", True),
        ("full", NOT_RUN, FULL, True),
        ("full", NOT_RUN, SHORT, True),
        ("short", {}, FULL, True),
        ("short", {}, SHORT, True),
        ("full", {}, "2099-01-01, full, 16039258", True),
        ("full", {}, FULL, False),
        ("full", {}, SHORT, False),
        ("short", {}, "not run: it needs root", False),
        ("full", NOT_RUN, "not run yet", False),
    ],
)
def test_line_of_the_page_stays_where_no_file_says_as_much(
    tmp_path: Path, form: str, changes: dict[str, object], measured: str, stays: bool
) -> None:
    page = tmp_path / "page.md"
    rest = f"| {measured} | 3 | 9 | 20 jobs/s \\| more | **1** |  | tame: **not caught** |"
    page.write_text(f"{BEGIN}| `disk-full`: as it was \\| called {rest}\n| `gone`: nobody knows it {rest}\n{END}")
    if form:
        file(tmp_path, form, **changes)

    write_table([ROW], page, tmp_path)

    told = page.read_text()
    assert (f"| `disk-full`: the disk is full {rest}\n" in told) == stays
    assert (measured in told) == stays
    assert "gone" not in told


def test_table_of_the_page_can_be_read_again(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"{BEGIN}{END}")
    file(tmp_path / "files", "full", violations=["lost: 7"], load="20 jobs/s | 3 agents")
    write_table([replace(ROW, fault="a|b"), replace(ROW, id="new")], page, tmp_path / "files")
    written = page.read_text()

    write_table([replace(ROW, fault="a|b"), replace(ROW, id="new")], page, tmp_path / "none")

    assert page.read_text() == written


PROGRAMS = """
import sys
import tests.chaos.__main__, tests.chaos.attacker, tests.chaos.forgetful, tests.chaos.relay
import tests.chaos.careless, tests.e2e.defects, tests.mutants.dispatcher, tests.mutants.session
import tests.e2e.agent, tests.e2e.fleet, tests.e2e.herd
print(*(module.__file__ for module in list(sys.modules.values()) if getattr(module, "__file__", None)), sep="\\n")
"""


def test_results_are_those_of_all_sources_that_rows_and_their_controls_import() -> None:
    said = subprocess.run((sys.executable, "-c", PROGRAMS), cwd=ROOT, capture_output=True, text=True, check=True)
    files = (Path(line) for line in said.stdout.splitlines())
    ours = (file.relative_to(ROOT) for file in files if file.is_relative_to(ROOT) and ".venv" not in file.parts)

    known = (*SOURCES, "tests/__init__.py", "tests/meta")  # from there come names of folders only
    assert [str(one) for one in ours if not any(map(one.is_relative_to, known))] == []


def test_table_takes_the_place_of_the_one_before_and_leaves_the_rest_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}old\n{END}after\n")

    write_table([ROW], page, tmp_path)

    text = page.read_text()
    assert text.startswith(f"before\n{BEGIN}Version ")
    assert text.endswith(f"|\n{END}after\n")
    assert "old" not in text


def test_page_without_marks_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")

    with pytest.raises(ValueError, match="has no lines"):
        write_table([ROW], page, tmp_path)
    assert page.read_text() == "nothing\n"


# --- the command line -------------------------------------------------------------------------------------------------


@pytest.fixture
def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each row that was played, whether in full. Two are good, one is violated, and two cannot run."""
    forms: list[bool] = []
    changes: dict[str, dict[str, object]] = {
        "violated": {"violations": ["lost: 7"]},
        "lacking": NOT_RUN,
        "bare": NOT_RUN,
    }

    async def row_result(row: Row, *, is_full: bool, **given: object) -> dict[str, Any]:
        forms.append(is_full)
        return {**GOOD, "id": row.id, **changes.get(row.id, {})}

    rows = {name: replace(ROW, id=name) for name in ("disk-full", "quiet", "violated", "lacking", "bare")}
    for name, instead in {
        "row_result": row_result,
        "BY_ID": rows,
        "ROWS": list(rows.values()),
        "FILES": tmp_path,
        "sweep": list,
    }.items():
        monkeypatch.setattr(chaos, name, instead)
    for name in ("CI", "MESH_SABOTAGE"):
        monkeypatch.delenv(name, raising=False)
    return forms


def test_rows_that_were_not_run_are_counted_for_themselves(
    played: list[bool], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert chaos.main([]) == 1
    assert "chaos: 2 good, 1 bad, 2 not run; " in capsys.readouterr().err
    assert chaos.main(["--row", "quiet", "--row", "lacking"]) == 0
    monkeypatch.setenv("CI", "true")
    assert chaos.main(["--row", "quiet", "--row", "lacking"]) == 1
    assert "chaos: 1 good, 0 bad, 1 not run; " in capsys.readouterr().err


@pytest.mark.parametrize("first", FORMS)
def test_resumed_run_takes_what_its_own_form_gave(played: list[bool], first: str) -> None:
    options = {"full": [], "short": ["--short"]}
    forms = [first, *(form for form in FORMS if form != first)]

    assert [chaos.main(["--row", "quiet", "--resume", *options[form]]) for form in forms * 2] == [0] * 4
    assert played == [form == "full" for form in forms]


@pytest.mark.parametrize("argv", [[], ["--list"]], ids=["play", "list"])
def test_sabotage_that_nobody_knows_is_refused(
    played: list[bool], argv: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MESH_SABOTAGE", "nodefect")

    assert chaos.main(argv) == 2
    assert capsys.readouterr().err == "chaos: no sabotage 'nodefect'; known: no-defect\n"
    assert played == []


def test_sabotaged_results_are_not_filed(played: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_SABOTAGE", "no-defect")

    assert chaos.main(["--row", "quiet"]) == 0
    assert list(tmp_path.iterdir()) == []


def test_rows_are_listed_with_the_state_of_the_sources(played: list[bool], capsys: pytest.CaptureFixture[str]) -> None:
    assert chaos.main(["--list"]) == 0

    told = capsys.readouterr()
    assert told.err == f"chaos: the sources are {sources()[:8]}\n"
    assert len(told.out.splitlines()) == 5
