"""A lane and the table of jobs: their order under any course of comings and goings, and that neither moves at once."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.dispatch.lane import BLOCK_JOBS, Lane, Returned
from broker.dispatch.model import DispatchPolicy, GroupNo, Job, JobKey, JobState, OperationPolicy, job_key
from broker.dispatch.queue import Queue
from broker.dispatch.table import RANGE_BITS, JobTable

POLICY = OperationPolicy(no=1)


def a_lane() -> Lane:
    queue = Queue(DispatchPolicy())
    label_set = queue.label_set("work", ())
    assert label_set is not None
    lane = queue.lane(label_set, 3, "", "")
    assert lane is not None
    return lane


def a_job(lane: Lane, number: int, order_us: int) -> Job:
    return Job(job_key(GroupNo(1), number), b"", lane, POLICY, b"", order_us, order_us, JobState.QUEUED)


@given(
    st.sampled_from((2, 3, BLOCK_JOBS)),
    st.lists(
        st.tuples(st.sampled_from(("add", "again", "drop", "head")), st.integers(0, 40), st.integers(0, 10_000)),
        max_size=200,
    ),
)
def test_lane_serves_the_first_of_all_that_wait_whatever_came_and_went(
    block_jobs: int, acts: list[tuple[str, int, int]]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("broker.dispatch.lane.BLOCK_JOBS", block_jobs)
        come_and_go(acts)


def come_and_go(acts: list[tuple[str, int, int]]) -> None:
    """Play these acts on a lane and compare it with a list."""
    lane = a_lane()
    inside: list[Job] = []
    outside: list[Job] = []
    for number, (act, order_us, which) in enumerate(acts, 1):
        if act == "add":
            job = a_job(lane, number, order_us)
        elif act == "again" and outside:
            job = outside.pop(which % len(outside))
        elif inside and act in ("drop", "head"):
            job = inside.pop(which % len(inside)) if act == "drop" else lane.head()
            if act == "head":
                inside.remove(job)
            lane.drop(job)
            outside.append(job)
            continue
        else:
            continue
        lane.add(job)
        inside.append(job)
    assert lane.size == len(inside)
    assert sorted(job.key for job in lane) == sorted(job.key for job in inside)
    served = []
    while lane.size:
        served.append(lane.head())
        lane.drop(served[-1])
    assert served == sorted(inside, key=lambda job: (job.order_us, job.key))
    assert lane.first is lane.last is None


def test_returned_jobs_stand_in_blocks_of_a_bounded_size() -> None:
    lane = a_lane()
    returned = Returned()
    jobs = [a_job(lane, number, number * 7_919 % 10_007) for number in range(1, 5_001)]
    for job in jobs:
        returned.add(job)
    sizes = [len(block) for block in returned._blocks]
    assert sum(sizes) == returned.size == 5_000
    assert max(sizes) < 2 * BLOCK_JOBS
    assert [job.key for job in returned] == [job.key for job in sorted(jobs, key=lambda job: (job.order_us, job.key))]
    for job in jobs:
        returned.drop(job)
    assert (returned.size, returned._blocks) == (0, [])


def test_returned_job_that_is_not_there_is_noticed() -> None:
    lane, returned = a_lane(), Returned()
    returned.add(a_job(lane, 1, 5))
    with pytest.raises(AssertionError, match="did not return here"):
        returned.drop(a_job(lane, 1, 5))


# --- the table ------------------------------------------------------------------------------------------------------


def test_table_finds_jobs_by_key_and_gives_them_in_the_order_of_acceptance() -> None:
    lane, table = a_lane(), JobTable()
    jobs = [a_job(lane, number, 0) for number in range(1, 3 * 1_024, 3)]
    for job in jobs:
        table.add(job)
    assert len(table) == len(jobs)
    assert list(table) == list(table.keys()) == [job.key for job in jobs]
    assert list(table.values()) == jobs
    assert table[jobs[-1].key] is table.get(jobs[-1].key) is jobs[-1]
    assert JobKey(jobs[0].key + 1) not in table
    assert table.get(JobKey(1 << 50)) is None


def test_table_forgets_a_job_and_the_range_that_it_leaves_empty() -> None:
    lane, table = a_lane(), JobTable()
    old, new = a_job(lane, 1, 0), a_job(lane, 2 << RANGE_BITS, 0)
    table.add(old)
    table.add(new)
    del table[old.key]
    assert dict(table.items()) == {new.key: new}
    assert len(table._ranges) == 1
    with pytest.raises(KeyError):
        table[old.key]


def test_table_gives_back_the_room_of_jobs_that_are_gone() -> None:
    lane, table = a_lane(), JobTable()
    jobs = [a_job(lane, number, 0) for number in range(1 << RANGE_BITS, 2 << RANGE_BITS)]
    for job in jobs:
        table.add(job)
    for job in jobs[1:]:
        del table[job.key]
    [left] = table._ranges.values()
    assert left == {jobs[0].key: jobs[0]}
    assert sys.getsizeof(left) <= 2 * sys.getsizeof({number: number for number in range(16)})


@pytest.mark.parametrize("most", [1, 1_023, 1_024, 5_000])
def test_table_gives_the_keys_after_one_in_pages(most: int) -> None:
    lane, table = a_lane(), JobTable()
    keys = [job_key(GroupNo(1), number) for number in range(500, 4_500)]
    for number in range(500, 4_500):
        table.add(a_job(lane, number, 0))
    found: list[JobKey] = []
    while page := table.after(found[-1] if found else 0, most):
        assert len(page) <= most
        found += page
    assert found == keys
