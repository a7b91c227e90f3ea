from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from google.rpc import code_pb2

from mesh_client import (
    DeniedError,
    FullError,
    JobSpec,
    MalformedError,
    MeshClient,
    NotFoundError,
    SubmittedJob,
    UnavailableError,
)
from mesh_client.submission import BATCH_BYTES_MAX, batches, prepared
from tests.mesh_client.broker import MemoryBroker, away, status


def test_batches_are_cut_at_1024_jobs() -> None:
    jobs = [prepared(JobSpec("done"))] * 2_049
    sizes = [len(batch.request("p").jobs) for batch in batches(jobs)]
    assert sizes == [1_024, 1_024, 1]


def test_batches_are_cut_below_3_mib_on_the_wire() -> None:
    jobs = [prepared(JobSpec("done", b"x" * 1_000_000)) for _ in range(7)]
    requests = [batch.request("organizations/default/groups/default") for batch in batches(jobs)]
    assert [len(request.jobs) for request in requests] == [3, 3, 1]
    assert all(request.ByteSize() < 4 << 20 for request in requests)


def test_job_that_fits_into_no_request_is_refused() -> None:
    with pytest.raises(MalformedError, match="pass a reference") as caught:
        prepared(JobSpec("done", b"x" * BATCH_BYTES_MAX))
    assert caught.value.reason == "PAYLOAD_TOO_LARGE"


async def test_submit_many_answers_every_job_in_order_with_refusals_among_them(mesh: MeshClient) -> None:
    answers = await mesh.submit_many([JobSpec("done"), JobSpec("refused"), JobSpec("done")])
    assert [answer.error is None for answer in answers] == [True, False, True]
    assert answers[1].job_key == 0
    with pytest.raises(FullError, match="the queue is full") as caught:
        answers[1].accepted()
    assert (caught.value.reason, caught.value.retry_after_s) == ("QUEUE_FULL", 7.0)


async def test_submit_many_sends_several_requests_when_there_are_many(mesh: MeshClient, broker: MemoryBroker) -> None:
    answers = await mesh.submit_many(JobSpec("done") for _ in range(1_030))
    assert [len(batch.jobs) for batch in broker.batches] == [1_024, 6]
    assert [answer.job_id for answer in answers] == [job.job_id for job in broker.jobs.values()]


async def test_submit_many_raises_when_the_group_is_unknown(broker: MemoryBroker) -> None:
    async with MeshClient(broker.address, group="nope") as mesh:
        with pytest.raises(NotFoundError, match="groups/nope"):
            await mesh.submit_many([JobSpec("done")])


async def test_stream_answers_in_order(mesh: MeshClient, broker: MemoryBroker) -> None:
    answers = [answer async for answer in mesh.submit_stream((JobSpec("done") for _ in range(1_000)), batch_jobs=64)]
    assert [answer.job_id for answer in answers] == [job.job_id for job in broker.jobs.values()]
    assert broker.calls["SubmitStream"] == 1
    assert broker.calls["SubmitJobs"] == 0


async def test_stream_takes_an_asynchronous_source(mesh: MeshClient) -> None:
    async def specs() -> AsyncIterator[JobSpec]:
        for name in ("done", "refused"):
            yield JobSpec(name)

    answers = [answer async for answer in mesh.submit_stream(specs())]
    assert [answer.error is None for answer in answers] == [True, False]


async def test_stream_ends_when_there_is_nothing_to_submit(mesh: MeshClient) -> None:
    assert [answer async for answer in mesh.submit_stream([])] == []


async def test_stream_has_no_more_batches_under_way_than_its_window(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.released.clear()
    given = 0
    enough = asyncio.Event()

    async def specs() -> AsyncIterator[JobSpec]:
        nonlocal given
        for given in range(1, 401):
            yield JobSpec("done")
            if given == 40:
                enough.set()

    async def collect() -> int:
        return len([answer async for answer in mesh.submit_stream(specs(), window=3, batch_jobs=10)])

    collecting = asyncio.create_task(collect())
    await enough.wait()
    # All that runs by itself runs dry: three batches of ten are sent, twenty jobs wait behind them.
    while (before := given) < 400:
        await broker_turns()
        if given == before:
            break
    assert given <= 50
    broker.released.set()
    assert await collecting == 400
    assert broker.open_batches_most <= 3


async def broker_turns() -> None:
    """Enough turns of the event loop for a batch to cross the connection and be read."""
    for _ in range(200):
        await asyncio.sleep(0)


async def test_stream_sends_again_what_was_not_answered_when_it_breaks(mesh: MeshClient, broker: MemoryBroker) -> None:
    broker.fail_next("SubmitStream", away())
    broker.fail_next("SubmitStream batch", away())
    broker.fail_next("SubmitStream answered", away())
    answers = [answer async for answer in mesh.submit_stream((JobSpec("done") for _ in range(50)), batch_jobs=10)]
    assert [answer.job_id for answer in answers] == [job.job_id for job in broker.jobs.values()]
    assert not any(answer.duplicate for answer in answers)
    assert broker.calls["SubmitStream"] == 4


async def test_stream_goes_on_when_the_broker_is_restarted(mesh: MeshClient, broker: MemoryBroker) -> None:
    answers = []
    async for answer in mesh.submit_stream((JobSpec("done") for _ in range(60)), window=2, batch_jobs=10):
        answers.append(answer)
        if len(answers) == 15:
            await broker.restart()
    assert [answer.job_id for answer in answers] == [job.job_id for job in broker.jobs.values()]


async def test_stream_goes_on_when_the_broker_is_restarted_while_its_source_was_silent(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    passed_s = 0.0
    monkeypatch.setattr("mesh_client.retry.monotonic", lambda: passed_s)

    async def specs() -> AsyncIterator[JobSpec]:
        nonlocal passed_s
        yield JobSpec("done")
        await broker.called("SubmitStream answered", 1)
        passed_s = 3_600.0
        await broker.restart()
        yield JobSpec("done")

    async with MeshClient(broker.address, retry_for_s=5.0) as mesh:
        answers = [answer async for answer in mesh.submit_stream(specs())]
    assert [answer.job_id for answer in answers] == [job.job_id for job in broker.jobs.values()]


async def test_stream_refuses_each_job_when_the_group_is_unknown(broker: MemoryBroker) -> None:
    async with MeshClient(broker.address, group="nope") as mesh:
        answers = [answer async for answer in mesh.submit_stream([JobSpec("done"), JobSpec("done")])]
    assert [type(answer.error) for answer in answers] == [NotFoundError, NotFoundError]


async def test_stream_raises_when_the_broker_stays_away(broker: MemoryBroker) -> None:
    await broker.stop()
    async with MeshClient(broker.address, retry_for_s=0.3) as mesh:
        with pytest.raises(UnavailableError):
            [answer async for answer in mesh.submit_stream([JobSpec("done")])]


async def test_stream_raises_when_the_broker_refuses_it(mesh: MeshClient, broker: MemoryBroker) -> None:
    denied = status(code_pb2.PERMISSION_DENIED, "not yours", "DENIED")
    broker.fail_next("SubmitStream", denied, denied)
    with pytest.raises(DeniedError, match="not yours"):
        [answer async for answer in mesh.submit_stream(JobSpec("done") for _ in range(1_000))]
    # gRPC may lose the reason when it comes while a batch is written; then it is asked for a second time.
    assert broker.calls["SubmitStream"] <= 2
    assert not broker.jobs


async def test_stream_answers_what_the_source_gave_before_it_failed(mesh: MeshClient, broker: MemoryBroker) -> None:
    def specs() -> Iterator[JobSpec]:
        yield JobSpec("done")
        raise LookupError("the source broke")

    answers: list[SubmittedJob] = []

    async def collect() -> None:
        async for answer in mesh.submit_stream(specs()):
            answers.append(answer)  # noqa: PERF401 - what came before the error is kept

    with pytest.raises(LookupError, match="the source broke"):
        await collect()
    assert len(answers) == len(broker.jobs) == 1
