"""`mesh-sim run` as a person, a program and a gate call it."""

import csv
import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from simulator import console
from simulator.cli import app
from simulator.experiments import Run
from simulator.scenario import Scenario
from simulator.scenario_file import dump
from simulator.world import simulate
from tests.meta.schemas import validate
from tests.simulator.test_answer import GROWING
from tests.simulator.worlds import scenario

FAULT = {"at": "12 s", "crash": "erp/1", "for": "6 s"}
OBJECTIVES = ["orders.latency.p99 < 9 s", "lost == 0"]


def call(*words: object, cache: Path | None = None) -> int:
    """The exit code; in this process."""
    kept = ["--cache", str(cache)] if cache else ["--no-cache"]
    return int(app(["run", *map(str, words), "--backend", "serial", *kept], result_action="return_value"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return written(tmp_path, faults=[FAULT], objectives=OBJECTIVES)


def written(folder: Path, **parts: Any) -> Path:
    """A file with a small scenario at `exact`."""
    path = folder / "a.yaml"
    path.write_text(
        dump(scenario(**{"fidelity": "exact", "settle": "5 s", "run": "20 s", "statistics": {"seed": 3}, **parts}))
    )
    return path


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_run_prints_one_json_object_when_asked(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(file, "--json", "--replications", 3) == 0
    document = said(capsys)
    validate("run", document)
    assert (document["seed"], document["replications"], document["lost"], document["exit_code"]) == (3, 3, 0, 0)
    assert [one["verdict"] for one in document["objectives"]] == ["met", "met"]
    assert document["figures"]["orders.latency.p99"]["half_width"] > 0


def test_run_says_the_verdict_last(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(file, "--replications", 3) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[-1].startswith("All 2 objectives are met; the tightest: ")
    assert printed.err == ""  # no bar: nobody looks


@pytest.mark.parametrize(
    ("parts", "words", "code", "verdict"),
    [
        ({"objectives": ["orders.latency.p99 < 100 ms"]}, ("--replications", 3), 3, "Missed: orders.latency.p99 is "),
        ({"objectives": ["orders.latency.p99 < 9 s"]}, ("--replications", 1), 4, "Not precise enough for a verdict"),
        ({**GROWING, "objectives": ["lost == 0"]}, (), 3, "UNSTABLE: backlog grows "),
        ({}, ("--replications", 1), 0, "No objectives were asked for."),
    ],
    ids=["missed", "one replication", "unstable", "nothing asked"],
)
def test_run_is_a_gate(
    parts: dict[str, Any],
    words: tuple[object, ...],
    code: int,
    verdict: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = written(tmp_path, **parts)
    assert call(path, "--json", *words) == code
    document = said(capsys)
    assert document["exit_code"] == code
    assert document["verdict"].startswith(verdict)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--with", "groups.erp.agnts.count=9"), "did you mean `agents`"),
        (("--with", "count"), "is not `key.path=value`"),
        (("--with", "objectives=[order.latency.p99 < 1 s]"), "did you mean `orders.latency.p99`"),
        (("--csv", "none/a.csv"), "there is no folder none"),
    ],
    ids=["key", "form", "objective", "folder"],
)
def test_run_refuses_what_it_cannot_use(
    words: tuple[str, ...], says: str, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(file, *words, "--replications", 1) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.out == ""


def test_run_takes_another_seed_and_other_values(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digests = []
    for replications, *words in ((1,), (1, "--seed", 4), (2,), (1, "--with", "groups.erp.agents.count=9")):
        call(file, "--json", "--replications", replications, *words)
        digests.append(said(capsys)["digest"])
    assert len(set(digests)) == 4


def test_run_writes_all_files_that_are_asked_for(file: Path, tmp_path: Path) -> None:
    paths = {kind: tmp_path / f"a.{kind}" for kind in ("csv", "parquet", "html", "openmetrics")}
    words = [word for kind, path in paths.items() for word in (f"--{kind}", path)]
    assert call(file, "--replications", 2, "--begin", "2026-11-21T12:00:00+00:00", *words) == 0
    with paths["csv"].open(newline="") as stream:
        assert {row["part"] for row in csv.DictReader(stream)} == {
            "whole",
            "before",
            "crash erp/1",
            "after crash erp/1",
        }
    assert paths["parquet"].read_bytes()[:4] == b"PAR1"
    assert paths["html"].read_text().startswith("<!doctype html>")
    lines = paths["openmetrics"].read_text().splitlines()
    assert lines[-1] == "# EOF"
    assert float(lines[2].split()[-1]) == pytest.approx(1_795_262_400, abs=1)


def test_run_remembers_its_replications(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(file, "--json", "--replications", 3, cache=tmp_path / "cache") == 0
    first = said(capsys)
    kept = sorted((tmp_path / "cache").rglob("*.json"))
    assert len(kept) == 3
    assert call(file, "--json", "--replications", 3, cache=tmp_path / "cache") == 0
    assert said(capsys) == first


_interrupts: list[int] = []


def interrupting(found: Scenario, /, *, seed: int, replication: int, changes: Mapping[str, object]) -> Run:
    """The world, and somebody presses Ctrl-C at some replications, once each."""
    if replication in _interrupts:
        _interrupts.remove(replication)
        signal.raise_signal(signal.SIGINT)
    return simulate(found, seed=seed, replication=replication, changes=changes)


def test_interrupted_run_keeps_what_it_has_says_so_and_goes_on_to_the_same_answer(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(file, "--json", "--replications", 4) == 0
    straight = said(capsys)
    monkeypatch.setattr(console, "laboratory_of", partial(console.laboratory_of, world=interrupting))
    _interrupts[:] = [2]
    words = (file, "--json", "--replications", 4)
    assert call(*words, cache=tmp_path / "cache") == 4
    partial_answer = said(capsys)
    assert (partial_answer["partial"], partial_answer["replications"]) == (True, 2)
    assert partial_answer["verdict"].startswith("Interrupted, from what was finished: ")
    assert partial_answer["runs"] == straight["runs"][:2]
    assert call(*words, cache=tmp_path / "cache") == 0
    assert said(capsys) == straight


def test_interrupt_before_the_first_replication_says_that_nothing_can_be_said(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "laboratory_of", partial(console.laboratory_of, world=interrupting))
    _interrupts[:] = [0]
    assert call(file) == 4
    assert "interrupted: nothing can be said yet" in capsys.readouterr().err


@pytest.mark.slow
def test_answer_is_the_same_whatever_the_hash_seed_and_however_many_processes(file: Path) -> None:
    answers = []
    for hash_seed, words in (("1", ("serial",)), ("2", ("serial",)), ("3", ("loky", "--workers", "2"))):
        done = subprocess.run(
            [
                sys.executable,
                "-c",
                "from simulator.cli import main; main()",
                "run",
                str(file),
                "--json",
                "--no-cache",
                "--replications=3",
                "--backend",
                *words,
            ],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        answers.append(json.loads(done.stdout))
    assert answers[0] == answers[1] == answers[2]


@pytest.mark.slow
def test_bar_is_for_terminals_and_never_on_standard_output(file: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    words = ["run", str(file), "--no-cache", "--backend=serial", "--replications=3", "--json"]
    command = [sys.executable, "-c", "from simulator.cli import main; main()", *words]
    environment = {**os.environ, "TERM": "xterm"}
    shown = b""
    with (tmp_path / "out").open("wb") as out:
        running = subprocess.Popen(command, stdout=out, stderr=theirs, env=environment)
        os.close(theirs)
        with suppress(OSError):  # raised when nobody writes to it any more
            while True:
                shown += os.read(ours, 65_536)
        assert running.wait() == 0
    os.close(ours)
    assert json.loads((tmp_path / "out").read_text())["replications"] == 3
    assert b"3/3" in shown
    assert b":--" in shown or b":0" in shown  # the remaining time
