from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from broker.cli.output import age, duration, plain, shown, write_table
from mesh_client import JobResult

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


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
