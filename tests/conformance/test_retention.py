"""What leaves a store when its time is over, by a clock that the test sets, and what stays."""

from __future__ import annotations

import asyncio

import pytest

from broker.dispatch.model import AgentNo, GroupNo, JobState
from broker.dispatch.rows import AgentRow, AttemptRow, JobRow, KeyRow, Writes
from broker.store.base import AgentWordsRow, Body, CommitStatus, Purged, Retired, SubmissionLookup
from broker.store.retention import Retention, RetentionPolicy
from tests.conformance.bench import START_US, StoreBench, lost, succeed

DAY_US = 86_400_000_000
POLICY = RetentionPolicy(history_us=30 * DAY_US, slice_rows=10, pause_s=0.0)
AGENT = AgentRow(AgentNo(1), GroupNo(0), "a", "enabled", 0, "", "", 0, "stop", "finish", "gone", 0, 0, 0, 0, b"")
LARGE = Body(b"x" * 10_000)


class Clock:
    """Engine time that stands still."""

    def __init__(self, now_us: int) -> None:
        self.us = now_us

    def now_us(self) -> int:
        return self.us


def ended(bench: StoreBench, number: int, at_us: int, state: str = JobState.SUCCEEDED) -> JobRow:
    return bench.job(number, state=state, finished_us=at_us, attempt=1, agent_no=AgentNo(7))


def retention_of(bench: StoreBench, clock: Clock, policy: RetentionPolicy = POLICY) -> Retention:
    async def purge(before_us: int) -> int:
        return sum(map(len, await bench.store.purge((bench.group, bench.other_group), before_us, 500)))

    return Retention(bench.store, policy, clock.now_us, lambda: bench.seq, purge)


async def kept(bench: StoreBench, *rows: JobRow) -> list[bool]:
    return [await bench.store.job([row.group_no], row.job_id) is not None for row in rows]


async def test_job_goes_when_its_end_is_older_than_the_history_and_no_sooner(bench: StoreBench) -> None:
    row = ended(bench, 1, START_US)
    await bench.insert(row)
    clock = Clock(START_US + 30 * DAY_US)
    retention = retention_of(bench, clock)

    assert (await retention.run_once()).jobs == 0
    assert await kept(bench, row) == [True]
    clock.us += 1
    assert (await retention.run_once()).jobs == 1
    assert await kept(bench, row) == [False]
    assert (retention.jobs_total, retention.last is not None) == (1, True)


@pytest.mark.parametrize(
    "state", [state for state in JobState if state not in ("succeeded", "failed", "dead", "cancelled")]
)
async def test_job_that_is_not_final_stays_for_ever(bench: StoreBench, state: JobState) -> None:
    live = bench.job(1, state=state)
    odd = bench.job(2, state=state, finished_us=START_US)  # that nobody writes, and that must not be believed
    await bench.insert(live, odd)

    await retention_of(bench, Clock(START_US + 10_000 * DAY_US)).run_once()

    assert await bench.keys() == [live.job_key, odd.job_key]


async def test_job_goes_with_its_payload_result_checkpoint_attempts_and_transitions(bench: StoreBench) -> None:
    row, other = bench.job(1), bench.job(2)
    attempt = AttemptRow(row.job_key, 1, AgentNo(7), START_US, 0, START_US, "lost", "")
    for one in (row, other):
        await bench.commit(Writes(inserts=[one], payloads={one.job_key: LARGE}))
        await bench.commit(
            Writes(
                updates=[succeed(one)],
                results={one.job_key: LARGE},
                checkpoints={one.job_key: b"half"},
                attempts=[attempt._replace(job_key=one.job_key)],
                transitions=[lost(one)],
            )
        )
    retired = await bench.store.retire(START_US * 2, 0, 3)
    assert retired == Retired(jobs=1, keys=0, rows=6)
    assert await kept(bench, row, other) == [False, True]
    assert await bench.store.payloads([row.job_key, other.job_key]) == {other.job_key: LARGE}
    assert await bench.store.checkpoints([row.job_key, other.job_key]) == {other.job_key: b"half"}

    # What comes under the same key would find what was left behind.
    await bench.insert(row)
    again = await bench.read(row)
    assert (again.attempts, again.transitions, again.result, again.checkpoint) == ((), (), None, b"")


async def test_removed_group_goes_with_all_that_it_had_when_no_kept_job_names_it(bench: StoreBench) -> None:
    row = ended(bench, 1, START_US + DAY_US)
    await bench.insert(row)
    await bench.store.put_agent_words(AgentWordsRow(bench.group, AgentNo(7), "Seven", ""))
    await bench.store.remove_group(bench.group, START_US)
    clock = Clock(START_US + 30 * DAY_US)
    retention = retention_of(bench, clock)

    assert (await retention.run_once()).names == 0  # not older than the history
    clock.us += 1
    assert (await retention.run_once()).names == 0  # its job is kept
    assert bench.group in [one.group_no for one in await bench.store.groups()]
    clock.us += DAY_US
    run = await retention.run_once()
    assert (run.jobs, run.names) == (1, 1)
    assert [one.group_no for one in await bench.store.groups()] == [bench.other_group]
    assert await bench.store.agent_words() == []
    assert (await bench.store.group_state(bench.group)).agents == []
    made = await bench.make_group("east")
    assert made not in (bench.group, bench.other_group)  # a number is never given twice


async def test_group_that_is_there_or_not_idle_stays(bench: StoreBench) -> None:
    await bench.store.remove_group(bench.group, START_US)
    assert await bench.store.purge((bench.other_group,), START_US + 1, 500) == Purged()
    assert await bench.store.purge((), START_US + 1, 500) == Purged()
    assert len(await bench.store.groups()) == 2


async def test_removed_agent_goes_when_every_job_from_before_its_removal_has_gone(bench: StoreBench) -> None:
    gone, late, there = (
        AGENT._replace(group_no=bench.group, agent_no=AgentNo(number), agent_id=f"a{number}", admin=admin, admin_us=us)
        for number, admin, us in ((1, "removed", START_US + 5), (2, "removed", START_US + 9), (3, "disabled", 1))
    )
    old, new = ended(bench, 1, START_US + 3), ended(bench, 2, START_US + 7)
    old, new = old._replace(accepted_us=START_US + 1), new._replace(accepted_us=START_US + 7)
    await bench.commit(Writes(inserts=[old, new], agents=[gone, late, there]))

    assert await bench.store.purge((), START_US + 100, 500) == Purged()
    await bench.store.retire(START_US + 4, 0, 10)
    assert await bench.store.purge((), START_US + 5, 500) == Purged()  # not removed before that time
    assert await bench.store.purge((), START_US + 100, 500) == Purged(agents=((bench.group, AgentNo(1)),))
    await bench.store.retire(START_US + 100, 0, 10)
    assert await bench.store.purge((), START_US + 100, 0) == Purged()  # no more at a time than asked
    assert await bench.store.purge((), START_US + 100, 500) == Purged(agents=((bench.group, AgentNo(2)),))
    assert [one.agent_no for one in (await bench.store.group_state(bench.group)).agents] == [3]


async def test_removed_organisation_goes_after_its_groups(bench: StoreBench) -> None:
    await bench.store.remove_organisation(bench.org_no, START_US)
    groups = (bench.group, bench.other_group)
    assert await bench.store.purge(groups, START_US, 500) == Purged()
    assert await bench.store.purge(groups[:1], START_US + 1, 500) == Purged(groups=groups[:1])
    gone = await bench.store.purge(groups, START_US + 1, 500)
    assert gone == Purged(groups=groups[1:], organisations=(bench.org_no,))
    assert await bench.store.organisations() == []
    assert (await bench.store.insert_organisation("acme", "Acme", 5)).org_no != bench.org_no


async def test_business_key_goes_when_it_has_expired_and_its_job_stays(bench: StoreBench) -> None:
    rows = [bench.job(1), bench.job(2)]
    keys = [
        KeyRow(bench.group, f"order-{row.job_key}", row.job_key, row.digest, START_US + at)
        for at, row in enumerate(rows)
    ]
    await bench.commit(Writes(inserts=rows, keys=keys))

    run = await retention_of(bench, Clock(START_US)).run_once()

    assert (run.jobs, run.keys) == (0, 1)
    assert await kept(bench, *rows) == [True, True]
    lookups = [SubmissionLookup(bench.group, b"another id", key.key) for key in keys]
    found = await bench.store.find_submissions(lookups)
    assert [one is not None for one in found] == [False, True]


async def test_run_removes_all_groups_in_slices_the_oldest_first(bench: StoreBench) -> None:
    here = [ended(bench, number, START_US + number) for number in range(1, 36)]
    there = [
        row._replace(job_key=bench.job(no, group=bench.other_group).job_key, group_no=bench.other_group)
        for no, row in enumerate(here, start=1)
    ]
    await bench.commit(group=Writes(inserts=here), other_group=Writes(inserts=there))

    assert await bench.store.retire(START_US + 100, 0, 10) == Retired(jobs=10, rows=10)
    assert await kept(bench, here[9], here[10]) == [False, True]
    run = await retention_of(bench, Clock(START_US + 100 + POLICY.history_us)).run_once()

    assert (run.jobs, run.rows, run.slices) == (60, 60, 7)
    assert run.file.free_bytes > 0


async def test_commit_that_waits_has_its_turn_between_two_slices(bench: StoreBench) -> None:
    await bench.insert(*(ended(bench, number, START_US) for number in range(1, 101)))
    retention = retention_of(bench, Clock(START_US + 31 * DAY_US))

    running = asyncio.create_task(retention.run_once())
    await asyncio.sleep(0)  # its first slice is under way
    outcome = await bench.commit(Writes(inserts=[bench.job(200)]))

    assert outcome.status is CommitStatus.COMMITTED
    assert not running.done()
    assert (await running).jobs == 100


async def test_number_of_a_job_that_went_is_not_given_again(bench: StoreBench) -> None:
    await bench.insert(ended(bench, 41, START_US))
    await bench.store.retire(START_US + 1, 0, 10)
    await bench.reopen()
    await bench.own()

    assert (await bench.store.group_state(bench.group)).acceptance_no == 41


def test_pause_is_halved_while_a_run_does_not_come_to_its_end() -> None:
    policy = RetentionPolicy(history_us=DAY_US, pause_s=0.2, every_s=60.0)
    assert [policy.pause_after(at_s) for at_s in (0.0, 59.0, 60.0, 180.0)] == [0.2, 0.2, 0.1, 0.025]
    assert 0 < policy.pause_after(1e9) < 0.001
