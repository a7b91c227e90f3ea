"""Which files rules remove, and which never, on a real file system."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent_stub import client
from agent_stub.cleanup import DAY_S, Cleanup, Due, Rule, clean, due, is_inside_own
from agent_stub.cli import main
from agent_stub.configuration import load
from agent_stub.settings import SettingsError
from tests.agent_stub.agents import running
from tests.agent_stub.broker import WAIT_S, Broker

NOW_S = 1_700_000_000.0


def put(path: Path, *, days: float = 0.0, size: int = 1) -> Path:
    """A file that was last written so many days ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)
    os.utime(path, (NOW_S - days * DAY_S,) * 2)
    return path


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


HERE = Path()
OLD = Rule("r", HERE, older_than_s=7 * DAY_S)
LARGE = Rule("r", HERE, larger_than_bytes=99)


@pytest.mark.req("R56")
@pytest.mark.parametrize(
    ("rule", "gone"),
    [
        (OLD, {"old.csv", "old-large.csv", "old.txt"}),
        (replace(OLD, pattern="*.csv"), {"old.csv", "old-large.csv"}),
        (LARGE, {"old-large.csv", "new-large.csv"}),
        (replace(LARGE, larger_than_bytes=100), set()),
        (replace(OLD, larger_than_bytes=99), {"old-large.csv"}),
        (replace(OLD, subdirectories=True), {"old.csv", "old-large.csv", "old.txt", "sub/old.csv"}),
    ],
)
def test_dry_run_lists_what_is_then_removed_and_nothing_else(tmp_path: Path, rule: Rule, gone: set[str]) -> None:
    put(tmp_path / "old.csv", days=8)
    put(tmp_path / "old.txt", days=8)
    put(tmp_path / "old-large.csv", days=8, size=100)
    put(tmp_path / "new.csv", days=6)
    put(tmp_path / "new-large.csv", days=6, size=100)
    put(tmp_path / "sub" / "old.csv", days=8)
    before = names(tmp_path)
    cleanup = Cleanup([replace(rule, directory=tmp_path)])
    listed = list(due(cleanup, NOW_S))
    assert names(tmp_path) == before
    assert clean(cleanup, NOW_S) == listed
    assert {str(one.path.relative_to(tmp_path)) for one in listed} == gone == before - names(tmp_path)
    assert (tmp_path / "sub").is_dir()


@pytest.mark.req("R56")
def test_links_are_neither_followed_nor_removed(tmp_path: Path) -> None:
    outside = put(tmp_path / "outside" / "precious.csv", days=99)
    inside = tmp_path / "inside"
    put(inside / "old.csv", days=99)
    (inside / "file").symlink_to(outside)
    (inside / "folder").symlink_to(outside.parent, target_is_directory=True)
    os.link(outside, inside / "hard.csv")
    rule = Rule("r", inside, older_than_s=DAY_S, subdirectories=True)
    assert {one.path.name for one in clean(Cleanup([rule]), NOW_S)} == {"old.csv", "hard.csv"}
    assert outside.read_bytes() == b"x"
    assert {path.name for path in inside.iterdir()} == {"file", "folder"}
    (tmp_path / "link").symlink_to(outside.parent, target_is_directory=True)
    assert clean(Cleanup([Rule("r", tmp_path / "link", older_than_s=DAY_S)]), NOW_S) == []


@pytest.mark.req("R57")
def test_files_of_attempts_and_waiting_outcomes_stay_below_any_rule(tmp_path: Path) -> None:
    put(tmp_path / "temporary" / "left.tmp", days=9)
    put(tmp_path / "temporary" / "jobs" / "1-1" / "half.csv", days=9)
    put(tmp_path / "state" / "spool" / "1-1.outcome", days=9)
    rule = Rule("r", tmp_path, older_than_s=DAY_S, subdirectories=True)
    own = (tmp_path / "state", tmp_path / "temporary" / "jobs", tmp_path / "not" / "there")
    assert [one.path.name for one in clean(Cleanup([rule], own=own), NOW_S)] == ["left.tmp"]
    assert names(tmp_path) == {"temporary/jobs/1-1/half.csv", "state/spool/1-1.outcome"}


@pytest.mark.req("R57")
@pytest.mark.parametrize("way", ["state", "state/spool", "temporary/jobs/1-1", "link/spool"])
def test_rule_for_a_folder_inside_the_agents_own_is_left_out_and_named(
    tmp_path: Path, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path / "state" / "spool" / "1-1.outcome", days=9)
    put(tmp_path / "state" / "old.log", days=9)
    put(tmp_path / "temporary" / "jobs" / "1-1" / "half.csv", days=9)
    (tmp_path / "link").symlink_to(tmp_path / "state", target_is_directory=True)
    rule = Rule("r", tmp_path / way, older_than_s=DAY_S, subdirectories=True)
    cleanup = Cleanup([rule], own=(tmp_path / "state", tmp_path / "temporary" / "jobs"))
    assert clean(cleanup, NOW_S) == list(due(cleanup, NOW_S)) == []
    assert {record.message for record in caplog.records} == {"rule.left_out"}
    assert is_inside_own(cleanup, tmp_path / "state" / "not" / "there" / "yet")
    assert not is_inside_own(cleanup, tmp_path / "temporary")


@pytest.mark.parametrize(("number", "said"), [(errno.EACCES, 1), (errno.ESTALE, 1), (errno.ENOENT, 0)])
def test_file_that_cannot_be_looked_at_stays_and_keeps_no_other_from_going(
    tmp_path: Path, number: int, said: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a", "b", "c"):
        put(tmp_path / name, days=9)
    real = os.stat

    def stat(path: int | str | Path, **how: Any) -> os.stat_result:
        """What a directory does that may be listed and not entered, which no directory is for root."""
        if path == "b":
            raise OSError(number, os.strerror(number), path)
        return real(path, **how)

    monkeypatch.setattr(os, "stat", stat)
    cleanup = Cleanup([Rule("r", tmp_path, older_than_s=DAY_S)])
    assert [one.path.name for one in due(cleanup, NOW_S)] == ["a", "c"]
    caplog.clear()
    assert [one.path.name for one in clean(cleanup, NOW_S)] == ["a", "c"]
    assert [record.message for record in caplog.records] == ["file.not_removed"] * said


def test_directory_that_is_not_there_has_nothing_to_remove(tmp_path: Path) -> None:
    assert clean(Cleanup([Rule("r", tmp_path / "none", older_than_s=1)])) == []


def test_cleaning_ends_early_when_the_agent_leaves(tmp_path: Path) -> None:
    for number in range(3):
        put(tmp_path / f"{number}.csv", days=9)
    asked = iter([False, True])
    rule = Rule("r", tmp_path, older_than_s=DAY_S)
    assert len(clean(Cleanup([rule]), NOW_S, is_over=lambda: next(asked))) == 1
    assert len(names(tmp_path)) == 2


# --- the configuration and the command ------------------------------------------------------------------------------


@pytest.mark.req("R56")
def test_rules_of_the_configuration_are_listed_and_carried_out_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mesh-agent.toml"
    file.write_text(
        '[folders]\nstate = "state"\n'
        '[file_cleanup.done]\ndirectory = "done"\npattern = "*.csv"\nolder_than_days = 1.5\n'
        '[result_files.results]\ndirectory = "results"\nlarger_than_bytes = 5\nsubdirectories = true\n'
    )
    put(tmp_path / "done" / "a.csv", days=9)
    put(tmp_path / "done" / "a.txt", days=9)
    put(tmp_path / "results" / "sub" / "b.bin", size=6)
    monkeypatch.chdir(tmp_path)
    assert main(["clean", "--dry-run", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["is_dry_run"]
    assert [(one["rule"], Path(one["file"]).name) for one in listed["files"]] == [
        ("file_cleanup.done", "a.csv"),
        ("result_files.results", "b.bin"),
    ]
    assert main(["clean"]) == 0
    assert "2 files removed, 7 bytes" in capsys.readouterr().err
    assert names(tmp_path) == {"mesh-agent.toml", "done/a.txt"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[file_cleanup.a]\nolder_than_days = 1", "`directory` is needed"),
        ('[file_cleanup.a]\ndirectory = "x"', "all of its files would go"),
        ('[file_cleanup.a]\ndirectory = "x"\nolder_than_day = 1', "did you mean older_than_days"),
        ('[result_files.a]\ndirectory = "x"\nlarger_than_bytes = -1', "or negative"),
        ('[result_files.a]\ndirectory = "x"\nolder_than_days = "1"', "not of the type float"),
        ("[result_files]\na = 1", "write a section"),
        ("[cleanup]\nevery_s = 0", "at least 1"),
    ],
)
def test_rule_that_is_wrong_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "mesh-agent.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=words):
        load(file, environment={})


class Cleaned(logging.Handler):
    """Says when the agent has removed files, or could not."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.times: asyncio.Queue[str] = asyncio.Queue()
        self.failures: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() == "files.cleaned":
            self.times.put_nowait(str(vars(record)))
        elif record.getMessage() == "files.not_cleaned":
            self.failures.append(str(record.exc_info))


@contextmanager
def heard() -> Iterator[Cleaned]:
    cleaned, logger = Cleaned(), logging.getLogger("mesh.agent")
    level = logger.level
    logger.addHandler(cleaned)
    logger.setLevel(logging.INFO)
    try:
        yield cleaned
    finally:
        logger.removeHandler(cleaned)
        logger.setLevel(level)


@pytest.mark.req("R57")
async def test_agent_cleans_up_at_its_start_and_at_every_interval(tmp_path: Path) -> None:
    rule = Rule("r", tmp_path / "done", older_than_s=DAY_S)
    put(tmp_path / "done" / "first.csv", days=9)
    with heard() as cleaned:
        async with Broker() as broker, running(broker, cleanup=Cleanup([rule], every_s=0.05)):
            await broker.session()
            await asyncio.wait_for(cleaned.times.get(), WAIT_S)
            assert names(tmp_path) == set()
            put(tmp_path / "done" / "new.csv", days=-9_000)
            put(tmp_path / "second.csv", days=9).rename(tmp_path / "done" / "second.csv")
            await asyncio.wait_for(cleaned.times.get(), WAIT_S)
            assert names(tmp_path) == {"done/new.csv"}


async def test_agent_says_that_a_cleaning_failed_and_cleans_at_the_next_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "old.csv", days=9)
    failures = iter([ValueError("nobody thought of that")])

    def clean_or_fail(cleanup: Cleanup, **how: Any) -> list[Due]:
        for failure in failures:
            raise failure
        return clean(cleanup, **how)

    monkeypatch.setattr(client, "clean", clean_or_fail)
    cleanup = Cleanup([Rule("r", tmp_path, older_than_s=DAY_S)], every_s=0.05)
    with heard() as cleaned:
        async with Broker() as broker, running(broker, cleanup=cleanup):
            await asyncio.wait_for(cleaned.times.get(), WAIT_S)
    assert len(cleaned.failures) == 1
    assert "nobody thought of that" in cleaned.failures[0]
    assert names(tmp_path) == set()
