from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from itertools import count
from typing import Any, cast

import pytest
from google.rpc import code_pb2

from mesh_client import (
    DeniedError,
    FullError,
    JobFailedError,
    JobSpec,
    MalformedError,
    Mapped,
    MeshClient,
    Progress,
)
from protos.mesh.v1 import job_pb2
from tests.mesh_client.broker import WAIT_S, MemoryBroker, away, full, status
from tests.mesh_client.test_source import Numbers

SUCCEEDED = job_pb2.JOB_STATE_SUCCEEDED


async def mapped(mesh: MeshClient, operation: str, items: Any, **options: Any) -> list[Mapped[Any]]:
    async with asyncio.timeout(WAIT_S):
        return [one async for one in mesh.map(operation, items, **options)]


async def test_map_gives_every_result_in_the_order_of_the_inputs(mesh: MeshClient, broker: MemoryBroker) -> None:
    outcomes = await mapped(mesh, "done", range(500), concurrency=64)
    assert [one.result.json() for one in outcomes] == list(range(500))
    assert [(one.index, one.item) for one in outcomes] == [(number, number) for number in range(500)]
    assert len(broker.jobs) == 500
    assert broker.calls["SubmitStream"] == 1


async def test_map_sends_bytes_as_they_are_a_spec_as_it_is_and_all_else_as_json(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    items = [b"raw", JobSpec("done", b"own", priority=1), None, {"a": 1}]
    outcomes = await mapped(mesh, "done", items, priority=5)
    assert [one.result.content for one in outcomes] == [b"raw", b"own", b"null", b'{"a":1}']
    assert [spec.priority for spec in broker.specs.values()] == [5, 1, 5, 5]
    assert [spec.content_type for spec in broker.specs.values()] == ["", "", *["application/json"] * 2]


async def test_map_of_an_endless_source_reads_no_further_than_its_concurrency(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    numbers = Numbers()
    async with aclosing(cast("AsyncGenerator[Mapped[int], None]", mesh.map("done", numbers, concurrency=10))) as ended:
        for taken in range(1, 100):
            await anext(ended)
            assert numbers.read <= taken + 10
    assert len(broker.jobs) <= 110


async def test_map_holds_back_outcomes_that_overtake_unless_their_order_does_not_matter(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    for ordered, expected in ((True, [0, 1, 2]), (False, [1, 2, 0])):
        first = JobSpec("load", str(ordered).encode())
        mapping = asyncio.create_task(mapped(mesh, "done", [first, b"1", b"2"], ordered=ordered))
        told = broker.calls["GetJob"]
        await broker.called("GetJob", told + 2)
        slow = next(job for job in broker.jobs.values() if job.operation == "load" and job.state != SUCCEEDED)
        await broker.move(slow.job_id, SUCCEEDED)
        assert [one.index for one in await mapping] == expected


async def test_map_raises_what_failed_in_its_place(mesh: MeshClient, broker: MemoryBroker) -> None:
    taken: list[int] = []

    async def take() -> None:
        async for one in mesh.map("done", [b"0", JobSpec("failing", b"1"), b"2"]):
            taken.append(one.index)  # noqa: PERF401 - what came before the error is kept

    with pytest.raises(JobFailedError, match="broken: on purpose"):
        await take()
    assert taken == [0]


async def test_map_gives_failures_and_refusals_like_results_when_asked(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.refusals["refused"] = status(code_pb2.INVALID_ARGUMENT, "not like this", "MALFORMED")
    items = [b"0", JobSpec("failing"), JobSpec("refused"), b"3"]
    outcomes = await mapped(mesh, "done", items, failures="yield")
    assert [type(one.error) for one in outcomes] == [type(None), JobFailedError, MalformedError, type(None)]
    assert outcomes[2].job is None
    with pytest.raises(MalformedError, match="not like this"):
        _ = outcomes[2].result
    with pytest.raises(JobFailedError):
        _ = outcomes[1].result


async def test_map_submits_again_what_was_refused_because_something_is_full(
    mesh: MeshClient, broker: MemoryBroker
) -> None:
    broker.refuse_next("done", *[full()] * 7)
    outcomes = await mapped(mesh, "done", range(20), concurrency=5)
    assert [one.result.json() for one in outcomes] == list(range(20))
    assert len(broker.jobs) == 20


async def test_map_gives_up_when_it_stays_full_and_nothing_gets_on(broker: MemoryBroker) -> None:
    broker.refusals["done"] = full()
    async with MeshClient(broker.address, retry_for_s=0.2) as mesh:
        with pytest.raises(FullError):
            await mapped(mesh, "done", range(3))


async def test_map_goes_on_when_the_broker_is_restarted(mesh: MeshClient, broker: MemoryBroker) -> None:
    taken: list[object] = []
    async with asyncio.timeout(WAIT_S):
        async for one in mesh.map("done", range(200), concurrency=20):
            taken.append(one.result.json())
            if len(taken) in (15, 90):
                await broker.restart()
    assert taken == list(range(200))
    assert len(broker.jobs) == 200


async def test_map_makes_no_second_job_when_an_answer_was_lost(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("SubmitStream answered", away())
    await mapped(mesh, "done", range(50))
    assert len(broker.jobs) == 50


async def test_map_takes_an_asynchronous_source_and_raises_what_it_raises_in_the_end(mesh: MeshClient) -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise LookupError("the source broke")

    taken: list[int] = []

    async def take() -> None:
        async for one in mesh.map("done", source()):
            taken.append(one.item)  # noqa: PERF401 - what came before the error is kept

    with pytest.raises(LookupError, match="the source broke"):
        await take()
    assert taken == [1]


async def test_map_raises_when_a_broker_refuses_to_be_watched(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("WatchJobs", status(code_pb2.PERMISSION_DENIED, "not yours", "DENIED"))
    with pytest.raises(DeniedError):
        await mapped(mesh, "done", [1])


async def test_map_over_nothing_gives_nothing(mesh: MeshClient) -> None:
    assert await mapped(mesh, "done", []) == []


@pytest.mark.parametrize("options", [{"json": 1}, {"job_id": "x"}, {"concurrency": 0}])
async def test_map_refuses_options_that_make_no_sense(mesh: MeshClient, options: dict[str, Any]) -> None:
    with pytest.raises(MalformedError):
        await mapped(mesh, "done", [1], **options)


async def test_map_that_is_left_early_leaves_no_task_behind(mesh: MeshClient) -> None:
    before = asyncio.all_tasks()
    async with aclosing(cast("AsyncGenerator[Mapped[int], None]", mesh.map("done", count()))) as ended:
        await anext(ended)
    left = {task.get_name() for task in asyncio.all_tasks() - before}
    assert [name for name in left if name.startswith(("map", "submission"))] == []


async def test_map_tells_how_far_it_is(mesh: MeshClient) -> None:
    told: list[Progress] = []
    await mapped(mesh, "done", [b"0", JobSpec("failing"), b"2"], failures="yield", progress=told.append)
    assert told[-1] == Progress(total=3, submitted=3, succeeded=2, failed=1)
    assert told[-1].done == 3
    assert [now.done for now in told] == sorted(now.done for now in told)


async def test_map_of_a_source_without_length_has_no_total(mesh: MeshClient) -> None:
    told: list[Progress] = []
    await mapped(mesh, "done", iter([1, 2]), progress=told.append)
    assert {now.total for now in told} == {None}
