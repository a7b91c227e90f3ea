from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import App

from command_line.program import UsageError, run

ODD = b"caf\xe9".decode(errors="surrogateescape")


@pytest.mark.parametrize(
    ("words", "said", "command"),
    [
        (["frobnicate"], 'Unknown command "frobnicate"', ""),
        (["completion", "tcsh"], '"tcsh"', " completion"),
        (["completion", "bash", "--bogus"], "--bogus", " completion"),
        (["completion"], "SHELL", " completion"),
    ],
)
def test_program_says_what_is_wrong_with_its_words_and_what_to_do(
    app: App, words: list[str], said: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(app, words) == 2
    written = capsys.readouterr()
    assert written.out == ""
    first, *_, last = written.err.splitlines()
    assert first.startswith(f"{app.name[0]}: ")
    assert said in written.err
    assert last == f"Try: {app.name[0]}{command} --help"


def test_program_refuses_words_that_are_no_text(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(app, ["completion", ODD]) == 2
    assert capsys.readouterr().err == f"{app.name[0]}: caf\\udce9: is no text in UTF-8\n"


def test_program_refuses_texts_from_elsewhere_that_are_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(App(name="toy"), [], [ODD]) == 2
    assert "is no text in UTF-8" in capsys.readouterr().err


def test_command_ends_as_it_says_and_may_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    toy = App(name="toy")

    @toy.command
    def play(code: int) -> int | None:
        if code == 2:
            raise UsageError("not two: take another")
        return code or None

    assert [run(toy, ["play", code]) for code in "034"] == [0, 3, 4]
    assert run(toy, ["play", "2"]) == 2
    assert capsys.readouterr().err == "toy: not two: take another\n"


def test_mesh_sim_ends_with_the_code_and_without_boxes() -> None:
    program = Path(sys.executable).with_name("mesh-sim")
    done = subprocess.run([program, "run", "--bogus"], capture_output=True, text=True, check=False)
    words = "mesh-sim: Unknown option: --bogus. Did you mean --jobs?\nTry: mesh-sim run --help\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", words)


@pytest.mark.parametrize("words", ["completion bash", "--help"])
def test_program_whose_output_nobody_reads_ends_without_a_word(app: App, words: str) -> None:
    program = Path(sys.executable).with_name(app.name[0])
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as nobody:
        done = subprocess.run([program, *words.split()], stdout=nobody, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
