"""The commands that the documentation promises exist, and say what they are."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.meta.check import ROOT

PROMISED = ("help", "demo", "test", "test-quick", "check", "bench", "bench-quick", "soak", "system", "requirements")


def run_make(*arguments: str, root: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=root, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )


def test_make_prints_its_targets_when_asked_for_nothing() -> None:
    described = dict(re.findall(r"^  make (\S+) +(\S.*)$", run_make().stdout, re.MULTILINE))

    assert set(PROMISED) <= set(described)


def test_makefile_describes_every_target_that_is_phony() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.+)$", text, re.MULTILINE)

    assert phony is not None
    assert set(phony[1].split()) == set(re.findall(r"^([a-z-]+):.*## \S", text, re.MULTILINE))


def test_system_has_nothing_to_do_when_nothing_is_wanted(tmp_path: Path) -> None:
    script = tmp_path / "system.sh"
    script.write_text((ROOT / "requirements/system.sh").read_text())
    (tmp_path / "debian.txt").write_text("# nobody needs anything\n\n")

    done = subprocess.run(["sh", script], capture_output=True, text=True, check=False)

    assert done.returncode == 0
    assert "nothing to install" in done.stderr


def test_system_installs_nothing_when_nobody_says_yes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    script = tmp_path / "system.sh"
    script.write_text((ROOT / "requirements/system.sh").read_text())
    (tmp_path / "debian.txt").write_text("no-such-package-of-debian # for a test\n")

    done = subprocess.run(["sh", script], input="n\n", capture_output=True, text=True, check=False)

    assert done.returncode == 1
    assert "missing: no-such-package-of-debian" in done.stderr
    assert "nothing was installed" in done.stderr


def test_set_up_refuses_a_python_that_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python"
    pretend = "import sys; sys.version_info = (3, 10, 9); exec(sys.stdin.read())"
    old.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{pretend}'\n")
    old.chmod(0o755)

    done = subprocess.run(
        ["sh", ROOT / "requirements/install.sh", old, tmp_path / "venv"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 1
    assert "Python 3.11 or newer is needed" in done.stderr
    assert not (tmp_path / "venv").exists()
