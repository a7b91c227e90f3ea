"""Runs a program of the product from the compiled copy: `build/compiled/mesh-sim run ...`.

Standard library only. What has changed since the copy was made is not run in its old form: exit 2, in words.
"""

import os
import sys
from pathlib import Path
from typing import Final

PROGRAMS: Final = {"mesh": "broker.cli", "mesh-agent": "agent_stub.cli", "mesh-sim": "simulator.cli"}
"""Where the entry point of each is."""


def main() -> None:
    """Run `argv[1]` in the place of this process. `python` is the interpreter, with the copy in front of the tree."""
    root = Path(__file__).resolve().parents[1]
    sys.path.insert(0, str(root))
    from compiled.copies import current

    program, *arguments = sys.argv[1:]
    copy = current()
    if copy is None:
        print(
            f"{program}: the sources have changed since they were compiled: run `make compile` again", file=sys.stderr
        )
        sys.exit(2)
    # In front of the working directory too, and of the tree that is installed: for whatever this starts as well.
    settings = os.environ | {"PYTHONPATH": f"{copy}{os.pathsep}{root}", "PYTHONSAFEPATH": "1"}
    begin: tuple[str, ...] = ()
    if program in PROGRAMS:
        begin = ("-c", f"import sys; from {PROGRAMS[program]} import main; sys.argv[0] = {program!r}; sys.exit(main())")
    os.execve(sys.executable, [sys.executable, *begin, *arguments], settings)


if __name__ == "__main__":
    main()
