"""When jobs arrive and what each of them is: drawn for the job, in the order of arrival, and for nobody else.

Every fleet, policy and order of service sees the same jobs at the same times: two scenarios with one seed differ only
in what was changed. Closed clients are the exception by nature: they arrive when they are served.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import repeat
from pathlib import Path
from typing import Final

import numpy as np

from broker.dispatch.model import GroupNo, OperationPolicy
from broker.errors import ConfigError
from simulator.laws import Arrivals, Bursty, Cron, Diurnal, Weekly
from simulator.profile import read as read_profile
from simulator.scenario import Work
from simulator.streams import BLOCK, SECOND_US, Stream, Streams

MINUTE_US: Final = 60 * SECOND_US
_RANGES: Final = ((0, 59), (0, 23), (1, 30), (1, 12), (0, 6))
"""Minute, hour, day, month, weekday (0 is Sunday) of a cron entry."""


class SimJob:
    """A job of the world: what the recorder must know of it until it is final."""

    __slots__ = (
        *("work", "number", "arrived_us", "duration_us", "start_within_us", "poison_us", "luck"),
        *("is_client", "is_final", "tries", "running", "ran_us", "last_us", "started_us", "lost_us"),
    )

    def __init__(self, work: "Workload", number: int, arrived_us: int, duration_us: int) -> None:
        self.work = work
        self.number = number
        self.arrived_us = arrived_us
        self.duration_us = duration_us
        self.luck = 1.0
        self.start_within_us = 0
        self.poison_us = 0  # how long the agent is down that it crashes; 0: it crashes none
        self.is_client = False  # a client waits for it and goes on when it is final
        self.is_final = False
        self.tries = 0  # assignments
        self.running = 0  # attempts that run at this moment
        self.ran_us = 0  # how long attempts of it ran, all together
        self.last_us = 0  # how long the latest one did that ended
        self.started_us = -1  # first assignment
        self.lost_us = -1  # when the agent that had it was lost, until it runs again


@dataclass(slots=True, eq=False)
class Workload:
    """One class of work. `draw` makes its next job."""

    number: int
    name: str
    operation: str
    work: Work
    group: GroupNo
    policy: OperationPolicy
    durations: Iterator[int]
    failures: Iterator[float]
    patience: Iterator[int] | None
    streams: Streams
    labels: tuple[str, ...] = ()
    run_timeout_us: int = 0
    deadline_us: int = 0
    thinking: Iterator[int] = field(default_factory=lambda: iter(()))
    drawn: int = 0
    is_shared: bool = False
    """Whether its jobs have fairness keys."""

    @classmethod
    def of(cls, number: int, name: str, work: Work, group: GroupNo, streams: Streams) -> "Workload":
        """The work of a scenario; `number` counts the classes from 1 and names its random streams."""
        policy = OperationPolicy(
            no=number,
            exclusive=work.exclusive,
            on_loss=work.on_loss,
            failures_max=work.attempts,
            crashes_max=work.crashes,
            bounces_max=work.bounces,
            backoff_first_us=max(1, round(work.backoff * SECOND_US)),
            running_max=work.running_max,
        )
        within = work.start_within
        patience = streams.times_us(within, Stream.DEADLINES, number) if within is not None else None
        durations = streams.times_us(work.duration, Stream.DURATIONS, number)
        return cls(
            number,
            name,
            operation_of(name, work),
            work,
            group,
            policy,
            durations,
            streams.uniform(Stream.FAILURES, number),
            patience,
            streams,
            tuple(sorted(work.labels)),
            round(work.run_timeout * SECOND_US),
            round(work.deadline * SECOND_US),
            is_shared=work.customers > 1,
        )

    def draw(self, arrived_us: int) -> SimJob:
        """The next job of this class."""
        self.drawn += 1
        job = SimJob(self, self.drawn, arrived_us, max(1, next(self.durations)))
        job.luck = next(self.failures) if self.work.failure else 1.0
        if self.patience is not None:
            job.start_within_us = max(1, next(self.patience))
        return job

    def fairness_of(self, job: SimJob) -> str:
        """The fairness key of a job, where there are several."""
        return f"customer-{job.number % self.work.customers}"

    def duration_us(self, job: SimJob, attempt: int) -> int:
        """How long this attempt of the job takes on an agent of speed 1."""
        if attempt == 1 or not self.work.redraw:
            return job.duration_us
        entity = (self.number << 48 | job.number) << 16 | attempt
        return max(1, next(self.streams.times_us(self.work.duration, Stream.DURATIONS, entity)))

    def fails(self, job: SimJob, attempt: int) -> bool:
        """Whether this attempt of the job fails: a matter of the job and the attempt, not of who runs it."""
        if attempt > 1 and self.work.failure:
            return random.Random(job.luck + attempt).random() < self.work.failure
        return job.luck < self.work.failure

    def may_retry(self, job: SimJob, attempt: int) -> bool:
        """Whether the job may be tried again after this attempt, which failed: always."""
        return True


def operation_of(name: str, work: Work) -> str:
    """What agents are asked to run."""
    return work.operation or name


def arrivals_us(arrivals: Arrivals, streams: Streams, entity: int, end_us: int) -> Iterator[int]:
    """Times of arrivals, never falling, in microseconds before `end_us`; of closed clients none."""
    if arrivals.closed is not None:
        return iter(())
    rng = streams.generator(Stream.ARRIVALS, entity)
    if arrivals.poisson is not None:
        times = _poisson(arrivals.poisson, rng)
    elif arrivals.batch is not None:
        times = _batches(_poisson(arrivals.batch.rate, rng), arrivals.batch.size)
    elif arrivals.even is not None:
        gap_us = SECOND_US / arrivals.even if arrivals.even else float("inf")
        times = _evenly(gap_us, end_us)
    elif arrivals.diurnal is not None:
        times = _diurnal(arrivals.diurnal, rng)
    elif arrivals.bursty is not None:
        times = _bursty(arrivals.bursty, rng)
    elif arrivals.cron is not None:
        times = _cron(arrivals.cron, end_us)
    elif arrivals.weekly is not None:
        times = _weekly(arrivals.weekly, rng, end_us)
    else:
        assert arrivals.trace is not None
        times = iter(read_trace(Path(arrivals.trace.file)))
    return _until(times, end_us)


def _until(times: Iterator[int], end_us: int) -> Iterator[int]:
    for at_us in times:
        if at_us >= end_us:
            return
        yield at_us


def _batches(times: Iterator[int], size: int) -> Iterator[int]:
    for at_us in times:
        yield from repeat(at_us, size)


def _evenly(gap_us: float, end_us: int) -> Iterator[int]:
    for number in range(1, 1 + int(end_us / gap_us)):
        yield round(number * gap_us)


def _poisson(rate_per_s: float, rng: np.random.Generator) -> Iterator[int]:
    now_s = 0.0
    while rate_per_s > 0:
        times = now_s + np.cumsum(rng.standard_exponential(BLOCK)) / rate_per_s
        now_s = float(times[-1])
        yield from np.rint(times * SECOND_US).astype(np.int64).tolist()


def _diurnal(shape: Diurnal, rng: np.random.Generator) -> Iterator[int]:
    """Thinning (Lewis and Shedler 1979) of a process at the highest rate."""
    most = shape.mean * (1 + shape.swing)
    now_s = 0.0
    while most > 0:
        times = now_s + np.cumsum(rng.standard_exponential(BLOCK)) / most
        now_s = float(times[-1])
        phase = 2 * np.pi * (times - shape.peak_at) / shape.period
        kept = times[rng.random(BLOCK) * most < shape.mean * (1 + shape.swing * np.cos(phase))]
        yield from np.rint(kept * SECOND_US).astype(np.int64).tolist()


def _bursty(shape: Bursty, rng: np.random.Generator) -> Iterator[int]:
    now_s, state = 0.0, 0
    while max(shape.rates) > 0:
        dwell_s = float(rng.standard_exponential()) * shape.dwell[state]
        count = int(rng.poisson(shape.rates[state] * dwell_s))
        times = now_s + np.sort(rng.random(count)) * dwell_s
        yield from np.rint(times * SECOND_US).astype(np.int64).tolist()
        now_s += dwell_s
        state = (state + 1) % len(shape.rates)


def _weekly(week: Weekly, rng: np.random.Generator, end_us: int) -> Iterator[int]:
    means = read_profile(Path(week.file)).of_work(week.work).per_minute
    first, into_us = divmod(round(week.begin * SECOND_US), MINUTE_US)
    for minute in range((end_us + into_us) // MINUTE_US + 1):
        count = int(rng.poisson(means[(first + minute) % len(means)]))
        at_us = np.rint(np.sort(rng.random(count)) * MINUTE_US).astype(np.int64) + minute * MINUTE_US - into_us
        yield from at_us[at_us >= 0].tolist()


def _cron(entry: Cron, end_us: int) -> Iterator[int]:
    fields = [_matching(text, *bounds) for text, bounds in zip(entry.when.split(), _RANGES, strict=True)]
    for minute in range(end_us // MINUTE_US + 1):
        day = minute // 1_440
        now = (minute % 60, minute // 60 % 24, day % 30 + 1, day // 30 % 12 + 1, (day + 1) % 7)
        if all(value in field for value, field in zip(now, fields, strict=True)):
            yield from repeat(minute * MINUTE_US, entry.jobs)


def _matching(text: str, least: int, most: int) -> set[int]:
    """The values that a field of a cron entry matches. Raises ConfigError."""
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = (f"{least}-{most}" if span == "*" else span).partition("-")
        try:
            values = range(int(first), int(last or first) + 1, int(step or 1))
        except ValueError as error:
            raise ConfigError(f"`{text}` in a cron entry is not `*`, `*/n`, `a-b` or a list of numbers") from error
        if not values or values[0] < least or values[-1] > most:
            raise ConfigError(f"`{text}` in a cron entry is not within {least} and {most}")
        found.update(values)
    return found


def read_trace(path: Path) -> list[int]:
    """Arrival times of a file with one a line, in seconds since the start; a heading is allowed.

    Raises ConfigError naming the line: a gap, no number, a negative one, or one before the one before.
    """
    times: list[int] = []
    lines = path.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        text = line.partition(",")[0].strip()
        try:
            at_us = round(float(text) * SECOND_US)
        except (ValueError, OverflowError) as error:
            if number == 1:
                continue
            what = "is empty: the trace has a gap" if not text else f"`{text}` is not a number of seconds"
            raise ConfigError(f"{path}:{number}: {what}; write one time a line, such as 12.25") from error
        if at_us < 0 or (times and at_us < times[-1]):
            raise ConfigError(f"{path}:{number}: {text} is before the one before; sort the trace")
        times.append(at_us)
    if not times:
        raise ConfigError(f"{path}:1: no arrivals; write one time in seconds a line")
    return times
