from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from broker.cli import main


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
