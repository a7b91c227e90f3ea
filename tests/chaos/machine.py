"""What rows need of the machine; each need says what is missing, or nothing."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Final


def _program(name: str) -> str:
    return "" if shutil.which(name) else f"the program {name} is missing: make system"


def _strace() -> str:
    """It may be there and not be let: in a container, or by a setting of the kernel."""
    if lacking := _program("strace"):
        return lacking
    done = subprocess.run(("strace", "-f", "-o", "/dev/null", "true"), capture_output=True, text=True, check=False)
    return f"strace cannot trace here: {done.stderr.strip()}" if done.returncode else ""


def _module(name: str) -> str:
    return "" if importlib.util.find_spec(name) else f"the Python package {name} is missing: make install"


def _root() -> str:
    return "" if os.geteuid() == 0 else "it needs root"


def _file(path: str) -> str:
    return "" if Path(path).exists() else f"{path} does not exist on this machine"


def _library(pattern: str) -> str:
    found = any(folder.glob(pattern) for folder in (Path("/usr/lib"), *Path("/usr/lib").glob("*-linux-gnu*")))
    return "" if found else f"no library {pattern}: make system"


NEEDS: Final[dict[str, Callable[[], str]]] = {
    "root": _root,
    "strace": _strace,
    "ip": partial(_program, "ip"),
    "ss": partial(_program, "ss"),
    "nsenter": partial(_program, "nsenter"),
    "tun": partial(_file, "/dev/net/tun"),
    "fuse": partial(_file, "/dev/fuse"),
    "fusermount3": partial(_program, "fusermount3"),
    "mfusepy": partial(_module, "mfusepy"),
    "eatmydata": partial(_program, "eatmydata"),
    "faketime": partial(_library, "faketime/libfaketimeMT.so.1"),
    "h2load": partial(_program, "h2load"),
    "slowhttptest": partial(_program, "slowhttptest"),
    "cgroup": partial(_file, "/sys/fs/cgroup"),
    "cgroup-memory": partial(_file, "/sys/fs/cgroup/memory/cgroup.procs"),
    "cgroup-cpu": partial(_file, "/sys/fs/cgroup/cpu/cgroup.procs"),
}


@cache
def missing(needs: Iterable[str]) -> str:
    """What this machine lacks of them, as one text; empty if nothing. `needs` must be hashable (a tuple)."""
    return "; ".join(text for need in needs if (text := NEEDS[need]()))
