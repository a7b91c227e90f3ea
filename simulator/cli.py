"""`mesh-sim`: capacity answers from the broker's own dispatcher."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

from simulator import commands

app = App(name="mesh-sim", help="Simulate a group of agents with the broker's own dispatcher, in virtual time.")
for _command in (commands.compare, commands.sweep, commands.solve, commands.verify):
    app.command(_command)

Positive = Annotated[int, Parameter(validator=Number(gte=1))]
Above = Annotated[float, Parameter(validator=Number(gt=0))]


@app.command
def run(
    scenario: Path,
    /,
    *,
    seed: int | None = None,
    replication: Annotated[int, Parameter(validator=Number(gte=0))] = 0,
    with_: Annotated[list[str] | None, Parameter(name="--with")] = None,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Play a scenario once: its figures, whole and by phase.

    Parameters
    ----------
    scenario
        A scenario file; `mesh-sim init` writes one.
    seed
        Instead of the seed of the file: the same seed gives the same run.
    replication
        Which replication: each is another day of the same scenario.
    with_
        Another value for one run, such as `--with groups.erp.agents.count=20`.
    as_json
        Print one JSON object.
    """
    from broker.errors import MeshError
    from simulator import sheet
    from simulator.scenario import ChangeError
    from simulator.scenario_file import load
    from simulator.world import simulate

    try:
        loaded = load(scenario).changed(dict(sheet.change_of(text) for text in with_ or ()))
    except (MeshError, ChangeError) as error:
        print(error, file=sys.stderr)
        return 2
    used = loaded.statistics.seed if seed is None else seed
    seen = simulate(loaded, seed=used, replication=replication)
    if as_json:
        print(json.dumps(sheet.document(loaded, used, replication, seen), allow_nan=False))
    else:
        print("\n".join(sheet.table(loaded, seen)))
    return 0


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
    question: Annotated[str, Parameter(name=["--question", "-q"])] = "",
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """Write a scenario to begin with: one of the library, with comments. Without a question: list them.

    Parameters
    ----------
    file
        Where to write; it must not exist. Standard output without it.
    question
        The name of a scenario of the library, such as `zone-loss-at-peak`.
    as_json
        List the library as one JSON object.
    """
    from simulator.library import names_and_titles, text_of
    from simulator.units import nearest

    known = names_and_titles()
    if not question:
        if as_json:
            print(json.dumps({"scenarios": known}))
        else:
            print("\n".join(f"{name:22} {title}" for name, title in known.items()))
        return 0
    if question not in known:
        print(f"there is no scenario `{question}`; {nearest(question, known)}", file=sys.stderr)
        return 2
    if file is None:
        print(text_of(question), end="")
        return 0
    try:
        with file.open("x", encoding="utf-8") as stream:
            stream.write(text_of(question))
    except OSError as error:
        print(f"{file}: cannot be written: {error.strerror}", file=sys.stderr)
        return 2
    return 0


@app.command
def replay(folder: Path, /, *, as_json: Annotated[bool, Parameter(name="--json", negative="")] = False) -> int:
    """Put the journal of a live broker through the dispatcher again: the same events must have the same effects.

    Exit code 0: they have; 3: something differs; 2: the journal cannot be read.

    Parameters
    ----------
    folder
        The folder `journal` in the `data_dir` of the broker (setting `journal.enabled`).
    as_json
        Print one JSON object.
    """
    from broker.journal.segment import JournalError
    from simulator.replay import replay as replay_all

    try:
        report = replay_all(folder)
    except JournalError as error:
        print(error, file=sys.stderr)
        return 2
    figures = {name: getattr(report, name) for name in ("segments", "events", "effects", "differing", "skipped")}
    for note in report.notes:
        print(note, file=sys.stderr)
    if as_json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:10} {value}")
    return 3 if report.differing else 0


def main() -> None:
    """Entry point."""
    sys.exit(app())
