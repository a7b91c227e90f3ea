"""The compiled copy does what the pure form does, bit for bit, and nothing that is out of date is run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compiled import building, copies
from compiled.building import CompileError
from compiled.modules import MODULES
from tests.conftest import not_run
from tests.meta.check import ROOT

PART = (
    *(
        "broker/dispatch/deadlines.py",
        "broker/dispatch/lane.py",
        "broker/dispatch/model.py",
        "broker/dispatch/table.py",
    ),
    "agent_stub/session/messages.py",
)
"""Dataclasses, enums, links between modules: what is compiled of it takes seconds, not minutes."""


def played(*path: Path) -> dict[str, Any]:
    """What the packages that are found there first make of a scenario and of a script of events."""
    settings = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONSAFEPATH": "1"}
    program = (sys.executable, "-m", "tests.compiled.played")
    done = subprocess.run(program, env=settings, capture_output=True, text=True, check=True, cwd=ROOT)
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


@pytest.fixture
def compiler() -> None:
    """Compiling needs a C compiler."""
    try:
        building.check_compiler()
    except CompileError as error:
        not_run(str(error))


def assert_plays_the_same(copy: Path) -> None:
    pure, compiled = played(ROOT), played(copy, ROOT)
    assert (pure.pop("compiled"), compiled.pop("compiled")) == (False, True)
    assert compiled == pure
    assert pure["jobs"] > 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_copy_plays_the_same_scenario_and_events_bit_for_bit_when_a_part_is_compiled(
    compiler: None, tmp_path: Path
) -> None:
    assert_plays_the_same(building.make(PART, tmp_path, "0"))


@pytest.mark.soak
def test_copy_plays_the_same_scenario_and_events_bit_for_bit_when_all_is_compiled(
    compiler: None, tmp_path: Path
) -> None:
    assert_plays_the_same(building.make(MODULES, tmp_path, "1"))


def test_compile_says_in_a_sentence_that_there_is_no_compiler(tmp_path: Path) -> None:
    settings = os.environ | {"CC": str(tmp_path / "no-such-compiler")}
    program = (sys.executable, "-m", "compiled")
    done = subprocess.run(program, env=settings, capture_output=True, text=True, check=False, cwd=ROOT)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("compile: there is no C compiler `")
    assert "install one" in done.stderr


SET = ("PYTHONPATH", "PYTHONSAFEPATH")
TELLS = f"""
import json, os, sys
def main():
    found = {{key: os.environ.get(key) for key in {SET!r}}}
    print(json.dumps({{"argv": sys.argv, "file": __file__, "path": sys.path, **found}}), flush=True)
    sys.stdin.read()
    return 3
"""
"""A program that says what it was given, and ends when nobody writes to it any more."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a launcher, a simulator that says where it is, and a copy of that."""
    for name in ("compiled/__init__.py", "compiled/copies.py", "compiled/launcher.py", *copies.MADE_WITH):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for package in ("simulator", "agent_stub"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
        (tmp_path / package / "cli.py").write_text(TELLS)
    copy = tmp_path / "build/compiled" / copies.digest_of(tmp_path)
    for package in ("simulator", "agent_stub"):
        shutil.copytree(tmp_path / package, copy / package)
    (copy / copies.IN_USE).touch()
    return tmp_path


def command(tree: Path, *words: str) -> tuple[str, ...]:
    """`build/compiled/mesh-sim run` and its like."""
    return (sys.executable, "-P", str(tree / "compiled/launcher.py"), *words)


def launched(tree: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What comes of it."""
    settings = {key: text for key, text in os.environ.items() if key not in SET} | environment
    program = command(tree, *(words or ("mesh-sim", "run")))
    return subprocess.run(program, capture_output=True, text=True, check=False, cwd=tree, env=settings, input="")


def test_launcher_runs_the_copy_of_the_sources_as_they_are(tree: Path) -> None:
    done = launched(tree)

    assert (done.returncode, done.stderr) == (3, "")
    seen = json.loads(done.stdout)
    assert seen["argv"] == ["mesh-sim", "run"]
    assert "build/compiled" in seen["file"]


def test_launcher_puts_only_the_copy_before_the_path_of_the_user_for_workers_of_the_simulator(tree: Path) -> None:
    seen = json.loads(launched(tree, "mesh-sim", "run", PYTHONPATH="/of/the/user").stdout)

    copy = tree / "build/compiled" / copies.digest_of(tree)
    assert seen["path"][:2] == [str(copy), "/of/the/user"]
    assert (seen["PYTHONPATH"], seen["PYTHONSAFEPATH"]) == (f"{copy}{os.pathsep}/of/the/user", "1")


@pytest.mark.parametrize("path", [None, "/of/the/user"])
def test_launcher_leaves_the_environment_of_handlers_as_it_was(tree: Path, path: str | None) -> None:
    environment = {} if path is None else {"PYTHONPATH": path}

    seen = json.loads(launched(tree, "mesh-agent", "run", **environment).stdout)

    assert (seen["PYTHONPATH"], seen["PYTHONSAFEPATH"]) == (path, None)
    assert seen["path"][0] == str(tree / "build/compiled" / copies.digest_of(tree))
    assert "build/compiled" in seen["file"]
    assert not {"", str(tree)} & set(seen["path"])


def test_launcher_names_the_pure_form_when_a_journal_is_to_be_replayed(tree: Path) -> None:
    done = launched(tree, "mesh-sim", "replay", "a.journal")

    assert (done.returncode, done.stdout) == (2, "")
    assert "run `mesh-sim replay` of the pure form" in done.stderr


def test_copy_that_a_program_runs_from_is_removed_only_when_that_has_ended(tree: Path) -> None:
    folder = tree / "build/compiled"
    copy = folder / copies.digest_of(tree)
    program = command(tree, "mesh-sim", "run")
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=tree) as running:
        assert running.stdout is not None
        running.stdout.readline()
        building.tidy(folder, folder / "newer")
        assert (copy / "simulator/cli.py").is_file()
        running.communicate()

    building.tidy(folder, folder / "newer")

    assert list(folder.iterdir()) == []


def test_what_a_process_left_half_made_is_removed_and_what_one_makes_is_not(tmp_path: Path) -> None:
    for name in ("a.1.half", "b.2.half", "c.3.gone"):
        (tmp_path / name).mkdir()
        (tmp_path / name / copies.IN_USE).touch()
    lock = copies.hold(tmp_path / "b.2.half")
    assert lock is not None

    building.tidy(tmp_path, tmp_path / "newer")

    os.close(lock)
    assert [path.name for path in tmp_path.iterdir()] == ["b.2.half"]


def test_copy_that_another_process_made_in_the_meantime_is_used(
    compiler: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = tmp_path / copies.digest_of(ROOT) / "theirs"

    def compile_slowly(*_: object) -> None:
        theirs.mkdir(parents=True)

    monkeypatch.setattr(building, "_compile", compile_slowly)

    assert building.make(PART, tmp_path) == theirs.parent
    assert theirs.is_dir()
    assert not list(tmp_path.glob("*.half"))


def test_launcher_runs_nothing_when_a_source_has_changed_since(tree: Path) -> None:
    with (tree / "simulator/cli.py").open("a") as file:
        file.write("# one more line\n")

    done = launched(tree)

    assert (done.returncode, done.stdout) == (2, "")
    assert "run `make compile` again" in done.stderr
