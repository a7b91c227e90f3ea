"""Both sides of a scenario, one after the other: really, and simulated with a profile of another run."""

import tempfile
from pathlib import Path

from simulator.calibrate.live import calibrate
from simulator.emulate import playable, simulated
from simulator.emulate.play import Tell, dues_of, play
from simulator.emulate.stage import Starts, run
from simulator.emulate.twin import Twin, compare
from simulator.profile import Live, parts_of
from simulator.scenario import Scenario

CALIBRATION_S = 20.0
"""How long the steady phase is when a profile is made for the run."""


def emulate(scenario: Scenario, seed: int, live: Live | None, tell: Tell) -> Twin:
    """Play the scenario for real and simulated, and compare; without a profile one is measured first, with other jobs.

    Raises NotPlayableError, ProcessError, MeshClientError, EmulationError, OSError.
    """
    playable.check(scenario)
    with tempfile.TemporaryDirectory(prefix="mesh-twin-") as name:
        folder = Path(name)
        if live is None:
            rate = max(1.0, len(dues_of(scenario, seed)) / scenario.end_s)
            tell(f"no profile is given: measuring one at {rate:.3g} jobs/s")
            live = run(calibrate(rate, CALIBRATION_S, seed + 1, folder / "calibration", tell))
        starts = Starts(live.broker_start, live.agent_start)
        real = run(play(scenario, seed, folder / "evaluation", starts, tell))
    tell("simulating the same")
    seen = simulated.play(playable.as_simulated(scenario, parts_of(live)), seed)
    return compare(scenario, seed, real, seen, live.named)
