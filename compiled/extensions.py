"""Compiles modules of the folder it runs in, beside their sources: `python -m compiled.extensions LEVEL FILE ...`."""

import sys
from pathlib import Path

from mypyc.build import mypycify
from setuptools import setup


def main() -> None:
    """Compile them as one group: calls from one to another are calls of C."""
    level, *files = sys.argv[1:]
    extensions = mypycify(files, opt_level=level, debug_level="0", group_name=f"jobmesh_{Path.cwd().name[:16]}")
    for extension in extensions:
        extension.extra_compile_args.append("-Wno-error")  # another compiler warns of other things
    setup(name="jobmesh-compiled", packages=[], ext_modules=extensions, script_args=["-q", "build_ext", "--inplace"])


if __name__ == "__main__":
    main()
