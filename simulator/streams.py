"""Random numbers: one stream for each thing that is drawn, so that nothing that is added moves what was there.

A stream is named by what is drawn (`Stream`) and for whom (`entity`: the number of a work class, an agent, a fault).
Agent 18 changes nothing for agents 1 to 17, another policy or fleet sees the same arrivals and durations, and
replications share nothing. Numbers are drawn in blocks: one call of numpy for thousands of them.
"""

import random
from collections.abc import Callable, Iterator
from enum import IntEnum
from itertools import chain, repeat
from math import exp, log, sqrt
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt

from simulator.laws import HyperExponential, Law

BLOCK: Final = 4_096
BLOCK_FIRST: Final = 64
"""A stream begins with a small block and doubles it: most agents draw few numbers."""
SECOND_US: Final = 1_000_000
Z99: Final = 2.3263478740408408
"""The 99th percentile of the standard normal distribution."""

Floats = npt.NDArray[np.float64]


class Stream(IntEnum):
    """What is drawn. Numbers are part of the seed: never reuse one."""

    ARRIVALS = 1
    DURATIONS = 2
    FAILURES = 3
    DEADLINES = 4
    NETWORK = 5
    BACKOFF = 6
    COMMITS = 7
    FAULTS = 8
    BEATS = 9
    DISPATCHER = 10
    THINKING = 11
    SUBMITTING = 12
    OVERHEAD = 13
    LOSS = 14


class Streams:
    """The random numbers of one replication."""

    def __init__(self, seed: int, replication: int) -> None:
        self._seed = seed
        self._replication = replication

    def generator(self, stream: Stream, entity: int = 0) -> np.random.Generator:
        """The generator of one stream, from its beginning."""
        key = (self._replication, int(stream), entity)
        return np.random.Generator(np.random.PCG64DXSM(np.random.SeedSequence(self._seed, spawn_key=key)))

    def uniform(self, stream: Stream, entity: int = 0) -> Iterator[float]:
        """Numbers in [0, 1)."""
        return _blocks(self.generator(stream, entity).random)

    def chance(self, group: int, epoch: int) -> random.Random:
        """What the dispatcher of a group draws from, under the broker of this epoch."""
        return random.Random(int(self.generator(Stream.DISPATCHER, group).integers(1 << 62)) + epoch)

    def times_us(self, law: Law, stream: Stream, entity: int = 0) -> Iterator[int]:
        """Durations after the law, in whole microseconds."""
        if law.constant is not None:
            return repeat(round(law.constant * SECOND_US))
        draw = seconds_drawn(law, self.generator(stream, entity))
        return _blocks(lambda size: np.rint(draw(size) * SECOND_US).astype(np.int64))


Number = TypeVar("Number", np.float64, np.int64)


def _blocks(draw: Callable[[int], npt.NDArray[Number]]) -> Iterator[Any]:
    # A chain of lists is walked in C; a generator would be woken for each number.
    return chain.from_iterable(draw(size).tolist() for size in _sizes())


def _sizes() -> Iterator[int]:
    size = BLOCK_FIRST
    while size < BLOCK:
        yield size
        size *= 2
    yield from repeat(BLOCK)


class Uniform:
    """A stream as `random.Random` has it, for the parts that take one: the dispatcher and the agents' back-off."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: Iterator[float]) -> None:
        self._numbers = numbers

    def random(self) -> float:
        """The next number in [0, 1)."""
        return next(self._numbers)


def seconds_drawn(law: Law, rng: np.random.Generator) -> Callable[[int], Floats]:
    """What draws so many durations after the law, in seconds. Each duration takes the same numbers, whatever it is."""
    match law.kind:
        case "constant":
            value = law.constant or 0.0
            return lambda size: np.full(size, value)
        case "exponential":
            mean = law.exponential or 0.0
            return lambda size: rng.standard_exponential(size) * mean
        case "lognormal":
            mu, sigma = _lognormal(law)
            return lambda size: np.exp(mu + sigma * rng.standard_normal(size))
        case "pareto":
            return _pareto(law, rng)
        case "hyperexponential":
            return _hyperexponential(law, rng)
        case "uniform":
            assert law.uniform is not None
            least, most = law.uniform.least, law.uniform.most
            return lambda size: least + (most - least) * rng.random(size)
        case _:
            assert law.empirical is not None
            quantiles = np.asarray(law.empirical.quantiles)
            steps = np.linspace(0.0, 1.0, len(quantiles))
            return lambda size: np.interp(rng.random(size), steps, quantiles)


def _lognormal(law: Law) -> tuple[float, float]:
    given = law.lognormal
    assert given is not None
    if given.mean is not None and given.scv is not None:
        variance = log(1 + given.scv)
        return log(given.mean) - variance / 2, sqrt(variance)
    assert given.p50 is not None
    assert given.p99 is not None
    return log(given.p50), log(given.p99 / given.p50) / Z99


def _pareto(law: Law, rng: np.random.Generator) -> Callable[[int], Floats]:
    given = law.pareto
    assert given is not None
    least = given.mean * (given.shape - 1) / given.shape
    most = given.most if given.most is not None else float("inf")
    power = -1 / given.shape
    return lambda size: np.minimum(least * (1.0 - rng.random(size)) ** power, most)


def two_kinds(law: HyperExponential) -> tuple[float, tuple[float, float]]:
    """(share of the first kind, mean of each) of balanced means: each branch carries half of the work (Whitt 1982)."""
    first = (1 + sqrt((law.scv - 1) / (law.scv + 1))) / 2
    return first, (law.mean / (2 * first), law.mean / (2 * (1 - first)))


def _hyperexponential(law: Law, rng: np.random.Generator) -> Callable[[int], Floats]:
    assert law.hyperexponential is not None
    first, means = two_kinds(law.hyperexponential)

    def draw(size: int) -> Floats:
        branch = rng.random(size) < first
        return rng.standard_exponential(size) * np.where(branch, *means)

    return draw


def mean_s(law: Law) -> float:
    """The mean of a law in seconds; of a cut Pareto law without its cut."""
    if law.lognormal is not None:
        mu, sigma = _lognormal(law)
        return exp(mu + sigma * sigma / 2)
    if law.uniform is not None:
        return (law.uniform.least + law.uniform.most) / 2
    if law.empirical is not None:
        quantiles = law.empirical.quantiles
        return float(np.trapezoid(quantiles, dx=1 / (len(quantiles) - 1)))
    of_mean = law.pareto or law.hyperexponential
    return of_mean.mean if of_mean is not None else law.constant or law.exponential or 0.0
