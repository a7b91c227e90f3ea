"""`mesh`: the broker and its mesh on the command line.

Standard output is data, standard error is words. Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 denied,
5 unavailable or timeout, 6 wrong state, 130 interrupted. Commands are imported when they are used: help needs neither
gRPC nor a broker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

from cyclopts import App, Parameter

from broker.cli.exits import EXIT_CODES, EXIT_INTERRUPTED, CommandError
from broker.cli.output import choose
from command_line import completion
from command_line.program import run

TEXT_VARIABLES: Final = ("MESH_API", "MESH_ORGANIZATION")


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("jobmesh")
    except PackageNotFoundError:
        return "unknown: not installed"


app = App(
    name="mesh",
    help="Distributes durable jobs to agents next to the data.",
    help_format="plaintext",  # the others load parsers of markup, which costs a quarter of the time that help takes
    help_epilogue="Exit codes:\n" + "\n".join(f"  {code:>3}  {words}" for code, words in EXIT_CODES.items()),
    version=_version,
    result_action="return_value",
    suppress_keyboard_interrupt=False,  # `main` says how a command ends
)
app.command("broker.cli.serve:serve", name="serve", help="Run a broker.")
app.command("broker.cli.jobs:app", name="jobs", help="Submit, read, follow and steer jobs.")
app.command("broker.cli.groups:app", name="groups", help="Groups of agents that share one queue.")
app.command("broker.cli.environments:app", name="environments", help="Where jobs are sent without naming groups.")
app.command("broker.cli.organizations:app", name="organizations", help="Who owns groups, environments, jobs.")
app.command("broker.cli.agents:app", name="agents", help="Programs that run jobs: add, see, drain, disable, remove.")


app.command("broker.cli.config:app", name="config", help="Settings of a broker: see them, check a file.")
completion.add_to(app)


@app.command(name="demo")
def run_demo(
    *,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    keep: Annotated[bool, Parameter(negative="", show_default=False)] = False,
    files: Path | None = None,
) -> int:
    """Show what the mesh does when agents and the broker are killed and drained under load. Takes half a minute.

    Parameters
    ----------
    json
        Write the report as JSON to standard output, too.
    keep
        Leave the mesh running afterwards, until Ctrl-C, and say what to try next.
    files
        An empty directory for its files, which are otherwise removed in the end.
    """
    from broker.cli.demo import main as demonstrate

    return demonstrate(json=json, keep=keep, files=files)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    choose("json")
    try:
        return run(app, words, (os.environ.get(name, "") for name in TEXT_VARIABLES))
    except CommandError as error:
        print(f"mesh: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
