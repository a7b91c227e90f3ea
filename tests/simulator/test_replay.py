"""A journal that was tampered with differs; one that cannot be read is refused in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.journal.segment import FORMAT, JournalError, SegmentReader, frame, opening, segments_of
from simulator.cli import app
from simulator.replay import replay
from tests.broker.observe.test_recording import ONE, Turns
from tests.meta.schemas import validate

Lines = list[list[Any]]


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    """The journal of a short day."""
    turns = Turns(tmp_path / "journal")
    turns.add(ONE)
    turns.agents(ONE, 1, 2)
    turns.work(ONE, 20)
    turns.recording.stop()
    return turns.folder


def rewrite(journal: Path, change: Callable[[Lines], None]) -> None:
    """Write the only segment again, each line in a frame, after `change` has had its lines."""
    (path,) = segments_of(journal)
    lines = list(SegmentReader(path).lines())
    change(lines)
    path.write_bytes(opening() + b"".join(frame([json.dumps(line)]) for line in lines))


def turns_of(lines: Lines, event: str) -> Lines:
    return [line for line in lines if line[0] == "turn" and any(one[1][0] == event for one in line[3])]


def run(journal: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, int], str]:
    with pytest.raises(SystemExit) as ended:
        app(["replay", str(journal), "--json"])
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, json.loads(said.out or "{}"), said.err


def test_command_finds_no_difference_in_a_whole_journal(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, figures, said = run(journal, capsys)
    validate("replay", figures)
    assert (code, said) == (0, "")
    assert (figures["segments"], figures["differing"], figures["skipped"]) == (1, 0, 0)
    assert figures["events"] == 4 + 2 * 20


def test_command_prints_a_table_for_people(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        app(["replay", str(journal)])
    assert "differing  0\n" in capsys.readouterr().out


def fail_one(lines: Lines) -> None:
    turn = turns_of(lines, "AttemptFinished")[7]
    turn[3][0][1][5] = "failed"


def forget_one(lines: Lines) -> None:
    lines.remove(turns_of(lines, "JobSubmitted")[3])


def delay_one(lines: Lines) -> None:
    turns_of(lines, "AttemptFinished")[7][1] += 1


def other_chance(lines: Lines) -> None:
    """Another state of the generator matters once a job is retried: here only the digest of a turn is another."""
    digests = turns_of(lines, "JobSubmitted")[3][4]
    digests["1"] = "0" * len(digests["1"])


def other_snapshot(lines: Lines) -> None:
    """The agent numbers of the ledger begin elsewhere: its policy takes one job only."""
    for line in lines:
        for node in line[1:] if line[0] == "nodes" else ():
            if node[0] == "DispatchPolicy":
                node[1:] = [0 if value == 1_000_000 else value for value in node[1:]]


@pytest.mark.parametrize("change", [fail_one, forget_one, delay_one, other_chance, other_snapshot])
def test_command_finds_the_difference_when_something_was_flipped(
    journal: Path, capsys: pytest.CaptureFixture[str], change: Callable[[Lines], None]
) -> None:
    rewrite(journal, change)
    code, figures, said = run(journal, capsys)
    validate("replay", figures)
    assert code == 3
    assert figures["differing"] > 0
    assert "000000001.journal" in said


def test_rewriting_alone_makes_no_difference(journal: Path) -> None:
    rewrite(journal, lambda lines: None)
    assert replay(journal).differing == 0


def test_journal_that_is_cut_short_is_replayed_to_its_last_whole_frame(journal: Path) -> None:
    rewrite(journal, lambda lines: None)
    (path,) = segments_of(journal)
    whole = replay(journal)
    path.write_bytes(path.read_bytes()[:-200])
    report = replay(journal)
    assert (report.differing, report.skipped) == (0, 1)
    assert 0 < report.events < whole.events
    assert "cut short" in report.notes[0]


def test_segment_of_a_killed_broker_is_whole_and_said_to_have_no_end(journal: Path) -> None:
    rewrite(journal, lambda lines: lines.__delitem__(-1))
    report = replay(journal)
    assert (report.differing, report.skipped) == (0, 0)
    assert "no end" in report.notes[0]


def test_journal_of_another_format_is_refused_in_words(journal: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (path,) = segments_of(journal)
    path.write_bytes(path.read_bytes().replace(opening(), b"jobmesh-journal %d\n" % (FORMAT + 1)))
    code, figures, said = run(journal, capsys)
    assert (code, figures) == (2, {})
    assert f"format {FORMAT + 1}" in said
    assert "use the version that wrote it" in said


def test_journal_of_a_program_with_other_fields_is_refused_in_words(journal: Path) -> None:
    def other(lines: Lines) -> None:
        lines[0][1] |= {"shape": "0123456789abcdef", "program": "9.9.9"}

    rewrite(journal, other)
    with pytest.raises(JournalError, match=r"jobmesh 9\.9\.9 wrote it.*the version that wrote it"):
        replay(journal)


@pytest.mark.parametrize("line", [["surprise"], ["nodes", ["Ledger"]], ["turn", 1, 0, [[1, ["Nobody"]]], {}], []])
def test_line_that_makes_no_sense_is_refused_in_words(journal: Path, line: list[Any]) -> None:
    rewrite(journal, lambda lines: lines.insert(5, line))
    with pytest.raises(JournalError, match="makes no sense"):
        replay(journal)


def test_folder_without_a_journal_is_refused_in_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, said = run(tmp_path / "nothing", capsys)
    assert code == 2
    assert "no such folder" in said
