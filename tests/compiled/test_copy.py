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


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree with a launcher, a simulator that says where it is, and a copy of that."""
    for name in ("compiled/__init__.py", "compiled/copies.py", "compiled/launcher.py", *copies.MADE_WITH):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "simulator").mkdir()
    (tmp_path / "simulator/__init__.py").touch()
    (tmp_path / "simulator/cli.py").write_text("import sys\ndef main():\n    print(sys.argv, __file__)\n    return 3\n")
    shutil.copytree(tmp_path / "simulator", tmp_path / "build/compiled" / copies.digest_of(tmp_path) / "simulator")
    return tmp_path


def launched(tree: Path) -> subprocess.CompletedProcess[str]:
    """What comes of `build/compiled/mesh-sim run`."""
    program = (sys.executable, "-P", str(tree / "compiled/launcher.py"), "mesh-sim", "run")
    return subprocess.run(program, capture_output=True, text=True, check=False, cwd=tree)


def test_launcher_runs_the_copy_of_the_sources_as_they_are(tree: Path) -> None:
    done = launched(tree)

    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("['mesh-sim', 'run'] ")
    assert "build/compiled" in done.stdout


def test_launcher_runs_nothing_when_a_source_has_changed_since(tree: Path) -> None:
    with (tree / "simulator/cli.py").open("a") as file:
        file.write("# one more line\n")

    done = launched(tree)

    assert (done.returncode, done.stdout) == (2, "")
    assert "run `make compile` again" in done.stderr
