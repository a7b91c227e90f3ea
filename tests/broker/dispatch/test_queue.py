"""Waiting jobs in order: places, fairness, levels, lanes that go and bounds."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.dispatch.lane import Lane
from broker.dispatch.model import SECOND_US, DispatchPolicy, GroupNo, Job, JobState, OperationPolicy, job_key
from broker.dispatch.queue import LabelSet, Queue

pytestmark = pytest.mark.req("R80", "R85")

POLICY = OperationPolicy(no=1)


class Waiting:
    """A queue of one label set, and jobs numbered in the order of acceptance."""

    def __init__(self, **policy: Any) -> None:
        self.queue = Queue(DispatchPolicy(**policy))
        found = self.queue.label_set("work", ())
        assert found is not None
        self.label_set: LabelSet = found
        self._count = 0

    def lane(self, fairness: str = "", level: int = 3) -> Lane:
        lane = self.queue.lane(self.label_set, level, fairness, "")
        assert lane is not None
        return lane

    def put(self, fairness: str = "", level: int = 3, at_s: float | None = None) -> Job:
        """Accept a job and let it wait; it is `at_s` or the number of its acceptance in seconds old."""
        self._count += 1
        order_us = round((self._count if at_s is None else at_s) * SECOND_US)
        key = job_key(GroupNo(1), self._count)
        job = Job(key, b"", self.lane(fairness, level), POLICY, b"", order_us, order_us, JobState.QUEUED)
        self.queue.push(job)
        return job

    def take(self) -> Job | None:
        job = self.queue.head(self.label_set)
        if job is not None:
            self.queue.take(job)
        return job

    def take_all(self) -> list[Job]:
        return list(iter(self.take, None))


def test_jobs_of_a_lane_are_taken_in_the_order_of_acceptance() -> None:
    waiting = Waiting()
    jobs = [waiting.put() for _ in range(5)]
    assert waiting.take_all() == jobs


def test_job_that_returns_stands_where_it_stood() -> None:
    waiting = Waiting()
    first, second, third = (waiting.put() for _ in range(3))
    for job in (waiting.take(), waiting.take()):
        assert job is not None
    waiting.queue.push(second)
    waiting.queue.push(first)
    assert waiting.take_all() == [first, second, third]


def test_job_that_was_scheduled_stands_where_its_start_time_puts_it() -> None:
    waiting = Waiting()
    jobs = {at_s: waiting.put(at_s=at_s) for at_s in (1, 5, 9)}
    late = waiting.put(at_s=3)
    assert waiting.take_all() == [jobs[1], late, jobs[5], jobs[9]]


def test_jobs_of_the_same_time_stand_in_the_order_of_their_keys() -> None:
    waiting = Waiting()
    jobs = [waiting.put(at_s=1) for _ in range(3)]
    taken = waiting.take_all()
    for job in reversed(taken):
        waiting.queue.push(job)
    assert waiting.take_all() == jobs


@given(st.lists(st.tuples(st.integers(0, 20), st.booleans()), max_size=60))
def test_lane_gives_its_jobs_in_order_whatever_comes_and_goes(acts: list[tuple[int, bool]]) -> None:
    waiting = Waiting()
    model: list[Job] = []
    for at_s, is_coming in acts:
        if is_coming or not model:
            model.append(waiting.put(at_s=at_s))
            continue
        gone = model.pop(at_s % len(model))
        waiting.queue.remove(gone)
    assert waiting.take_all() == sorted(model, key=lambda job: (job.order_us, job.key))
    assert waiting.queue.waiting == {}
    assert waiting.queue.jobs == 0


# --- fairness -------------------------------------------------------------------------------------------------------


def test_fairness_keys_share_evenly_when_one_has_many_more_jobs() -> None:
    waiting = Waiting()
    for key, count in (("ann", 90), ("bob", 30), ("eve", 30)):
        for _ in range(count):
            waiting.put(key)
    served = Counter(job.lane.fairness for job in (waiting.take() for _ in range(60)) if job)
    assert served == {"ann": 20, "bob": 20, "eve": 20}


def test_fairness_key_that_was_idle_gets_its_turn_at_once_and_no_arrears() -> None:
    waiting = Waiting()
    for _ in range(50):
        waiting.put("ann")
    for _ in range(20):
        waiting.take()
    for _ in range(10):
        waiting.put("bob")
    served = [job.lane.fairness for job in (waiting.take() for _ in range(10)) if job]
    assert served.count("bob") == 5
    assert "bob" in served[:2]


def test_fairness_key_gains_nothing_by_emptying_its_lane() -> None:
    waiting = Waiting()
    for _ in range(40):
        waiting.put("ann")
    served = Counter[str]()
    for _ in range(40):
        if not waiting.lane("bob").size:
            waiting.put("bob")
        job = waiting.take()
        assert job is not None
        served[job.lane.fairness] += 1
    assert served == {"ann": 20, "bob": 20}


def test_job_that_leaves_without_being_placed_is_not_charged() -> None:
    waiting = Waiting()
    gone = [waiting.put("ann") for _ in range(10)]
    for job in gone:
        waiting.queue.remove(job)
    waiting.put("bob")
    waiting.put("ann")
    assert [job.lane.fairness for job in waiting.take_all()] == ["ann", "bob"]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=80))
def test_no_fairness_key_that_waits_is_ever_more_than_one_job_behind(keys: list[str]) -> None:
    waiting = Waiting()
    for key in keys:
        waiting.put(key)
    left = Counter(keys)
    served = dict.fromkeys(left, 0)
    while (job := waiting.take()) is not None:
        key = job.lane.fairness
        served[key] += 1
        left[key] -= 1
        assert all(served[key] - served[other] <= 1 for other in served if left[other])


# --- levels ---------------------------------------------------------------------------------------------------------


def test_more_urgent_level_is_served_first_when_both_are_young() -> None:
    waiting = Waiting()
    low, high = waiting.put(level=4), waiting.put(level=2)
    assert waiting.take_all() == [high, low]


def test_level_that_waited_longer_than_the_head_start_is_served_first() -> None:
    waiting = Waiting(ageing_us=10 * SECOND_US)
    old = waiting.put(level=4, at_s=0)
    young = waiting.put(level=2, at_s=20.5)
    older = waiting.put(level=2, at_s=19.5)
    assert waiting.take_all() == [older, old, young]


def test_levels_are_strict_when_ageing_is_off() -> None:
    waiting = Waiting(ageing_us=0)
    old = waiting.put(level=5, at_s=0)
    young = waiting.put(level=1, at_s=1_000_000)
    assert waiting.take_all() == [young, old]


# --- lanes and bounds -----------------------------------------------------------------------------------------------


def test_queue_refuses_a_lane_over_the_bound_and_takes_it_when_another_is_empty() -> None:
    waiting = Waiting(lanes_max=2)
    waiting.put("ann")
    waiting.put("bob")
    assert waiting.queue.lane(waiting.label_set, 3, "eve", "") is None
    waiting.take()
    assert waiting.queue.lane(waiting.label_set, 3, "eve", "") is not None


def test_queue_takes_lanes_over_the_bound_when_it_recovers() -> None:
    waiting = Waiting(lanes_max=1)
    waiting.put("ann")
    assert waiting.queue.restore_lane(waiting.label_set, 3, "bob", "").fairness == "bob"


def test_queue_refuses_a_label_set_over_the_bound() -> None:
    queue = Queue(DispatchPolicy(label_sets_max=1))
    first = queue.label_set("work", ())
    assert first is not None
    first.live = 1
    assert queue.label_set("work", ("zone=eu",)) is None
    assert queue.label_set("work", ()) is first


def test_queue_forgets_a_label_set_without_live_jobs_for_a_new_one_and_never_gives_its_number_again() -> None:
    queue = Queue(DispatchPolicy(label_sets_max=1))
    first = queue.label_set("wrok", ())
    assert first is not None
    queue.lane(first, 3, "ann", "")
    second = queue.label_set("work", ())
    assert second is not None
    assert (first.no, second.no, list(queue.by_no), queue.lanes) == (1, 2, [2], {})


def test_queue_forgets_lanes_whose_keys_are_used_once() -> None:
    waiting = Waiting()
    for number in range(1_000):
        waiting.put(f"key-{number}")
        waiting.take()
    assert len(waiting.queue.lanes) < 300


def test_job_returns_to_a_new_lane_of_its_kind_when_its_own_was_forgotten() -> None:
    waiting = Waiting(lanes_max=1)
    job = waiting.put("ann")
    waiting.take()
    other = waiting.put("bob")
    waiting.take()
    assert waiting.queue.lane(waiting.label_set, 3, "eve", "") is not None
    waiting.queue.push(other)
    waiting.queue.push(job)
    assert waiting.queue.lanes[waiting.label_set.no, 3, "ann", ""] is job.lane
    assert {one.lane.fairness for one in waiting.take_all()} == {"ann", "bob"}


def test_queue_refuses_to_take_what_is_not_the_head() -> None:
    waiting = Waiting()
    waiting.put("ann")
    second = waiting.put("bob")
    with pytest.raises(AssertionError, match="only the head"):
        waiting.queue.take(second)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["put", "put", "take", "remove", "return"]),
            st.integers(0, 30),
            st.sampled_from(["a", "b", "c"]),
            st.integers(1, 5),
        ),
        max_size=60,
    )
)
def test_head_is_the_job_that_a_fresh_look_finds_whatever_happened(acts: list[tuple[str, int, str, int]]) -> None:
    waiting = Waiting()
    queued: list[Job] = []
    away: list[Job] = []
    for act, number, fairness, level in acts:
        if act == "put":
            queued.append(waiting.put(fairness, level, at_s=number))
        elif act == "take" and (job := waiting.take()) is not None:
            queued.remove(job)
            away.append(job)
        elif act == "remove" and queued:
            waiting.queue.remove(queued.pop(number % len(queued)))
        elif act == "return" and away:
            queued.append(away.pop(number % len(away)))
            waiting.queue.push(queued[-1])

        kept = waiting.queue.head(waiting.label_set)
        for one in waiting.label_set.levels:
            one.moved()
        assert waiting.queue.head(waiting.label_set) is kept
        assert (kept is None) == (not queued)
