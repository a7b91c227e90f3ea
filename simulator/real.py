"""The commands of `mesh-sim` that deal with real meshes: emulate, calibrate, replay."""

import json
import sys
from collections.abc import Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

Json = Annotated[bool, Parameter(name="--json", negative="")]
Above = Annotated[float, Parameter(validator=Number(gt=0))]
Seed = Annotated[int, Parameter(validator=Number(gte=0))]
With = Annotated[list[str] | None, Parameter(name="--with", negative="")]
OK = 0
BAD_INPUT = 2
MISSED = 3
INTERRUPTED = 4


def emulate(
    file: Path,
    /,
    *,
    profile: Path | None = None,
    seed: Seed | None = None,
    with_: With = None,
    as_json: Json = False,
) -> int:
    """Play a scenario with a real broker and real agents on this machine, and say how far the simulation is off.

    It takes as long as the scenario says. What cannot be done to processes of one machine is refused by name.
    Exit code 0: every error is within its bar; 3: one is not; 4: interrupted; 2: bad file, or it cannot be played.

    Parameters
    ----------
    file
        Scenario file.
    profile
        What `mesh-sim calibrate` measured on this machine; without it that is done first.
    seed
        Instead of the seed of the file: the arrivals and durations of both sides.
    with_
        Another value for this run, such as `--with horizon.run=20s`.
    as_json
        Print one JSON object.
    """
    from broker.errors import MeshError
    from mesh_client import MeshClientError
    from mesh_client.loopback import ProcessError
    from simulator import sheet
    from simulator.emulate.both import emulate as play_both
    from simulator.emulate.play import EmulationError
    from simulator.profile import read
    from simulator.scenario import ChangeError
    from simulator.scenario_file import load

    try:
        scenario = load(file).changed(dict(sheet.change_of(text) for text in with_ or ()))
        live = read(profile).live_part() if profile is not None else None
        used = scenario.statistics.seed if seed is None else seed
        twin = play_both(scenario, used, live, _tell)
    except (MeshError, ChangeError, MeshClientError, ProcessError, EmulationError, OSError) as error:
        return _refused(error)
    except KeyboardInterrupt:
        return _interrupted()
    _say(twin.as_json() if as_json else twin.lines())
    return OK if twin.is_met else MISSED


def calibrate(
    file: Path,
    /,
    *,
    history: str | None = None,
    days: Above = 28.0,
    rate: Above = 200.0,
    seconds: Above = 20.0,
    seed: Seed = 1,
    as_json: Json = False,
) -> int:
    """Write a profile for scenarios: measured on this machine, or (`--history`) from the jobs that a broker remembers.

    What the file says of the other part stays. Exit code 0: written; 4: interrupted; 2: nothing could be measured.

    Parameters
    ----------
    file
        The profile; made if it does not exist.
    history
        HOST:PORT of a broker's API, or a file with what `mesh jobs list --output json` printed.
    days
        How far back the history is read.
    rate
        Jobs a second in the steady phase: measure at about the load that you ask about.
    seconds
        How long the steady phase is.
    seed
        Of the arrivals and durations of the steady phase.
    as_json
        Print one JSON object.
    """
    from broker.errors import MeshError
    from mesh_client import MeshClientError
    from mesh_client.loopback import ProcessError
    from simulator.calibrate import files
    from simulator.emulate.play import EmulationError

    try:
        if history is not None:
            said = files.add_history(file, history, timedelta(days=days), _tell)
        else:
            said = files.add_live(file, rate, seconds, seed, _tell)
    except (MeshError, MeshClientError, ProcessError, EmulationError, OSError) as error:
        return _refused(error)
    except KeyboardInterrupt:
        return _interrupted()
    _say(said.document if as_json else said.lines)
    return OK


def replay(folder: Path, /, *, with_: With = None, as_json: Json = False) -> int:
    """Put the journal of a live broker through the dispatcher again: the same events must have the same effects.

    With `--with` also what would have been: the same jobs, with so many agents more, simulated.
    Exit code 0: they have; 3: something differs; 2: the journal cannot be read, or the change makes no sense.

    Parameters
    ----------
    folder
        The folder `journal` in the `data_dir` of the broker (setting `journal.enabled`).
    with_
        What is changed, such as `agents=+2`, `agents=-1`, `slots=8`, `policy=round-robin`; may be given several times.
    as_json
        Print one JSON object.
    """
    from broker.errors import MeshError
    from broker.journal.segment import JournalError
    from simulator.chronicle import Chronicle
    from simulator.counterfactual import sides_of
    from simulator.replay import replay as replay_all

    chronicle = Chronicle() if with_ else None
    try:
        report = replay_all(folder, chronicle)
        sides = sides_of(chronicle, with_ or ()) if chronicle is not None else None
    except (JournalError, MeshError) as error:
        return _refused(error)
    for note in report.notes:
        _tell(note)
    figures = {name: getattr(report, name) for name in ("segments", "events", "effects", "differing", "skipped")}
    lines = [f"{name:10} {value}" for name, value in figures.items()]
    if sides is not None:
        figures["counterfactual"] = sides.as_json()
        lines += ["", *sides.lines()]
    _say(figures if as_json else lines)
    return MISSED if report.differing else OK


def _say(found: Mapping[str, object] | Iterable[str]) -> None:
    """A document as JSON, lines as they are, on standard output."""
    sys.stdout.write((json.dumps(found) if isinstance(found, Mapping) else "\n".join(found)) + "\n")


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _refused(error: Exception) -> int:
    _tell(str(error) or type(error).__name__)
    return BAD_INPUT


def _interrupted() -> int:
    _tell("interrupted: all that was started has been ended")
    return INTERRUPTED
