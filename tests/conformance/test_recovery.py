from __future__ import annotations

from broker.dispatch.model import NO_JOB, AgentNo, JobKey, JobState, OnLoss, OperationPolicy
from broker.dispatch.rows import AgentRow, LabelSetRow, Writes
from broker.store.base import Body, GroupState
from tests.conformance.bench import StoreBench, change, succeed


async def test_live_jobs_come_in_the_order_of_keys_a_page_at_a_time(bench: StoreBench) -> None:
    rows = [bench.job(number) for number in (4, 1, 5, 2, 3)]
    await bench.insert(*rows)

    pages, after = [], NO_JOB
    while page := await bench.store.live_jobs(bench.group, after, 2):
        pages.append([row.job_key & 0xFF for row in page])
        after = page[-1].job_key

    assert pages == [[1, 2], [3, 4], [5]]


async def test_live_jobs_are_those_that_are_not_final(bench: StoreBench) -> None:
    rows = {state: bench.job(number, state=state) for number, state in enumerate(JobState, start=1)}
    await bench.insert(*rows.values())

    live = {row.state for row in await bench.store.live_jobs(bench.group, NO_JOB, 100)}

    assert live == set(JobState) - {"succeeded", "failed", "cancelled", "dead"}


async def test_live_jobs_end_with_their_update(bench: StoreBench) -> None:
    first, second = bench.job(1), bench.job(2)
    await bench.insert(first, second)

    await bench.commit(Writes(updates=[succeed(first), change(second, state=JobState.RUNNING)]))

    assert await bench.keys() == [second.job_key]


async def test_live_jobs_are_of_one_group(bench: StoreBench) -> None:
    there = bench.job(1, group=bench.other_group)
    await bench.commit(group=Writes(inserts=[bench.job(1)]), other_group=Writes(inserts=[there]))

    assert await bench.keys(bench.other_group) == [there.job_key]


async def test_group_state_of_a_new_group_is_empty(bench: StoreBench) -> None:
    assert await bench.store.group_state(bench.group) == GroupState(0, [], [], [])


def agent_row(bench: StoreBench, incarnation: bytes) -> AgentRow:
    drain = (8, "ann", "new disk", 9, "pause", "requeue")
    return AgentRow(AgentNo(1), bench.group, "agent-a", "draining", *drain, "live", 3, 7, 10, 11, incarnation)


async def test_group_state_has_what_the_dispatcher_wrote(bench: StoreBench) -> None:
    policies = [
        OperationPolicy(
            no=1, exclusive=True, on_loss=OnLoss.HOLD, failures_max=4, crashes_max=5, bounces_max=6,
            backoff_first_us=7, backoff_max_us=8, cancel_grace_us=9, running_max=10,
        ),
        OperationPolicy(no=2),
    ]  # fmt: skip
    label_sets = [
        LabelSetRow(bench.group, 1, "file.copy", ()),
        LabelSetRow(bench.group, 2, "file.copy", ("disk=ssd", "zone=\N{SNOWMAN}")),
    ]
    agents = [agent_row(bench, b"\x00incarnation")]

    await bench.commit(Writes(inserts=[bench.job(41)], policies=policies, label_sets=label_sets, agents=agents))

    assert await bench.store.group_state(bench.group) == GroupState(41, policies, label_sets, agents)
    assert await bench.store.group_state(bench.other_group) == GroupState(0, [], [], [])


async def test_policies_and_label_sets_may_be_written_again(bench: StoreBench) -> None:
    writes = Writes(policies=[OperationPolicy(no=1)], label_sets=[LabelSetRow(bench.group, 1, "file.copy", ("a=b",))])
    await bench.commit(writes)

    await bench.commit(writes)

    state = await bench.store.group_state(bench.group)
    assert (state.policies, state.label_sets) == (writes.policies, writes.label_sets)


async def test_agent_is_written_over(bench: StoreBench) -> None:
    agent = agent_row(bench, b"one")
    await bench.commit(Writes(agents=[agent]))
    changed = agent._replace(admin="paused", last_connected_us=20, incarnation=b"two")

    await bench.commit(Writes(agents=[changed]))

    assert (await bench.store.group_state(bench.group)).agents == [changed]


async def test_name_of_a_removed_agent_is_free_again(bench: StoreBench) -> None:
    removed = agent_row(bench, b"one")._replace(admin="removed")
    await bench.commit(Writes(agents=[removed]))
    same_name = agent_row(bench, b"two")._replace(agent_no=AgentNo(2))

    await bench.commit(Writes(agents=[same_name]))

    assert (await bench.store.group_state(bench.group)).agents == [removed, same_name]


async def test_acceptance_number_is_the_highest_ever_given(bench: StoreBench) -> None:
    await bench.insert(bench.job(7), bench.job(9), bench.job(8))
    await bench.commit(Writes(updates=[succeed(bench.job(9))]))

    await bench.insert(bench.job(3))

    assert (await bench.store.group_state(bench.group)).acceptance_no == 9


async def test_everything_is_there_after_the_store_was_opened_again(bench: StoreBench) -> None:
    live, done = bench.job(1, state=JobState.HELD), bench.job(2)
    large = Body(b"p" * 50_000, "text/plain", (("a", "b"),))
    await bench.commit(Writes(inserts=[live, done], payloads={live.job_key: large}, checkpoints={live.job_key: b"c"}))
    await bench.commit(Writes(updates=[succeed(done)], results={done.job_key: Body(b"r" * 50_000)}))
    before = (await bench.read(live), await bench.read(done), await bench.store.group_state(bench.group))

    await bench.reopen()

    assert (await bench.read(live), await bench.read(done), await bench.store.group_state(bench.group)) == before
    assert await bench.keys() == [live.job_key]
    assert before[0].payload == large


async def test_bytes_of_many_jobs_are_read_in_one_call(bench: StoreBench) -> None:
    rows = [bench.job(number) for number in range(1, 1_102)]
    bodies: dict[JobKey, object] = {row.job_key: Body(b"%d" % row.job_key) for row in rows}
    await bench.commit(Writes(inserts=rows, payloads=bodies, checkpoints={row.job_key: b"c" for row in rows}))

    keys = [row.job_key for row in rows]
    assert await bench.store.payloads(keys) == bodies
    assert await bench.store.checkpoints(keys) == dict.fromkeys(keys, b"c")
    assert await bench.store.payloads([]) == {}
