"""A simulated day as a Prometheus would have scraped it: OpenMetrics text with the broker's own metric names.

    promtool tsdb create-blocks-from openmetrics FILE DATA_DIR

puts it into a Prometheus, and the dashboards of the broker show it. It is the first replication; groups are those of
the organisation `simulated`. Counters and gauges have a sample at each of the run's points, histograms of latency one
at the end of each window, counted when the jobs arrived.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from broker import series
from broker.dispatch import reasons
from broker.series import Series, SeriesType
from simulator.answer import Answer
from simulator.detail import Detail
from simulator.windows import FINAL, WINDOWS

ORGANISATION = "simulated"
Samples = Iterator[tuple[str, Mapping[str, str], float, float]]
"""(suffix of the name, labels, value, seconds since the run began)."""


def openmetrics(answer: Answer, begin: datetime) -> Iterator[str]:
    """The lines of the file. `begin` is when the run began, with its time zone."""
    (detail, *_) = answer.details
    begin_s = begin.timestamp()
    for metric, samples in _families(answer, detail):
        family = metric.name.removesuffix("_total") if metric.type is SeriesType.COUNTER else metric.name
        yield f"# TYPE {family} {metric.type}"
        yield f"# HELP {family} {_escaped(metric.help)}"
        for suffix, labels, value, at_s in samples:
            inside = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
            yield f"{metric.name}{suffix}{{{inside}}} {value!r} {begin_s + at_s:.3f}"
    yield "# EOF"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _families(answer: Answer, detail: Detail) -> Iterator[tuple[Series, Samples]]:
    groups = {name: {"group": f"{ORGANISATION}/{name}"} for name in answer.scenario.groups}

    def by_group(column: str, **labels: str) -> Samples:
        for name, label in groups.items():
            yield from _points(detail, f"{name}.{column}", label | labels)

    yield series.JOBS_SUBMITTED, by_group("submitted")
    yield series.SUBMISSIONS_REFUSED, by_group("refused", reason=reasons.QUEUE_FULL)
    yield series.JOBS_FINISHED, (sample for state in FINAL for sample in by_group(state, state=state))
    yield series.JOBS_WAITING, by_group("waiting", state="queued")
    yield series.ATTEMPTS_HELD, by_group("running")
    yield series.AGENTS, by_group("up", status="active")
    yield series.SLOTS, by_group("slots")
    yield series.LATENCY_SECONDS, (sample for name in groups for sample in _latencies(answer, detail, name))
    yield series.SESSIONS, _sums(detail, [f"{name}.up" for name in groups])
    yield series.COMMITS, _points(detail, "commits", {})


def _points(detail: Detail, column: str, labels: Mapping[str, str]) -> Samples:
    for at_s, value in zip(detail.timeline["t"], detail.timeline[column], strict=True):
        yield "", labels, value, at_s


def _sums(detail: Detail, columns: Sequence[str]) -> Samples:
    rows = zip(*(detail.timeline[column] for column in columns), strict=True)
    for at_s, row in zip(detail.timeline["t"], rows, strict=True):
        yield "", {}, sum(row), at_s


def _latencies(answer: Answer, detail: Detail, group: str) -> Samples:
    """The histogram of a group, over all its classes of work."""
    works = [name for name, work in answer.scenario.work.items() if work.group == group and name in detail.at_most]
    if not works:
        return
    label = {"group": f"{ORGANISATION}/{group}"}
    for bound in sorted(detail.at_most[works[0]]):
        le = "+Inf" if bound == float("inf") else repr(bound)
        for window in range(WINDOWS):
            yield "_bucket", label | {"le": le}, _until(detail, works, bound, window), _end_s(answer, window)
    for window in range(WINDOWS):
        yield "_count", label, _until(detail, works, float("inf"), window), _end_s(answer, window)


def _until(detail: Detail, works: Sequence[str], bound: float, window: int) -> int:
    return sum(detail.at_most[name][bound][window] for name in works)


def _end_s(answer: Answer, window: int) -> float:
    return answer.scenario.end_s * (window + 1) / WINDOWS
