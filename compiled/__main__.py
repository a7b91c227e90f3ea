"""`make compile`: makes the compiled copy of the packages, and says how to use it."""

import argparse
import sys
import time

from compiled.building import CompileError, make
from compiled.copies import FOLDER, ROOT, current


def main() -> None:
    """Make it. Exit 1 in words if that cannot be done here."""
    argparse.ArgumentParser(prog="python -m compiled", description="The compiled copy of the packages.").parse_args()
    if current() is None:
        print("compile: this takes a minute or two", file=sys.stderr)
    began_s = time.monotonic()
    try:
        copy = make()
    except CompileError as error:
        sys.exit(f"compile: {error}")
    folder = FOLDER.relative_to(ROOT)
    print(f"compile: {copy.relative_to(ROOT)} is there after {time.monotonic() - began_s:.0f} s", file=sys.stderr)
    print(f"compile: run {folder}/mesh-sim, {folder}/mesh or {folder}/mesh-agent as you would without", file=sys.stderr)


if __name__ == "__main__":
    main()
