from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from broker.cli import main


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert [word for word in ("drain", "requeue", "submit", "organization", "wait-timeout") if word not in script] == []


def test_bash_completes_commands_choices_and_options(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    script = tmp_path / "mesh.bash"
    script.write_text(capsys.readouterr().out)

    def offered(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        steps = [f"source {script}", f"COMP_WORDS=({line})", f"COMP_CWORD={len(words) - 1}", "_mesh"]
        code = "; ".join([*steps, "printf '%s\\n' \"${COMPREPLY[@]}\""])
        done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)
        return set(done.stdout.split())

    assert offered("mesh", "jo") == {"jobs"}
    assert {"submit", "list", "watch"} <= offered("mesh", "jobs", "")
    assert "--group" in offered("mesh", "jobs", "list", "--gr")
    assert offered("mesh", "jobs", "list", "--state", "suc") == {"succeeded"}


def test_install_writes_the_script_where_the_shell_looks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert main(["--install-completion", "--shell", "bash"]) == 0
    words = capsys.readouterr().err
    [path] = [file for file in tmp_path.rglob("mesh") if file.is_file()]
    assert str(path) in words
    assert "_mesh()" in path.read_text()


def test_install_says_so_when_it_cannot_write_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", "/proc")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert main(["--install-completion", "--shell", "bash"]) == 2
    words = capsys.readouterr().err
    assert words.startswith("mesh: /proc/")
    assert "mesh completion" in words
