"""`mesh-sim`: capacity answers from the broker's own dispatcher."""

import json
import sys
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.validators import Number

app = App(name="mesh-sim", help="Simulate a group of agents with the broker's own dispatcher, in virtual time.")

Positive = Annotated[int, Parameter(validator=Number(gte=1))]
Above = Annotated[float, Parameter(validator=Number(gt=0))]


@app.command
def run(
    *,
    agents: Positive = 4,
    slots: Positive = 4,
    rate: Above = 10.0,
    mean: Above = 0.4,
    jobs: Positive = 20_000,
    seed: int = 1,
    as_json: Annotated[bool, Parameter(name="--json", negative="")] = False,
) -> int:
    """How long jobs take on a steady day: Poisson arrivals, exponential durations.

    Parameters
    ----------
    agents
        Agents of the group.
    slots
        Jobs that each agent runs at the same time.
    rate
        Jobs that arrive a second.
    mean
        Mean duration of a job, in seconds.
    jobs
        Jobs to simulate; the first tenth is warm-up.
    seed
        The same seed gives the same figures.
    as_json
        Print one JSON object.
    """
    from simulator.world import Question, World

    load = rate * mean / (agents * slots)
    if load >= 1:
        need = int(rate * mean / slots) + 1
        print(
            f"UNSTABLE: {rate:g} jobs/s of {mean:g} s keep {rate * mean:g} slots busy, there are {agents * slots}; "
            f"take at least {need} agents of {slots} slots",
            file=sys.stderr,
        )
        return 3
    answer = World(Question(agents, slots, rate, mean, jobs, seed)).run()
    figures = {
        "jobs": answer.jobs,
        "lost": jobs - answer.jobs,
        "utilisation": answer.busy_s / (answer.seconds * agents * slots),
        "wait_mean_s": answer.mean_wait_s(),
        "sojourn_mean_s": answer.mean_s(),
        "sojourn_p50_s": answer.percentile_s(0.50),
        "sojourn_p99_s": answer.percentile_s(0.99),
        "assigned_max_minus_min": max(answer.assigned.values()) - min(answer.assigned.values()),
    }
    if as_json:
        print(json.dumps({"seed": seed, "figures": figures}))
    else:
        for name, value in figures.items():
            print(f"{name:24} {value:.6g}")
    return 0


def main() -> None:
    """Entry point."""
    sys.exit(app())
