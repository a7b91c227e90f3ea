from __future__ import annotations

from pathlib import Path

import pytest

from simulator.cli import app


def ended(*words: str) -> object:
    """How the command ends."""
    with pytest.raises(SystemExit) as caught:
        app(words)
    return caught.value.code or 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert ended("completion", shell) == 0
    script = capsys.readouterr().out
    assert [word for word in ("mesh-sim", "sweep", "solve", "seeds", "question") if word not in script] == []


def test_install_writes_the_script_where_the_shell_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert ended("--install-completion", "--shell", "bash") == 0
    [path] = [file for file in tmp_path.rglob("mesh-sim") if file.is_file()]
    assert str(path) in capsys.readouterr().err
    assert "_mesh_sim()" in path.read_text()


def test_install_says_so_when_it_cannot_write_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert ended("--install-completion", "--shell", "bash") == 2
    words = capsys.readouterr().err
    assert words.startswith("/proc/")
    assert "mesh-sim completion" in words
