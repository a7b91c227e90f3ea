from __future__ import annotations

from pathlib import Path

import pytest
from cyclopts import App

from command_line.program import run

KNOWN = {
    "mesh": ("drain", "requeue", "submit", "organization", "wait-timeout"),
    "mesh-agent": ("mesh-agent", "run", "stop", "prefetch", "log-level"),
    "mesh-sim": ("mesh-sim", "sweep", "solve", "seeds", "question"),
}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(app: App, shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [word for word in KNOWN[app.name[0]] if word not in script] == []


def test_help_shows_the_line_for_this_program(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["completion", "--help"]) == 0
    assert f"source <({app.name[0]} completion bash)" in capsys.readouterr().out


def test_install_writes_the_script_where_the_shell_looks(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert run(app, ["--install-completion", "--shell", "bash"]) == 0
    [path] = [file for file in tmp_path.rglob(app.name[0]) if file.is_file()]
    assert str(path) in capsys.readouterr().err
    assert f"_{app.name[0].replace('-', '_')}()" in path.read_text()


def test_install_says_so_when_it_cannot_write_there(
    app: App, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert run(app, ["--install-completion", "--shell", "bash"]) == 2
    words = capsys.readouterr().err
    assert words.startswith(f"{app.name[0]}: /proc/")
    assert f"`{app.name[0]} completion` writes" in words
