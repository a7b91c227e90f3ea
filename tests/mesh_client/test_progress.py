from __future__ import annotations

import io
import sys

import pytest

from mesh_client import Progress
from mesh_client.progress import Line, bar

STATES = [Progress(3, 3, done) for done in range(4)]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_writes_nothing_when_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("load", 3) as tell:
        for now in STATES:
            tell(now)
    assert capsys.readouterr() == ("", "")


def test_bar_shows_numbers_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with bar("load", 3) as tell:
        tell(Progress(3, 3, 2, 1))
    assert "load" in terminal.getvalue()
    assert "3/3" in terminal.getvalue()
    assert "1 failed" in terminal.getvalue()


def test_bar_is_a_line_of_text_where_rich_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setitem(sys.modules, "rich.progress", None)
    with bar("load", None) as tell:
        for now in STATES:
            tell(now)
    assert terminal.getvalue().startswith("\rload: 0")
    assert terminal.getvalue().endswith("\rload: 3 of 3\n")


def test_line_is_drawn_seldom_and_its_last_state_for_certain() -> None:
    written = io.StringIO()
    line = Line("load", written)
    for done in range(1_000):
        line.tell(Progress(1_000, 1_000, done, 1))
    line.end()
    drawn = written.getvalue().split("\r")[1:]
    assert 2 <= len(drawn) < 500
    assert drawn[-1] == "load: 1000 of 1000, 1 failed\n"
