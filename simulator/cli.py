"""`mesh-sim`: capacity answers from the broker's own dispatcher."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from command_line import completion
from command_line.program import run
from simulator import commands, real
from simulator.fuzz.command import explore, fuzz
from simulator.options import Answers


def _version() -> str:
    from importlib.metadata import version

    return version("jobmesh")


app = App(
    name="mesh-sim",
    help="Simulate a group of agents with the broker's own dispatcher, in virtual time.",
    version=_version,
)
for _command in (
    commands.run,
    commands.report,
    commands.compare,
    commands.sweep,
    commands.solve,
    commands.verify,
    real.emulate,
    real.calibrate,
    real.replay,
    fuzz,
    explore,
):
    app.command(_command)
completion.add_to(app)

Positive = Annotated[int, Parameter(validator=Number(gte=1))]
Above = Annotated[float, Parameter(validator=Number(gt=0))]


@app.command
def check(
    scenario: Path,
    /,
    *,
    resolved: bool = False,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Say whether a scenario can be used, and if not, in which line it is wrong. Exit code 2: it cannot.

    Parameters
    ----------
    scenario
        A scenario file.
    resolved
        Print the scenario with every default written out.
    as_json
        Print one JSON object.
    """
    from broker.errors import MeshError
    from simulator.scenario_file import dump, load

    try:
        loaded = load(scenario)
    except MeshError as error:
        print(json.dumps({"ok": False, "errors": str(error).splitlines()}) if as_json else error, file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps({"ok": True, "scenario": loaded.resolved()}))
    elif resolved:
        print(dump(loaded), end="")
    else:
        print(f"{scenario}: ok")
    return 0


@app.command
def schema() -> int:
    """Print the JSON schema of scenario files, for editors."""
    from simulator.scenario_file import schema_text

    print(schema_text())
    return 0


@app.command
def init(
    file: Path | None = None,
    /,
    *,
    answers: Answers | None = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Write a scenario to begin with, with comments: one of the library, with your own numbers.

    At a terminal it asks. Elsewhere, and with a question, it takes the options; without one it lists the library.

    Parameters
    ----------
    file
        Where to write; it must not exist. Standard output without it.
    as_json
        List the library as one JSON object.
    """
    from broker.errors import ConfigError
    from simulator.library import names_and_titles
    from simulator.menu import ask, scenario_of

    known = names_and_titles()
    if as_json:
        print(json.dumps({"scenarios": known}))
        return 0
    told = answers or Answers()
    if not told.question and not sys.stdin.isatty():
        if file is not None:
            print(f"{file}: nothing is written: name a scenario with --question, such as steady", file=sys.stderr)
            return 2
        print("\n".join(f"{name:22} {title}" for name, title in known.items()))
        return 0
    try:
        if told.question:
            text = scenario_of(told)
        else:
            from rich.console import Console

            text = scenario_of(ask(Console(stderr=True)))
        if file is None:
            print(text, end="")
            return 0
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{file}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    except (KeyboardInterrupt, EOFError):
        print("\nnothing was written", file=sys.stderr)
        return 4
    print(f"{file} is written; next: mesh-sim check {file}, mesh-sim run {file}", file=sys.stderr)
    return 0


def main() -> None:
    """Entry point."""
    sys.exit(run(app, sys.argv[1:]))
