"""When the broker collects: in idle moments, seldom when there is much, and the young always by themselves."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from broker import garbage
from broker.garbage import BUSY_CHECKS, FEW_JOBS, LITTER_COLLECTIONS, MANY_CHECKS, REST, Collector


class Scene:
    """A collector with a broker that is told what it does."""

    def __init__(self, live_jobs: int) -> None:
        self.live_jobs = live_jobs
        self.commits = 0
        self.young = 0
        self.collector = Collector(lambda: self.commits, lambda: self.live_jobs, lambda: self.young)

    def checks(self, count: int, *, busy: bool) -> int:
        """How often it is due in so many checks."""
        found = 0
        for _ in range(count):
            self.commits += busy
            found += self.collector.is_due()
        return found


def test_idle_broker_collects_once_after_it_did_something() -> None:
    scene = Scene(live_jobs=5)
    assert scene.checks(10, busy=False) == 0
    assert scene.checks(1, busy=True) == 0
    assert scene.checks(10, busy=False) == 1


def test_busy_broker_with_few_jobs_collects_now_and_then() -> None:
    scene = Scene(live_jobs=FEW_JOBS)
    assert scene.checks(BUSY_CHECKS - 1, busy=True) == 0
    assert scene.checks(2 * BUSY_CHECKS, busy=True) == 2


def test_busy_broker_with_many_jobs_never_stands_still_for_it() -> None:
    scene = Scene(live_jobs=FEW_JOBS + 1)
    assert scene.checks(10 * MANY_CHECKS, busy=True) == 0


@pytest.mark.parametrize("busy", [True, False])
def test_broker_with_few_jobs_collects_at_the_next_check_when_there_is_litter(busy: bool) -> None:
    """Refused calls leave cycles, and a busy broker would let them lie for minutes."""
    scene = Scene(live_jobs=FEW_JOBS)
    scene.young = LITTER_COLLECTIONS
    assert scene.checks(3, busy=busy) == 3
    scene.young = LITTER_COLLECTIONS - 1
    assert scene.checks(3, busy=busy) == 0


@pytest.mark.parametrize(("took_s", "rests"), [(0.5, True), (0.001, False)])
def test_collection_that_stood_still_for_long_is_not_made_again_soon(
    monkeypatch: pytest.MonkeyPatch, took_s: float, rests: bool
) -> None:
    """Thousands of streams are as many objects as a million jobs."""
    now_s = 100.0

    def collect() -> None:
        nonlocal now_s
        now_s += took_s

    monkeypatch.setattr("broker.garbage.gc.collect", collect)
    monkeypatch.setattr("broker.garbage.time.monotonic", lambda: now_s)
    scene = Scene(live_jobs=FEW_JOBS)
    scene.young = LITTER_COLLECTIONS
    scene.collector.collect()
    now_s += 5.0
    assert scene.checks(1, busy=True) == (not rests)
    now_s += REST * took_s
    assert scene.checks(1, busy=True) == 1


def test_litter_does_not_make_a_broker_with_many_jobs_stand_still() -> None:
    scene = Scene(live_jobs=FEW_JOBS + 1)
    scene.young = 10 * LITTER_COLLECTIONS
    assert scene.checks(10, busy=True) == 0


def test_idle_broker_with_many_jobs_collects_seldom() -> None:
    scene = Scene(live_jobs=1_000_000)
    scene.checks(1, busy=True)
    assert scene.checks(MANY_CHECKS - 2, busy=False) == 0
    assert scene.checks(5, busy=False) == 1


@pytest.fixture
def restored() -> Iterator[None]:
    threshold = gc.get_threshold()
    yield
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.mark.usefixtures("restored")
def test_tuned_collector_leaves_the_old_alone() -> None:
    garbage.tune()
    assert gc.get_freeze_count() > 0
    assert gc.get_threshold() == (garbage.YOUNG_OBJECTS, garbage.NEVER, garbage.NEVER)
