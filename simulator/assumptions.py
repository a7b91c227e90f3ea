"""What stands behind a figure: what was modelled and how, in words, and what formulas say about the same system."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import inf

from simulator.answer import Answer
from simulator.drawn import mean_square, rate_of
from simulator.erlang import erlang_c, sojourn_tail
from simulator.scenario import Fidelity, Scenario, Work
from simulator.statistics import Interval
from simulator.streams import mean_s
from simulator.units import duration_text

FIDELITIES = {
    Fidelity.EXACT: "The dispatcher alone: no network, no cost of the broker, agents obey at once.",
    Fidelity.NETWORK: "Agents run the real session over a network with delays; the broker itself costs no time.",
    Fidelity.BROKER: "Agents run the real session over a network with delays; the broker is one event loop whose turns "
    "and commits take time.",
    Fidelity.WIRE: "As `broker`, and heartbeats and new connections cost the broker's event loop time too.",
}


def assumptions_of(answer: Answer) -> Iterator[str]:
    """In sentences."""
    scenario = answer.scenario
    yield "Jobs are placed by the broker's own dispatcher, in virtual time; nothing is a model of it."
    yield FIDELITIES[scenario.broker.fidelity]
    if scenario.broker.fidelity is not Fidelity.EXACT:
        yield (
            f"Liveness: heartbeat every {duration_text(scenario.broker.heartbeat)}, suspect after "
            f"{duration_text(scenario.broker.suspect)}, lease {duration_text(scenario.broker.lease)}."
        )
    for name, work in scenario.work.items():
        yield _work_sentence(name, work)
    yield (
        "How long a job takes belongs to the job: every fleet and policy sees the same arrivals and the same work on "
        "the same replication of a seed."
    )
    yield from _window_sentences(answer)
    n, level = len(answer.series.outcomes), 0.95
    if n > 1:
        yield f"Intervals hold the mean over replications with {level:.0%} confidence (Student's t, n = {n})."
    else:
        yield "One replication has no interval: another seed may say something else."


def _window_sentences(answer: Answer) -> Iterator[str]:
    horizon, found = answer.scenario.horizon, answer.warm_up
    if found is not None and not found.has_settled:
        yield "Pilots never settled within the first half of the run: do not trust its means."
    elif found is not None:
        yield (
            f"Nothing ever changes in this scenario: the first {found.seconds:.4g} s, in which it fills from empty, "
            f"are left out (MSER-5 over {found.pilots} pilots)."
        )
    elif horizon.settle:
        yield f"The first {duration_text(horizon.settle)} are for settling and are left out of all figures."
    else:
        yield "Nothing is left out: the window begins with an empty system."
    yield (
        f"Arrivals end after {duration_text(answer.scenario.end_s)}; what is under way then may end within "
        f"{duration_text(horizon.finish)}, and counts."
    )


def _work_sentence(name: str, work: Work) -> str:
    rate, law = rate_of(work.arrivals), work.duration.kind
    how_many = f"{rate:.6g} jobs a second on average" if rate is not None else "as their source has them"
    return (
        f"`{name}`: {work.arrivals.kind} arrivals, {how_many}; durations are {law}, "
        f"mean {mean_s(work.duration):.4g} s; up to {work.attempts} attempts that fail."
    )


@dataclass(slots=True, frozen=True)
class Theory:
    """A figure by formula beside its simulation, in the `phase` of the run that has no faults yet."""

    figure: str
    phase: str
    by: str
    expected: float
    seen: Interval

    def as_json(self) -> dict[str, object]:
        """For documents."""
        return {
            "figure": self.figure,
            "phase": self.phase,
            "by": self.by,
            "theory": self.expected,
            "simulated": self.seen.mean,
            "half_width": self.seen.half_width if self.seen.n > 1 and self.seen.half_width < inf else None,
        }


def theory_of(answer: Answer) -> Iterator[Theory]:
    """Formulas for what they can say: groups of equal agents under arrivals that never change, before any fault."""
    scenario = answer.scenario
    calm = next(((name, seen) for name, _, _, seen in answer.phases if name in ("all", "before")), None)
    if calm is None:
        return
    for group in scenario.groups:
        yield from _group_theory(scenario, group, *calm)


def _group_theory(scenario: Scenario, name: str, phase: str, seen: Mapping[str, Interval]) -> Iterator[Theory]:
    group = scenario.groups[name]
    works = {key: work for key, work in scenario.work.items() if work.group == name}
    pool = group.agents[0]
    plain = all(
        work.arrivals.kind in ("poisson", "even", "batch", "bursty") and not work.failure for work in works.values()
    )
    if len(group.agents) != 1 or not works or not plain or group.autoscale is not None:
        return
    rates = {key: rate_of(work.arrivals) or 0.0 for key, work in works.items()}
    servers, rate = pool.count * pool.slots, sum(rates.values())
    load = sum(rates[key] * mean_s(work.duration) for key, work in works.items()) / pool.speed
    if servers == 0 or rate == 0 or load >= servers:
        return
    yield Theory(f"{name}.utilisation", phase, "rate x duration / slots", load / servers, seen[f"{name}.utilisation"])
    if len(works) == 1:
        ((work_name, work),) = works.items()
        if work.arrivals.kind == "poisson":
            yield from _queue_theory(work_name, work, phase, seen, (servers, rate, load / rate))


def _queue_theory(
    name: str, work: Work, phase: str, seen: Mapping[str, Interval], queue: tuple[int, float, float]
) -> Iterator[Theory]:
    """One class of Poisson arrivals at equal servers."""
    servers, rate, mean = queue
    square = mean_square(work.duration)
    if square is None:
        return
    variation = square / mean_s(work.duration) ** 2 - 1
    wait = erlang_c(servers, rate * mean) * mean / (servers - rate * mean) * (1 + variation) / 2
    is_exact = work.duration.kind == "exponential"
    by = "Erlang C" if is_exact else "Allen and Cunneen's approximation"
    yield Theory(f"{name}.wait.mean", phase, by, wait, seen[f"{name}.wait.mean"])
    yield Theory(f"{name}.latency.mean", phase, by, wait + mean, seen[f"{name}.latency.mean"])
    if is_exact:
        for label, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            value = _quantile(servers, rate, mean, share)
            yield Theory(f"{name}.latency.{label}", phase, by, value, seen[f"{name}.latency.{label}"])


def _quantile(servers: int, rate: float, mean: float, share: float) -> float:
    """The time in system that `share` of the jobs do not pass, by bisection."""
    low, high = 0.0, mean
    while sojourn_tail(servers, rate, mean, high) > 1 - share:
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if sojourn_tail(servers, rate, mean, middle) > 1 - share else (low, middle)
    return high
