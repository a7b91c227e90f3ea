"""A simulated day as a Prometheus would have scraped it: OpenMetrics text with the broker's own metric names.

    promtool tsdb create-blocks-from openmetrics FILE DATA_DIR

puts it into a Prometheus, and the dashboards of the broker show it. It is one replication, the first: several days at
the same hours would add up on a dashboard; `mesh_simulation_info` says which it is, of which seed. With `every` all of
them are there, told apart by a label `replication` of every series. Groups are those of the organisation `simulated`.
Counters and gauges have a sample at each of the run's points, histograms and shares of agents one a window, at its end.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from itertools import accumulate
from typing import Final

import numpy as np

from broker import series
from broker.dispatch import reasons
from broker.series import JOB_SECONDS, Series, SeriesType
from simulator.answer import Answer
from simulator.detail import Detail
from simulator.gauges import STATUSES
from simulator.scenario import places_of
from simulator.windows import ENOUGH, FINAL, WINDOWS, Shares, jain

ORGANISATION: Final = "simulated"
INFO: Final = Series("mesh_simulation_info", SeriesType.GAUGE, "1; what was simulated is in the labels.")
AGENTS_MAX: Final = 50
"""Groups of more agents have no series of single agents, as with a broker that has no other limit."""
RETURNED: Final = ".returned."
Sample = tuple[str, Mapping[str, str], float, float]
"""(suffix of the name, labels, value, seconds since the run began)."""
Samples = Iterator[Sample]


def openmetrics(answer: Answer, begin: datetime, *, every: bool = False) -> Iterator[str]:
    """The lines of the file. `begin` is when the run began, with its time zone."""
    begin_s = begin.timestamp()
    days = [dict(_families(answer, number)) for number in range(len(answer.details) if every else 1)]
    for metric in days[0]:
        family = metric.name.removesuffix("_total") if metric.type is SeriesType.COUNTER else metric.name
        yield f"# TYPE {family} {metric.type}"
        yield f"# HELP {family} {_escaped(metric.help)}"
        for number, day in enumerate(days):
            which = {"replication": str(number)} if every else {}
            for suffix, labels, value, at_s in day[metric]:
                inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in {**labels, **which}.items())
                yield f"{metric.name}{suffix}{{{inside}}} {value!r} {begin_s + at_s:.3f}"
    yield "# EOF"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _families(answer: Answer, number: int) -> Iterator[tuple[Series, Samples]]:
    """The series of one replication, in the order of the broker's page."""
    detail = answer.details[number]
    groups = {name: {"group": f"{ORGANISATION}/{name}"} for name in answer.scenario.groups}

    def by_group(column: str, **labels: str) -> Samples:
        for name, label in groups.items():
            yield from _points(detail, f"{name}.{column}", label | labels)

    def of_each(label: str, columns: Mapping[str, str]) -> Samples:
        for word, column in columns.items():
            yield from by_group(column, **{label: word})

    def tallies(kind: str) -> Samples:
        for name, label in groups.items():
            yield from _tally(answer, detail.tallies[f"{name}.{kind}"], label)

    yield INFO, _info(answer, number)
    yield series.JOBS_SUBMITTED, by_group("submitted")
    yield series.SUBMISSIONS_REFUSED, by_group("refused", reason=reasons.QUEUE_FULL)
    yield series.JOBS_FINISHED, of_each("state", {state: state for state in FINAL})
    yield series.JOBS_WAITING, of_each("state", {state: state for state in ("queued", "scheduled", "held")})
    yield series.OLDEST_AGE_SECONDS, by_group("oldest")
    yield series.WAIT_SECONDS, tallies("wait")
    yield series.RUN_SECONDS, tallies("run")
    yield series.LATENCY_SECONDS, tallies("latency")
    yield series.ATTEMPTS_ASSIGNED, by_group("assigned")
    yield series.AGENT_ASSIGNED, (one for name in groups for one in _agents(detail.shares.get(name), groups[name]))
    yield series.ATTEMPTS_HELD, by_group("occupied")
    yield series.EVENNESS, (one for name in groups for one in _evenness(answer, detail, name, groups[name]))
    yield series.JOBS_RETURNED, _returned(detail, groups)
    yield series.ATTEMPTS_OVERLAPPED, by_group("overlapped")
    yield series.AGENTS, of_each("status", {word: f"status.{word}" for word in STATUSES})
    yield series.SLOTS, by_group("slots")
    yield series.CAPACITY, by_group("capacity")
    yield series.CAPACITY_FREE, by_group("free")
    yield series.SESSIONS, _sums(detail, [f"{name}.up" for name in groups])
    yield series.COMMITS, _points(detail, "commits", {})


def _info(answer: Answer, number: int) -> Samples:
    outcome = answer.series.outcomes[number]
    labels = {"scenario": answer.scenario.name, "seed": str(answer.series.question.seed)}
    for at_s in answer.details[number].timeline["t"]:
        yield "", labels | {"replication": str(number), "digest": outcome.digest}, 1, at_s


def _points(detail: Detail, column: str, labels: Mapping[str, str]) -> Samples:
    for at_s, value in zip(detail.timeline["t"], detail.timeline[column], strict=True):
        yield "", labels, value, at_s


def _sums(detail: Detail, columns: Sequence[str]) -> Samples:
    rows = zip(*(detail.timeline[column] for column in columns), strict=True)
    for at_s, row in zip(detail.timeline["t"], rows, strict=True):
        yield "", {}, sum(row), at_s


def _returned(detail: Detail, groups: Mapping[str, Mapping[str, str]]) -> Samples:
    for name, label in groups.items():
        prefix = f"{name}{RETURNED}"
        for column in detail.timeline:
            if column.startswith(prefix):
                yield from _points(detail, column, {**label, "reason": column.removeprefix(prefix)})


def _tally(answer: Answer, rows: Sequence[Sequence[float]], label: Mapping[str, str]) -> Samples:
    """A histogram: a row for each window, with the count of each bucket and, at the end, the sum."""
    for place, bound in enumerate((*map(repr, JOB_SECONDS), "+Inf")):
        for window, row in enumerate(rows):
            yield "_bucket", {**label, "le": bound}, int(row[place]), _end_s(answer, window)
    for suffix, place in (("_count", -2), ("_sum", -1)):
        for window, row in enumerate(rows):
            yield suffix, label, row[place] if suffix == "_sum" else int(row[place]), _end_s(answer, window)


def _end_s(answer: Answer, window: int) -> float:
    return answer.scenario.end_s * (window + 1) / WINDOWS


def _agents(shares: Shares | None, label: Mapping[str, str]) -> Samples:
    """What each agent of a group that has few was given since settling ended."""
    if shares is None or len(shares.agents) > AGENTS_MAX:
        return
    for name, counts in zip(shares.agents, shares.counts, strict=True):
        for window, count in enumerate(accumulate(counts)):
            yield "", {**label, "agent": name.partition(" ")[0]}, count, _shares_end_s(shares, window)


def _evenness(answer: Answer, detail: Detail, name: str, label: Mapping[str, str]) -> Samples:
    """Jain's index of each window a slot, over the agents that were there throughout, where they were given enough."""
    shares, group = detail.shares.get(name), answer.scenario.groups[name]
    if shares is None:
        return
    slots = np.full(len(shares.agents), group.agents[0].slots, np.float64)  # an autoscaler hires of the first pool
    slots[: group.count] = [pool.slots for pool, _ in places_of(group)]
    counts, up = np.asarray(shares.counts, np.float64), np.asarray(shares.up, np.bool_)
    for window in range(counts.shape[1]):
        there = up[:, window]
        given = counts[there, window]
        if len(given) > 1 and given.sum() >= ENOUGH * len(given):
            yield "", label, jain(given / slots[there]), _shares_end_s(shares, window)


def _shares_end_s(shares: Shares, window: int) -> float:
    return shares.from_s + (window + 1) * shares.width_s
