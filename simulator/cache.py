"""Results that need not be computed again: an interrupted sweep goes on where it stopped.

A result is filed under the hash of everything that decides it: the scenario with its changes, the seed, the
replication, and the code (every source file of the simulator, the dispatcher and the agent's session, with the versions
of Python and of what draws the numbers). A change of one line anywhere in there computes everything anew.
"""

import hashlib
import json
import os
import platform
import tempfile
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Final

DECIDING: Final = (("simulator", "."), ("broker", "dispatch"), ("agent_stub", "session"), ("agent_stub", "backoff.py"))
"""Package and path of the sources that decide a result."""
DISTRIBUTIONS: Final = ("numpy", "simpy")
BYTES_MAX: Final = 200_000_000


class ResultCache:
    """JSON documents in a folder, one file a result, the oldest removed when there are more than `bytes_max` bytes.

    Several processes may use one folder: files appear whole or not at all. A file that cannot be read counts as not
    there, and is written anew.
    """

    def __init__(self, folder: Path, *, bytes_max: int = BYTES_MAX) -> None:
        self._folder = folder
        self._bytes_max = bytes_max

    @staticmethod
    def default_folder() -> Path:
        """`mesh-sim` in the user's cache folder ($XDG_CACHE_HOME, else ~/.cache)."""
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesh-sim"

    def get(self, key: str) -> dict[str, object] | None:
        """The document filed under `key`; None if there is none, or none that can be read."""
        try:
            document = json.loads(self._path(key).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return document if isinstance(document, dict) else None

    def put(self, key: str, document: Mapping[str, object]) -> None:
        """File a document. Floats keep every bit.

        Raises:
            OSError: the folder cannot be written.
        """
        path = self._path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, suffix=".tmp", delete=False) as file:
            try:
                json.dump(document, file)
                file.flush()
                Path(file.name).replace(path)
            except BaseException:  # Ctrl-C too leaves nothing behind
                Path(file.name).unlink(missing_ok=True)
                raise

    def prune(self) -> int:
        """Remove the oldest results until the rest fits; the number removed."""
        found = []
        for path in self._folder.glob("*/*.json"):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue  # another process prunes too
            found.append((status.st_mtime_ns, status.st_size, path))
        left = sum(size for _, size, _ in found)
        removed = 0
        for _, size, path in sorted(found):
            if left <= self._bytes_max:
                break
            path.unlink(missing_ok=True)
            left -= size
            removed += 1
        return removed

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.json"


def key_of(scenario: str, changes: Mapping[str, object], seed: int, replication: int) -> str:
    """The hash that a result is filed under. `scenario` is its resolved JSON."""
    parts = [code_version(), scenario, json.dumps(changes, sort_keys=True, default=str), str(seed), str(replication)]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@cache
def code_version() -> str:
    """A hash of the sources and versions that decide a result; read once a process."""
    digest = hashlib.sha256(platform.python_version().encode())
    for name in DISTRIBUTIONS:
        digest.update(f"{name} {version(name)}\n".encode())
    for package, path in DECIDING:
        root = Path(str(files(package))) / path
        for source in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            digest.update(f"{package}/{source.relative_to(root.parent)}\n".encode() + source.read_bytes())
    return digest.hexdigest()
