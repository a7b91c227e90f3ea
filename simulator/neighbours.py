"""Ideal queues next to the one in question: their answer is known exactly, and the same work goes through them.

A neighbour has a server more, or is a twentieth faster: its mean is another number than the one that is asked for, but
on a day with long queues in the one there are long queues in the other. How far a neighbour was from its own mean is
the chance that `simulator.controls` takes out of a figure. Nothing here looks at what the dispatcher did.

Sources: Pollaczek and Khinchine for one server; Erlang C; GI/M/1 (Kleinrock, Queueing Systems, volume 1, section 6.4);
matrix-geometric means (Neuts 1981); Eick, Massey and Whitt (1993) for rates that swing; Feller, volume 1, XIII.7, runs.
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappop, heappush, heapreplace
from itertools import accumulate, pairwise
from math import atan2, exp, hypot, inf, pi
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from simulator.erlang import erlang_c, sojourn_tail

Floats = npt.NDArray[np.float64]
SHARES: Final = (0.05, 0.01)
"""Tails that quantiles are controlled by."""
ROUNDS_MAX: Final = 100_000


class Seen(NamedTuple):
    """What is kept of a queue of exponential times: mean wait and sojourn, the share that waits, tails of the sojourn.

    `tails` are those at the times that `SHARES` of the jobs should exceed.
    """

    wait: float
    sojourn: float
    waits: float
    tails: tuple[float, ...]


def waits_of(at_s: Floats, work_s: Floats) -> Floats:
    """The wait of each job in a first-come queue before one server: Lindley's recursion, without a loop."""
    if not len(at_s):
        return np.zeros(0)
    steps = np.concatenate(([0.0], work_s[:-1] - np.diff(at_s)))
    walk = np.cumsum(steps)
    return walk - np.minimum.accumulate(walk)


def waits_at(at_s: Floats, work_s: Floats, servers: int) -> Floats:
    """The same before many servers (Kiefer and Wolfowitz): each job goes to the server that is free first."""
    free_s, waits = [0.0] * servers, np.empty(len(at_s))
    for place, (at, work) in enumerate(zip(at_s.tolist(), work_s.tolist(), strict=True)):
        begin = max(at, free_s[0])
        heapreplace(free_s, begin + work)
        waits[place] = begin - at
    return waits


def seen_of(waits_s: Floats, work_s: Floats, limits_s: Iterable[float]) -> Seen:
    """Mean, share and tails of jobs that waited, then took so long."""
    sojourns = waits_s + work_s
    tails = tuple(float((sojourns > limit).mean()) for limit in limits_s)
    return Seen(float(waits_s.mean()), float(sojourns.mean()), float((waits_s > 1e-9).mean()), tails)


# --- many servers ---------------------------------------------------------------------------------------------------


def tail_limits_s(servers: int, rate: float, mean_s: float) -> tuple[float, ...]:
    """The sojourns that `SHARES` of the jobs exceed, in a queue that Erlang's C describes."""
    return tuple(_where(lambda time_s: sojourn_tail(servers, rate, mean_s, time_s), share) for share in SHARES)


def many_servers(servers: int, rate: float, mean_s: float) -> Seen:
    """What Erlang's C expects, with tails at `tail_limits_s`."""
    waits = erlang_c(servers, rate * mean_s)
    wait_s = waits / (servers / mean_s - rate)
    return Seen(wait_s, wait_s + mean_s, waits, SHARES)


def _where(falling: Callable[[float], float], value: float) -> float:
    low, high = 0.0, 1.0
    while falling(high) > value:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if falling(middle) > value else (low, middle)
    return high


def batch_sojourn_s(servers: int, rate: float, size: int, mean_s: float) -> float:
    """The mean sojourn where batches arrive: the chain of jobs in the system, upwards from none.

    Between n and n + 1 jobs as many go up, with any batch that begins at n or less than a batch below, as go down.
    """
    shares = [1.0]
    recent = 1.0
    while len(shares) < ROUNDS_MAX and (len(shares) <= servers or shares[-1] > 1e-15 * max(shares)):
        n = len(shares)
        shares.append(rate * mean_s / min(n, servers) * recent)
        recent += shares[-1] - (shares[n - size] if n >= size else 0.0)
    jobs = sum(n * share for n, share in enumerate(shares)) / sum(shares)
    return jobs / (rate * size)


def waits_by_level(servers: int, rates: Sequence[float], mean_s: float) -> list[float]:
    """The mean wait at each level, the first served first, without interruption (Cobham 1954)."""
    busy = erlang_c(servers, sum(rates) * mean_s) * mean_s / servers
    loads = [0.0, *accumulate(rate * mean_s / servers for rate in rates)]
    return [busy / ((1 - before) * (1 - after)) for before, after in pairwise(loads)]


def waits_in_order(at_s: Floats, work_s: Floats, levels: npt.NDArray[np.int64], servers: int) -> Floats:
    """The wait of each job where lower levels go first, and jobs of one level in the order of arrival."""
    waits = np.zeros(len(at_s))
    ends_s: list[float] = []
    queues: list[deque[int]] = [deque() for _ in range(int(levels.max()) + 1)]
    at, work = at_s.tolist(), work_s.tolist()

    def serve_until(now: float) -> None:
        while ends_s and ends_s[0] <= now and any(queues):
            job = next(queue for queue in queues if queue).popleft()
            waits[job] = ends_s[0] - at[job]
            heapreplace(ends_s, ends_s[0] + work[job])
        while ends_s and ends_s[0] <= now:
            heappop(ends_s)

    for job, level in enumerate(levels.tolist()):
        serve_until(at[job])
        if len(ends_s) < servers:
            heappush(ends_s, at[job] + work[job])
        else:
            queues[level].append(job)
    serve_until(inf)
    return waits


# --- many servers, durations of two kinds -----------------------------------------------------------------------------


def mixed_wait_s(servers: int, rate: float, share: float, mean_s: float, other_s: float) -> float:
    """The mean wait where a `share` of the jobs is exponential with one mean, the others with another: M/H2/c.

    A level is how many jobs there are, a phase how many of those in service are of the first kind.
    """
    fast, slow, phases = 1 / mean_s, 1 / other_s, servers + 1
    first = np.arange(float(phases))
    leave, others = first * fast, (servers - first) * slow
    down = np.diag(leave * share + others * (1 - share)) + np.diag(leave[1:] * (1 - share), -1)
    down += np.diag(others[:-1] * share, 1)
    stay = np.diag(-(rate + leave + others))
    ratio: Floats = np.zeros((phases, phases))
    for _ in range(ROUNDS_MAX):
        better = np.asarray(-rate * np.linalg.inv(stay + ratio @ down), np.float64)
        if float(np.abs(better - ratio).max()) < 1e-13:
            break
        ratio = better
    full = _full_levels(servers, rate, share, (fast, slow), stay + ratio @ down)
    rest = np.linalg.inv(np.eye(phases) - ratio)
    below, whole = full[:-phases].sum(), full[-phases:] @ rest @ np.ones(phases)
    return float(full[-phases:] @ ratio @ rest @ rest @ np.ones(phases) / (below + whole)) / rate


def _full_levels(servers: int, rate: float, share: float, rates: tuple[float, float], last: Floats) -> Floats:
    """The shares of levels 0 to `servers`, but for a factor; `last` is what the highest does to itself."""
    states = [(jobs, first) for jobs in range(servers + 1) for first in range(jobs + 1)]
    places = {state: place for place, state in enumerate(states)}
    turn = np.zeros((len(places), len(places)))
    for (jobs, first), place in places.items():
        if jobs < servers:
            turn[place, places[jobs + 1, first + 1]] += rate * share
            turn[place, places[jobs + 1, first]] += rate * (1 - share)
        if jobs and first:
            turn[place, places[jobs - 1, first - 1]] += first * rates[0]
        if jobs > first:
            turn[place, places[jobs - 1, first]] += (jobs - first) * rates[1]
        turn[place, place] -= rate + first * rates[0] + (jobs - first) * rates[1]
    turn[-servers - 1 :, -servers - 1 :] = last
    system = np.vstack([turn.T, np.ones(len(places))])
    return np.asarray(np.linalg.lstsq(system, np.append(np.zeros(len(places)), 1.0), rcond=None)[0])


# --- one queue for each agent, served in turn -----------------------------------------------------------------------


def in_turn(agents: int, rate: float, mean_s: float) -> Seen:
    """Every job goes to the next agent's own queue: E_N/M/1, with tails at `in_turn_limits_s`."""
    waits = _sigma(agents, rate, mean_s)
    wait_s = waits * mean_s / (1 - waits)
    return Seen(wait_s, wait_s + mean_s, waits, SHARES)


def in_turn_limits_s(agents: int, rate: float, mean_s: float) -> tuple[float, ...]:
    """The sojourns that `SHARES` of the jobs exceed: they are exponential."""
    decay = (1 - _sigma(agents, rate, mean_s)) / mean_s
    return tuple(-float(np.log(share)) / decay for share in SHARES)


def _sigma(agents: int, rate: float, mean_s: float) -> float:
    """The root of sigma = A(mu (1 - sigma)), with A the transform of a sum of `agents` exponential gaps."""
    sigma = 0.5
    for _ in range(ROUNDS_MAX):
        better = (rate / (rate + (1 - sigma) / mean_s)) ** agents
        if abs(better - sigma) < 1e-14:
            break
        sigma = better
    return sigma


def waits_in_turn(at_s: Floats, work_s: Floats, agents: int) -> Floats:
    """The wait of each job when job k goes to agent k modulo `agents`."""
    return waits_apart(at_s, work_s, np.arange(len(at_s)) % agents, agents)


def waits_apart(at_s: Floats, work_s: Floats, places: npt.NDArray[np.int64], agents: int) -> Floats:
    """The wait of each job when it goes to the agent at its place, who has a queue of its own."""
    waits = np.empty(len(at_s))
    for place in range(agents):
        mine = places == place
        waits[mine] = waits_of(at_s[mine], work_s[mine])
    return waits


# --- one server whose arrivals or speed change by chance ------------------------------------------------------------


def modulated_sojourn_s(turn: Floats, arrive: Floats, serve: Floats) -> float:
    """The mean sojourn in a queue that is a quasi birth and death process.

    `turn` is the generator of the phases, `arrive` and `serve` are the rates in each; one server, in order of arrival.
    """
    phases = len(arrive)
    up, down = np.diag(arrive), np.diag(serve)
    ratio = np.zeros((phases, phases))
    stay = turn - up - down
    for _ in range(ROUNDS_MAX):
        better = -up @ np.linalg.inv(stay + ratio @ down)
        if float(np.abs(better - ratio).max()) < 1e-13:
            break
        ratio = better
    rest = np.linalg.inv(np.eye(phases) - ratio)
    empty_rates = turn - up + ratio @ down
    system = np.vstack([empty_rates.T, (rest @ np.ones(phases))[None, :]])
    empty = np.linalg.lstsq(system, np.append(np.zeros(phases), 1.0), rcond=None)[0]
    jobs = float(empty @ ratio @ rest @ rest @ np.ones(phases))
    share = empty @ rest
    return jobs / float(share @ arrive)


def failing(agents: int, mttf_s: float, mttr_s: float) -> tuple[Floats, Floats]:
    """(generator, agents up) of agents that fail and are repaired by themselves; phase k has k of them up."""
    up = np.arange(agents + 1.0)
    turn = np.diag((agents - up[:-1]) / mttr_s, 1) + np.diag(up[1:] / mttf_s, -1)
    return turn - np.diag(turn.sum(axis=1)), up


def in_rotation(dwell_s: tuple[float, ...]) -> Floats:
    """The generator of phases that are visited in turn."""
    turn = np.zeros((len(dwell_s), len(dwell_s)))
    for phase, dwell in enumerate(dwell_s):
        turn[phase, phase] -= 1 / dwell
        turn[phase, (phase + 1) % len(dwell_s)] += 1 / dwell
    return turn


# --- servers without end, arrivals that swing -----------------------------------------------------------------------


class Swing(NamedTuple):
    """A number that swings once a period: its mean, its highest, and how long after the arrivals' highest that is."""

    mean: float
    peak: float
    lag_s: float


def swing_of(at_s: Floats, values: Floats, period_s: float, peak_at_s: float) -> Swing:
    """The first harmonic of equally spaced values over whole periods."""
    angle = 2 * pi * (at_s - peak_at_s) / period_s
    mean = float(values.mean())
    along, across = 2 * float((values * np.cos(angle)).mean()), 2 * float((values * np.sin(angle)).mean())
    return Swing(mean, mean + hypot(along, across), atan2(across, along) * period_s / (2 * pi))


def endless(rate: float, swing: float, period_s: float, mean_s: float) -> Swing:
    """What is busy of servers without end, for exponential durations."""
    turn = 2 * pi * mean_s / period_s
    return Swing(rate * mean_s, rate * mean_s * (1 + swing / hypot(1, turn)), atan2(turn, 1) * period_s / (2 * pi))


def busy_at(ticks_s: Floats, at_s: Floats, work_s: Floats) -> Floats:
    """How many of servers without end are busy at these times."""
    begun, ended = np.sort(at_s), np.sort(at_s + work_s)
    return (np.searchsorted(begun, ticks_s, "right") - np.searchsorted(ended, ticks_s, "right")).astype(np.float64)


# --- runs of lost heartbeats ----------------------------------------------------------------------------------------


def runs_expected(chance: float, length: int, trials: int) -> float:
    """How many runs of `length` losses there are in so many trials, each run counted once and begun anew."""
    each = (1 - chance**length) / ((1 - chance) * chance**length)
    return trials / each


def runs_in(lost: npt.NDArray[np.bool_], length: int) -> int:
    """How many there were."""
    bounds = np.flatnonzero(np.diff(np.concatenate(([False], lost, [False])).astype(np.int8)))
    return int(((bounds[1::2] - bounds[::2]) // length).sum())


# --- a job that begins again ----------------------------------------------------------------------------------------


def restarts_expected(ratio: float) -> tuple[float, float]:
    """What a failure is worth where jobs of constant length begin again with each, `ratio` being length over MTTF.

    (jobs done, jobs done that failed more than twice) a failure: agents fail at exponential times. A job that is the
    first to be done between two failures began before the one before, and failed once more in each gap with none done.
    """
    survives = exp(-ratio)
    return survives / (1 - survives), survives * (1 - survives) ** 2


def restarts_in(up_s: Floats, length_s: float) -> tuple[float, float]:
    """The same of these times to failure, each with as many jobs as fit into it."""
    done = np.floor(up_s / length_s)
    failed = np.concatenate(([False] * 2, done == 0))
    tried = failed[:-2] & failed[1:-1] & (done > 0)
    return float(done.mean()), float(tried.mean())
