from __future__ import annotations

import io
import json
import sys
from datetime import UTC, datetime, timedelta

import pytest
from ruamel.yaml import YAML

from broker.cli.output import age, choose, duration, plain, shown, write_json, write_table
from mesh_client import JobResult
from tests.broker.cli.conftest import Mesh

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0s"), (0.007, "7ms"), (1.5, "1.5s"), (9.0, "9s"), (42.7, "42s"), (60, "1m"), (7_199, "1h"), (90_000, "1d")],
)
def test_duration_is_shown_in_its_largest_unit(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_age_is_never_negative_when_clocks_differ() -> None:
    assert age(NOW + timedelta(seconds=5), NOW) == "0s"
    assert age(NOW - timedelta(minutes=3), NOW) == "3m"
    assert age(None, NOW) == ""


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (JobResult(b'{"a": 1}', "application/json; charset=utf-8"), {"json": {"a": 1}}),
        (JobResult(b"text", "text/plain"), {"text": "text"}),
        (JobResult(b"{", "application/json"), {"base64": "ew=="}),
        (JobResult(b"\xff", ""), {"base64": "/w=="}),
    ],
)
def test_result_is_decoded_as_far_as_its_type_says(result: JobResult, expected: dict[str, object]) -> None:
    assert plain(result) == {"content_type": result.content_type, **expected}


def test_times_and_bytes_have_their_form_in_json() -> None:
    assert plain({"at": NOW, "some": (b"x", 1, None)}) == {"at": "2026-01-02T03:04:05Z", "some": ["eA==", 1, None]}


def test_text_keeps_letters_and_loses_control_characters() -> None:
    assert shown("Größe 7") == "Größe 7"
    assert shown("a\x1b[31m\nb") == r"a\x1b[31m\nb"
    assert shown("a\nb\x07", kept="\n") == "a\nb\\x07"


def test_table_in_a_pipe_is_not_cut_and_takes_markup_as_text(capsys: pytest.CaptureFixture[str]) -> None:
    wide = "x" * 300
    write_table(("JOB", "STATE"), [(wide, "[red]failed[/]")])
    assert capsys.readouterr().out.splitlines()[1] == f"{wide}  [red]failed[/]"


def test_document_is_json_unless_yaml_was_chosen(capsys: pytest.CaptureFixture[str]) -> None:
    value = {"b": "größe: 1", "a": [1, None, True, "yes", "x\ny"], "when": NOW, "none": {}}
    write_json(value)
    as_json = capsys.readouterr().out
    choose("yaml")
    write_json(value)
    as_yaml = capsys.readouterr().out
    choose("json")
    assert json.loads(as_json) == YAML(typ="safe", pure=True).load(as_yaml) == plain(value)
    assert as_yaml.splitlines()[0] == "b: 'größe: 1'"


def test_documents_of_a_stream_can_be_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    write_json({"a": 1}, indent=None)
    write_json({"a": 2}, indent=None)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [{"a": 1}, {"a": 2}]
    choose("yaml")
    write_json({"a": 1}, indent=None)
    write_json("text", indent=None)
    choose("json")
    assert list(YAML(typ="safe", pure=True).load_all(capsys.readouterr().out)) == [{"a": 1}, "text"]


def test_every_listing_can_be_had_as_yaml(mesh: Mesh) -> None:
    job_id = mesh("jobs", "submit", "done", "--payload", "[1]", "--json").out.strip()
    for arguments in (("jobs", "list"), ("jobs", "get", job_id), ("agents", "list"), ("groups", "get", "loaders")):
        as_json, as_yaml = mesh(*arguments, "-o", "json"), mesh(*arguments, "-o", "yaml")
        assert (as_json.code, as_yaml.code) == (0, 0)
        assert YAML(typ="safe", pure=True).load(as_yaml.out) == as_json.json


def test_terminal_has_colours_unless_no_color_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    written = {}
    for no_color in ("", "1"):
        terminal = Terminal()
        monkeypatch.setattr(sys, "stdout", terminal)
        monkeypatch.setenv("NO_COLOR", no_color)
        monkeypatch.setenv("TERM", "xterm-256color")
        write_table(("JOB", "STATE"), [("j1", "failed")])
        written[no_color] = terminal.getvalue()
    assert "\x1b[31m" in written[""]
    assert "\x1b[31m" not in written["1"]
    assert "failed" in written["1"]


def test_head_of_a_column_is_never_broken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write_table(("JOB", "OPERATION", "WHY"), [("j" * 42, "files.csv_to_sql", "many words " * 19)])
    assert "OPERATION" in capsys.readouterr().out.splitlines()[0]
