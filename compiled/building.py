"""Makes a copy: packages as they are, hot modules rewritten and compiled, launchers beside it."""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Final

from compiled.copies import FOLDER, PACKAGES, ROOT, digest_of
from compiled.modules import MODULES
from compiled.rewriting import NotCompilableError, rewritten

PROGRAMS: Final = ("mesh", "mesh-agent", "mesh-sim", "python")
LOG_LINES: Final = 20


class CompileError(Exception):
    """There is no copy; the text says why and what to do."""


def make(modules: tuple[str, ...] = MODULES, folder: Path = FOLDER, optimization: str = "1") -> Path:
    """The copy of the sources as they are now: made if it is not there. Raises CompileError."""
    check_compiler()
    digest = digest_of(ROOT)
    copy = folder / digest
    if not copy.is_dir():
        half = folder / f"{digest}.{os.getpid()}.half"
        try:
            _fill(half, modules)
            _compile(half, folder, modules, optimization)
            half.rename(copy)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    for other in folder.iterdir():
        if other.is_dir() and other != copy and not other.name.startswith(".") and not other.suffix:
            shutil.rmtree(other)
    _write_launchers(folder)
    return copy


def check_compiler() -> None:
    """Raises CompileError: this machine has no C compiler, or Python came without its headers."""
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
    if shutil.which(compiler) is None:
        raise CompileError(f"there is no C compiler `{compiler}`: install one (Debian: gcc) or name it in $CC")
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        raise CompileError("Python came without its C headers: install them (Debian: python3-dev)")


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
