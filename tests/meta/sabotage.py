"""One breakage for each part of the gate, done to a copy of the tree.

A gate that cannot turn red shows nothing. Each breakage here is what a hurried person would do, and
`tests/meta/test_check.py` sees the part of the gate that it is meant for refuse it, by the name of the broken file.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

# mypy's cache goes along: without it the types of the copy would take a minute to check.
_LEFT_OUT = (
    ".git",
    ".venv",
    "__pycache__",
    ".hypothesis",
    ".pytest_cache",
    ".ruff_cache",
    ".import_linter_cache",
    "build",
    "var",
)


def _format(root: Path) -> None:
    _add(root, "broker/dispatch/sabotaged.py", '"""Sabotage."""\n\nX = {  "a":1 }\n')


def _lint(root: Path) -> None:
    _add(root, "broker/dispatch/sabotaged.py", '"""Sabotage."""\n\nimport json\n')


def _types(root: Path) -> None:
    _add(root, "broker/dispatch/sabotaged.py", '"""Sabotage."""\n\nX: int = "one"\n')


def _imports(root: Path) -> None:
    _add(root, "broker/dispatch/sabotaged.py", '"""Sabotage."""\n\nimport time\n\nNOW = time.time()\n')


def _generated(root: Path) -> None:
    path = root / "protos/mesh/v1/job_pb2.pyi"
    path.write_text(path.read_text() + "\n# edited by hand\n")


def _contract(root: Path) -> None:
    path = root / "protos/mesh/v1/job.proto"
    path.write_text(path.read_text() + "\n// Sabotage.\nmessage not_in_camel_case {}\n")


def _ignores(root: Path) -> None:
    _add(root, "tests/sabotaged.py", 'x: int = "one"  # type: ignore[assignment]\n' * 21)


def _exceptions(root: Path) -> None:
    path = root / "pyproject.toml"
    exception = 'id = "strangers"\nignore_imports = ["agent_stub -> broker"]\n'
    path.write_text(path.read_text().replace('id = "strangers"\n', exception))


BREAKAGES: dict[str, Callable[[Path], None]] = {
    "format": _format,
    "lint": _lint,
    "types": _types,
    "imports": _imports,
    "generated": _generated,
    "contract": _contract,
    "ignores": _ignores,
    "exceptions": _exceptions,
}


@contextlib.contextmanager
def broken_copy(root: Path, name: str) -> Iterator[Path]:
    """A copy of the tree at `root`, broken as `name` says and removed afterwards.

    Raises:
        SystemExit: there is no such breakage; the text names those that exist.
    """
    if name not in BREAKAGES:
        raise SystemExit(f"check: no sabotage is called {name!r}; there are {', '.join(BREAKAGES)}")
    with tempfile.TemporaryDirectory(prefix="mesh-sabotage-") as scratch:
        copy = Path(scratch) / "tree"
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(*_LEFT_OUT))
        BREAKAGES[name](copy)
        yield copy


def _add(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
