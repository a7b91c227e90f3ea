"""Runs a program of the product from the compiled copy: `build/compiled/mesh-sim run ...`.

Standard library only. What has changed since the copy was made is not run in its old form: exit 2, in words.
"""

import os
import sys
from pathlib import Path
from typing import Final, NoReturn

PROGRAMS: Final = {"mesh": "broker.cli", "mesh-agent": "agent_stub.cli", "mesh-sim": "simulator.cli"}
"""Where the entry point of each is."""
STARTING: Final = frozenset({"mesh-sim", "python"})
"""These start interpreters that must find the copy as well. The others leave the environment as it is, for handlers."""


def main() -> None:
    """Run `argv[1]` in the place of this process. `python` is the interpreter, with the copy in front of the tree."""
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root))
    from compiled.copies import current, hold

    program, *arguments = sys.argv[1:]
    if program == "mesh-sim" and arguments[:1] == ["replay"]:
        _refuse(f"{program}: run `mesh-sim replay` of the pure form: this one cannot read the snapshots of a journal")
    copy = current()
    lock = hold(copy) if copy is not None else None
    if copy is None or lock is None:
        _refuse(f"{program}: the sources have changed since they were compiled: run `make compile` again")
    os.set_inheritable(lock, True)  # whoever takes the place of this process has it until its end
    begin: tuple[str, ...] = ()
    if program in PROGRAMS:
        begin = ("-P", "-c", _beginning(program, copy))
    os.execve(sys.executable, [sys.executable, *begin, *arguments], _settings(program, copy, root))


def _refuse(why: str) -> NoReturn:
    print(why, file=sys.stderr)
    sys.exit(2)


def _beginning(program: str, copy: Path) -> str:
    """What the interpreter does: the copy is in front of the tree that is installed."""
    path = "" if program in STARTING else f"sys.path.insert(0, {str(copy)!r}); "
    return f"import sys; {path}from {PROGRAMS[program]} import main; sys.argv[0] = {program!r}; sys.exit(main())"


def _settings(program: str, copy: Path, root: Path) -> dict[str, str]:
    """The environment: what it had, behind what the interpreters need that this program starts."""
    settings = dict(os.environ)
    if program in STARTING:
        # The tree has tests and measurements, for `python -m`; for other programs those names stay free.
        path = [str(copy), *([str(root)] if program == "python" else []), settings.get("PYTHONPATH", "")]
        settings["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        # Workers are started with `-m`, which would look into the working directory first: a tree may be there.
        settings["PYTHONSAFEPATH"] = "1"
    return settings


if __name__ == "__main__":
    main()
