"""Where the copies are: `build/compiled/HASH`, named by all that a copy is made of, so that a stale one is never used.

Standard library only: launchers read this.
"""

import fcntl
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
FOLDER: Final = ROOT / "build/compiled"
PACKAGES: Final = ("broker", "agent_stub", "mesh_client", "simulator", "command_line", "protos", "compiled")
"""What a copy holds."""
MADE_WITH: Final = ("pyproject.toml", "requirements/dev.txt")
"""Options of the type checker, and which mypyc: a change of these makes another copy, too."""
IN_USE: Final = "in-use"
"""A file of each copy: whoever runs from the copy has a lock on it."""


def sources(root: Path) -> Iterator[Path]:
    """All files of the packages, in one order."""
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                yield path


def digest_of(root: Path) -> str:
    """What names a copy."""
    made_of = hashlib.blake2b(digest_size=8)
    made_of.update(f"{sys.implementation.cache_tag} {sysconfig.get_platform()}".encode())
    for path in (*sources(root), *(root / name for name in MADE_WITH)):
        content = path.read_bytes()
        made_of.update(f"\n{path.relative_to(root)} {len(content)}\n".encode())
        made_of.update(content)
    return made_of.hexdigest()


def current() -> Path | None:
    """The copy of the sources as they are now, if it was made."""
    copy = FOLDER / digest_of(ROOT)
    return copy if copy.is_dir() else None


def hold(copy: Path) -> int | None:
    """A lock on the copy: `make` leaves it alone until the descriptor is closed. None: it is not there any more."""
    try:
        lock = os.open(copy / IN_USE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    fcntl.flock(lock, fcntl.LOCK_SH)
    if (copy / IN_USE).exists():
        return lock
    os.close(lock)  # it was removed while this waited
    return None
