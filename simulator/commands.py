"""The commands of `mesh-sim` that replicate. What they say is in `simulator.console`."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from simulator.options import Files, Metrics, Options

Json = Annotated[bool, Parameter(name="--json", negative="")]
INTERRUPTED = 4
BAD_FILE = 2


def run(
    file: Path,
    /,
    *,
    with_: Annotated[list[str] | None, Parameter(name="--with")] = None,
    options: Options | None = None,
    files: Files | None = None,
    metrics: Metrics | None = None,
    as_json: Json = False,
) -> int:
    """What becomes of a scenario: its figures with intervals, whole and by phase, and whether it meets its objectives.

    Exit code 0: they are met; 3: one is missed, or a backlog grows without end; 4: not precise enough, or interrupted;
    2: bad file.

    Parameters
    ----------
    file
        Scenario file; `mesh-sim init` writes one.
    with_
        Another value for this run, such as `--with groups.erp.agents.count=20`.
    as_json
        Print one JSON object.
    """
    return _tell(
        "say_run",
        file,
        with_ or (),
        metrics or Metrics(),
        options or Options(),
        files or Files(),
        as_json=as_json,
    )


def compare(
    first: Path,
    second: Path,
    /,
    *,
    options: Options | None = None,
    files: Files | None = None,
    as_json: Json = False,
) -> int:
    """What changes from one scenario to another, on the same days: every figure, and whether it is more than chance.

    Exit code 0: compared; 3: a backlog grows without end; 4: interrupted; 2: a file cannot be used.

    Parameters
    ----------
    first
        Scenario file; its seed, replications and objectives count.
    second
        Scenario file that sees the same arrivals and the same work.
    as_json
        Print one JSON object.
    """
    return _tell("say_comparison", first, second, options or Options(), files or Files(), as_json=as_json)


def sweep(
    file: Path, /, *axes: str, options: Options | None = None, files: Files | None = None, as_json: Json = False
) -> int:
    """A scenario with every combination of some values: `mesh-sim sweep FILE groups.erp.agents.count=16..20`.

    Exit code 0: every point meets the objectives; 3: one misses them; 4: not precise enough, or interrupted;
    2: bad file or key.

    Parameters
    ----------
    file
        Scenario file.
    axes
        KEY=VALUES with values like `1,2,3`, `16..20` or `15..30..3`.
    as_json
        Print one JSON object.
    """
    return _tell("say_sweep", file, axes, options or Options(), files or Files(), as_json=as_json)


def solve(
    file: Path,
    /,
    *,
    group: str | None = None,
    zones: Literal["equal", "any"] = "equal",
    options: Options | None = None,
    as_json: Json = False,
) -> int:
    """The smallest fleet that meets the objectives of a scenario.

    Exit code 0: found; 4: interrupted; 2: bad file, or no fleet will do.

    Parameters
    ----------
    file
        Scenario file with objectives.
    group
        Which group is sized, where there are several.
    zones
        `equal`: as many agents in every zone; `any`: one more in some.
    as_json
        Print one JSON object.
    """
    return _tell("say_solution", file, options or Options(), as_json=as_json, group=group, zones=zones)


def verify(
    *only: str,
    quick: Annotated[bool, Parameter(negative="")] = False,
    cases: Path | None = None,
    options: Options | None = None,
    as_json: Json = False,
) -> int:
    """The truth table: cases whose answer mathematics knows, through the real dispatcher.

    Exit code 0: every figure passes; 3: one fails; 4: a case was skipped, or interrupted; 2: bad file.

    Parameters
    ----------
    only
        Cases by their ids; all without.
    quick
        The cases that are done in half a minute.
    cases
        A file of further cases, of the same form as the table.
    as_json
        Print one JSON object.
    """
    return _tell("say_truth", options or Options(), as_json=as_json, quick=quick, cases=cases, only=only)


def report(result: Path, /, *more: Path, files: Files | None = None) -> int:
    """Make a page of what other commands printed with --json: `mesh-sim report RESULT.json` writes RESULT.html.

    Exit code 0: written; 2: a file cannot be used.

    Parameters
    ----------
    result
        What run, compare, sweep, solve, verify or emulate printed.
    more
        Further answers for the same page, each a section.
    """
    from broker.errors import ConfigError
    from simulator.report.files import report as make

    try:
        made = make([result, *more], files or Files())
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return BAD_FILE
    for path in (made.html, made.csv, made.parquet):
        if path is not None:
            sys.stdout.write(f"{path}\n")
    return 0


def _tell(what: str, *arguments: object, as_json: bool, **named: object) -> int:
    """Write what a function of `simulator.console` has found to standard output, refusals to standard error."""
    from simulator import console

    try:
        said: console.Said = getattr(console, what)(*arguments, **named)
    except console.BAD_INPUT as error:
        said = console.refused(error)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: nothing can be said yet; the same command goes on from where it was\n")
        return INTERRUPTED
    if said.code == BAD_FILE:
        sys.stderr.write("\n".join(said.lines) + "\n")
    if as_json:
        sys.stdout.write(json.dumps(said.document) + "\n")
    elif said.code != BAD_FILE:
        sys.stdout.write("\n".join(said.lines) + "\n")
    return int(said.code)
