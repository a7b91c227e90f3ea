"""Runs a module under the profiler and leaves the statistics in a file: where a process of the mesh spends its time.

    python -m bench.profiled broker.prof broker.cli serve --dev
    python -m pstats broker.prof

Only the main thread is profiled (the event loop), and everything is slower: for shares, not for figures.
"""

import cProfile
import runpy
import sys


def main() -> None:
    """Run `MODULE` with its arguments; write to `FILE` when it ends, however it ends."""
    file, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    profile = cProfile.Profile()
    try:
        profile.runcall(runpy.run_module, module, run_name="__main__", alter_sys=True)
    finally:
        profile.dump_stats(file)


if __name__ == "__main__":
    main()
