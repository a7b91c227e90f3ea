"""Makes a copy: packages as they are, hot modules rewritten and compiled, launchers beside it."""

import fcntl
import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from contextlib import suppress
from pathlib import Path
from typing import Final

from compiled.copies import FOLDER, IN_USE, PACKAGES, ROOT, digest_of, hold
from compiled.modules import MODULES
from compiled.rewriting import NotCompilableError, rewritten

PROGRAMS: Final = ("mesh", "mesh-agent", "mesh-sim", "python")
LOG_LINES: Final = 20
HALF: Final = ".half"
"""Ends the name of a copy that is being made."""
GONE: Final = ".gone"
"""Ends the name of a copy that is being removed."""


class CompileError(Exception):
    """There is no copy; the text says why and what to do."""


def make(modules: tuple[str, ...] = MODULES, folder: Path = FOLDER, optimization: str = "1") -> Path:
    """The copy of the sources as they are now: made if it is not there. Raises CompileError."""
    check_compiler()
    digest = digest_of(ROOT)
    copy = folder / digest
    if not copy.is_dir():
        _make(copy, modules, optimization)
    tidy(folder, copy)
    _write_launchers(folder)
    return copy


def tidy(folder: Path, copy: Path) -> None:
    """Remove what is of no use any more: other copies that nobody runs from, and what was broken off."""
    for other in folder.iterdir():
        if other.suffix == GONE:
            shutil.rmtree(other, ignore_errors=True)
        elif other.is_dir() and other != copy and not other.name.startswith("."):
            _remove_unused(other)


def check_compiler() -> None:
    """Raises CompileError: this machine has no C compiler, or Python came without its headers."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise CompileError(f"there is no C compiler `{compiler}`: install one (Debian: gcc) or name it in $CC")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise CompileError("Python came without its C headers: install them (Debian: python3-dev)")


def _make(copy: Path, modules: tuple[str, ...], optimization: str) -> None:
    half = copy.with_name(f"{copy.name}.{os.getpid()}{HALF}")
    shutil.rmtree(half, ignore_errors=True)  # of a process that had this number
    half.mkdir(parents=True)
    (half / IN_USE).touch()
    lock = hold(half)
    try:
        _fill(half, modules)
        _compile(half, copy.parent, modules, optimization)
        try:
            half.rename(copy)
        except OSError:
            if not copy.is_dir():
                raise  # else somebody else has made it in the meantime: it is the same
    finally:
        shutil.rmtree(half, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _remove_unused(other: Path) -> None:
    """Unless it is run from, or made, now. A half one has its file at once: without, it is younger than that."""
    with suppress(FileNotFoundError, BlockingIOError):
        lock = os.open(other / IN_USE, os.O_RDWR | (0 if other.suffix == HALF else os.O_CREAT))
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Broken off now, it must not be found under its old name again.
            gone = other.rename(other.with_name(f"{other.name}.{os.getpid()}{GONE}"))
            shutil.rmtree(gone, ignore_errors=True)
        finally:
            os.close(lock)


def _fill(copy: Path, modules: tuple[str, ...]) -> None:
    for package in PACKAGES:
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    for name in modules:
        try:
            text = rewritten((ROOT / name).read_text("utf-8"), name)
        except NotCompilableError as error:
            raise CompileError(f"{error}: write it otherwise, or take it out of compiled/modules.py") from error
        (copy / name).write_text(text, "utf-8")


def _compile(copy: Path, folder: Path, modules: tuple[str, ...], optimization: str) -> None:
    program = (sys.executable, "-P", "-m", "compiled.extensions", optimization, *modules)
    # What mypy knows of other packages is kept: they are most of its work.
    settings = os.environ | {"PYTHONPATH": str(ROOT), "MYPY_CACHE_DIR": str(folder / ".mypy_cache")}
    done = subprocess.run(program, cwd=copy, env=settings, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-LOG_LINES:])
        raise CompileError(f"the compiler refused the copy; its last words:\n{last}")
    shutil.rmtree(copy / "build")
    (copy / "pyproject.toml").unlink()


def _write_launchers(folder: Path) -> None:
    launcher = shlex.quote(str(ROOT / "compiled/launcher.py"))
    for program in PROGRAMS:
        path = folder / program
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P {launcher} {program} "$@"\n')
        path.chmod(0o755)
