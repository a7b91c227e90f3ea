"""`/metrics` as Prometheus reads it, answered by threads that share nothing with the event loop but finished figures.

A reader asks the loop for a snapshot and waits a moment for it. If the loop does not answer in time, the figures are
those of the last time and `mesh_snapshot_age_seconds` says so: a broker that stands still is seen to stand still.
Readers that ask at the same time share one answer, and a snapshot that was dear is used again for a while, so that
however often they ask, the loop spends at most a twentieth of its time on them.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from broker import series
from broker.observe.metrics import Buckets, Sample
from broker.series import Series, SeriesType

WAIT_S: Final = 1.0
"""How long a reader waits for the event loop."""
CHEAP_S: Final = 0.001
SHARE: Final = 20
"""A snapshot that took longer than `CHEAP_S` is used for so many times as long."""


class MetricsPage:
    """The page. `take` makes the figures on the event loop; `store` is the file whose size is told."""

    def __init__(self, take: Callable[[], Sequence[Sample]], store: Path) -> None:
        self._take = take
        self._files = {"main": store, "wal": store.with_name(f"{store.name}-wal")}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()
        self._asked: Future[None] | None = None
        self._samples: Sequence[Sample] = ()
        self._taken_s = 0.0
        self._cost_s = 0.0
        self._process = ProcessCollector(registry=None)

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """There is something to tell from now on. Before, the page has the process only."""
        self._loop = loop

    def text(self) -> bytes:
        """The page now. Call from any thread but that of the event loop."""
        if (asked := self._ask()) is not None:
            with suppress(TimeoutError):
                asked.result(WAIT_S)
        return generate_latest(_Families([*self._samples, *self._of_thread()], self._process))

    def _ask(self) -> "Future[None] | None":
        """The request that is under way, or a new one; None if what is known will do, or is all there will be."""
        with self._lock:
            age_s = time.monotonic() - self._taken_s
            if self._loop is None or (self._cost_s > CHEAP_S and age_s < SHARE * self._cost_s):
                return None
            if self._asked is None or self._asked.done():
                asked: Future[None] = Future()
                try:
                    self._loop.call_soon_threadsafe(self._answer, asked)
                except RuntimeError:  # the loop is closed: what was known last stays
                    return None
                self._asked = asked
            return self._asked

    def _answer(self, answer: "Future[None]") -> None:
        """On the event loop."""
        began_s = time.monotonic()
        try:
            self._samples = self._take()
            self._taken_s = time.monotonic()
            self._cost_s = self._taken_s - began_s
            answer.set_result(None)
        except Exception as error:  # noqa: BLE001 - raised again in the thread that asked
            answer.set_exception(error)

    def _of_thread(self) -> Iterator[Sample]:
        """What is known without the event loop."""
        if self._taken_s:
            yield Sample(series.SNAPSHOT_AGE_SECONDS, (), round(time.monotonic() - self._taken_s, 3))
        for name, path in self._files.items():
            with suppress(FileNotFoundError):
                yield Sample(series.STORE_BYTES, (name,), path.stat().st_size)


class _Families:
    """The samples as the library that writes them wants them: gathered by series, in the order of the page."""

    def __init__(self, samples: Sequence[Sample], process: ProcessCollector) -> None:
        self._samples = samples
        self._process = process

    def collect(self) -> Iterator[Metric]:
        """Every series, also those without a sample."""
        families = {one.name: _family(one) for one in series.ALL}
        for sample in self._samples:
            family = families[sample.series.name]
            if isinstance(family, HistogramMetricFamily):
                assert isinstance(sample.value, Buckets)
                family.add_metric(sample.labels, sample.value.counts, sample.value.total)
            else:
                assert not isinstance(sample.value, Buckets)
                family.add_metric(sample.labels, sample.value)
        yield from families.values()
        yield from self._process.collect()


def _family(one: Series) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    if one.type is SeriesType.COUNTER:
        return CounterMetricFamily(one.name, one.help, labels=one.labels)
    if one.type is SeriesType.GAUGE:
        return GaugeMetricFamily(one.name, one.help, labels=one.labels)
    return HistogramMetricFamily(one.name, one.help, labels=one.labels)
