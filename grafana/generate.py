"""Write the dashboards that Grafana reads from the code beside this file.

    python -m grafana.generate [--check]

`--check` writes nothing and exits 1 if a committed file is not what the code gives.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from grafana.fleet import fleet

FOLDER: Final = Path(__file__).resolve().parent / "dashboards"
DASHBOARDS: Final[Mapping[str, Callable[[], Dashboard]]] = {"fleet.json": fleet}


def contents() -> dict[str, str]:
    """The text of each file by its name."""
    return {
        name: json.dumps(make(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n" for name, make in DASHBOARDS.items()
    }


def stale(folder: Path = FOLDER) -> list[str]:
    """Names of files that are not what the code gives, or that no code gives."""
    wanted = contents()
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.json")}
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(prog="python -m grafana.generate", description="Write the dashboards.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not up to date")
    if parser.parse_args(argv).check:
        for name in (wrong := stale()):
            sys.stderr.write(f"grafana/dashboards/{name} is stale: run python -m grafana.generate\n")
        return 1 if wrong else 0
    for name, text in contents().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
