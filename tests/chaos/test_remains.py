"""The next run takes away what one that was killed has left, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import remains
from tests.chaos.machine import missing
from tests.conftest import not_run

KILLED = """
import asyncio, os, signal, sys
from contextlib import ExitStack
from tests.chaos.campaign import play
from tests.chaos.ration import Cgroup
from tests.chaos.volume import SmallVolume

async def run(trial):
    async with SmallVolume(trial.folder / "disk", mib=1) as volume:
        (volume.folder / "file").write_text("left")
        with Cgroup("cpu", "left"):
            os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(play(run, seed=1, is_full=False, timeout_s=60.0))
"""


def gone() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_folders_of_runs_that_are_gone_are_taken_away_and_no_others(tmp_path: Path) -> None:
    left = tmp_path / f"chaos-{gone()}-x"
    others = [tmp_path / name for name in (f"chaos-{os.getpid()}-x", "chaos-x", f"chaos-{gone()}", "mesh-herd-1")]
    for folder in (left, *others):
        (folder / "inside").mkdir(parents=True)
    (tmp_path / f"chaos-{gone()}-link").symlink_to(others[0])
    assert remains.sweep(tmp_path, tmp_path / "none") == [str(left)]
    assert not left.exists()
    assert all((folder / "inside").exists() for folder in others)


def test_run_that_was_killed_leaves_nothing_after_the_next_one_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if lacking := missing(("root", "cgroup-cpu")):
        not_run(lacking)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", KILLED], check=False, capture_output=True)
    assert killed.returncode < 0, killed.stderr
    (folder,) = tmp_path.iterdir()
    assert (folder / "disk" / "file").read_text() == "left"

    swept = remains.sweep(tmp_path)

    assert str(folder) in swept
    assert any("/cpu" in one and one.endswith("-left") for one in swept)
    assert not folder.exists()
    assert not any(str(tmp_path / "chaos-") in line for line in remains.MOUNTS.read_text().splitlines())
    assert not [one for one in swept if Path(one).exists()]
