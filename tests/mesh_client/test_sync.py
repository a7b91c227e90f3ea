from __future__ import annotations

import concurrent.futures
import gc
import inspect
import queue
import subprocess
import sys
import threading
from collections.abc import Generator, Iterator, Sequence
from typing import Any, cast

import pytest

from mesh_client import (
    JobFailedError,
    JobSpec,
    JobState,
    MalformedError,
    MeshClient,
    NotFoundError,
    Progress,
    SyncMeshClient,
)
from mesh_client.sync import AHEAD_MAX
from protos.mesh.v1 import job_pb2
from tests.mesh_client.broker import WAIT_S, BrokerThread
from tests.mesh_client.test_source import Numbers
from tests.meta.check import ROOT


def test_sync_client_has_every_public_method_of_the_asynchronous_one() -> None:
    theirs = {name for name, value in inspect.getmembers(MeshClient, callable) if not name.startswith("_")}
    assert theirs <= set(dir(SyncMeshClient))


def test_sync_client_submits_waits_and_reads(threaded: BrokerThread) -> None:
    with SyncMeshClient(threaded.broker.address) as mesh:
        submitted = mesh.submit("done", json={"a": 1})
        [view] = mesh.wait([submitted.job_id], WAIT_S)
        assert view.result is not None
        assert view.result.json() == {"a": 1}
        assert [listed.job_id for listed in mesh.list()] == [submitted.job_id]
        with pytest.raises(NotFoundError):
            mesh.get_group("nope")


def test_sync_stream_gives_more_answers_than_it_gathers_ahead(threaded: BrokerThread) -> None:
    count = 3 * AHEAD_MAX
    with SyncMeshClient(threaded.broker.address) as mesh:
        answers = list(mesh.submit_stream(JobSpec("done") for _ in range(count)))
    assert len(answers) == len({answer.job_id for answer in answers}) == count


def test_sync_stream_raises_what_the_source_raised_after_the_answers(threaded: BrokerThread) -> None:
    def specs() -> Iterator[JobSpec]:
        yield JobSpec("done")
        raise LookupError("the source broke")

    with SyncMeshClient(threaded.broker.address) as mesh:
        answers = mesh.submit_stream(specs())
        assert next(answers).job_key == 1
        with pytest.raises(LookupError, match="the source broke"):
            next(answers)


def test_sync_follow_can_be_left_early(threaded: BrokerThread) -> None:
    with SyncMeshClient(threaded.broker.address) as mesh:
        job = mesh.submit("load")
        for view in mesh.follow([job.job_id]):
            assert view.state is JobState.QUEUED
            break
        threaded.run(threaded.broker.move(job.job_id, job_pb2.JOB_STATE_SUCCEEDED))
        assert [view.state for view in mesh.follow([job.job_id])] == [JobState.SUCCEEDED]


def test_sync_future_gives_its_result_or_raises_why_there_is_none(threaded: BrokerThread) -> None:
    with SyncMeshClient(threaded.broker.address) as mesh:
        job, failing = mesh.submit("done", json=[1]), mesh.submit("failing")
        assert job.result(WAIT_S).json() == [1]
        with pytest.raises(JobFailedError, match="on purpose"):
            failing.result(WAIT_S)
        assert (job.done, job.outcome().state, failing.status().state) == (True, "succeeded", "failed")
        waiting = mesh.submit("load")
        assert waiting.cancel().state is JobState.CANCELLED
        assert mesh.future(job.job_id).result().json() == [1]


def test_sync_futures_go_with_those_of_the_standard_library(threaded: BrokerThread) -> None:
    with SyncMeshClient(threaded.broker.address) as mesh:
        jobs = [mesh.submit("done", json=number) for number in range(3)]
        futures = [job.future() for job in jobs]
        done, late = concurrent.futures.wait(futures, WAIT_S)
        assert not late
        assert sorted(str(future.result().json()) for future in done) == ["0", "1", "2"]
        assert {job.job_id for job in mesh.as_completed(jobs, WAIT_S)} == {job.job_id for job in jobs}


def test_sync_map_reads_a_source_that_blocks_on_the_results_of_the_map(threaded: BrokerThread) -> None:
    """Each input is what the job before it gave: a source that blocks must not hold up the loop."""
    results: queue.Queue[int] = queue.Queue()

    def source() -> Iterator[int]:
        yield 0
        for _ in range(20):
            yield results.get(timeout=WAIT_S) + 1

    with SyncMeshClient(threaded.broker.address) as mesh:
        given = []
        for mapped in mesh.map("done", source()):
            given.append(int(str(mapped.result.json())))
            results.put(given[-1])
    assert given == list(range(21))


def test_sync_map_may_call_the_client_from_its_source(threaded: BrokerThread) -> None:
    with SyncMeshClient(threaded.broker.address) as mesh:
        names = (mesh.submit("done", json=number).job_id for number in range(3))
        mapped = list(mesh.map("done", names))
    assert [one.result.json() for one in mapped] == [one.item for one in mapped]


class Looked(Sequence[int]):
    """A long list; `read` is how far somebody has looked."""

    def __init__(self) -> None:
        self.read = 0

    def __len__(self) -> int:
        return 1_000

    def __getitem__(self, index: Any) -> Any:
        self.read = max(self.read, index + 1)
        return index


@pytest.mark.parametrize("source", [Numbers, Looked])
@pytest.mark.parametrize("concurrency", [1, 5])
def test_sync_map_reads_no_further_ahead_of_what_was_taken_than_its_concurrency(
    threaded: BrokerThread, source: type[Numbers | Looked], concurrency: int
) -> None:
    items = source()
    with SyncMeshClient(threaded.broker.address) as mesh:
        mapping = mesh.map("done", items, concurrency=concurrency)
        for taken in range(1, 20):
            next(mapping)
            # Two calls give whatever would read ahead the time to do so.
            mesh.submit("done").result(WAIT_S)
            assert items.read <= taken + concurrency
        cast("Generator[object, None, None]", mapping).close()


@pytest.mark.parametrize("concurrency", [0, -1])
def test_sync_map_refuses_a_concurrency_that_makes_no_sense(threaded: BrokerThread, concurrency: int) -> None:
    with SyncMeshClient(threaded.broker.address) as mesh, pytest.raises(MalformedError):
        list(mesh.map("done", [1], concurrency=concurrency))


def test_sync_map_knows_the_total_of_what_has_a_length(threaded: BrokerThread) -> None:
    told: list[Progress] = []
    with SyncMeshClient(threaded.broker.address) as mesh:
        for items in ([1, 2], {1, 2}, {1: "a", 2: "b"}, iter([1, 2])):
            list(mesh.map("done", items, progress=told.append))
            assert {now.total for now in told} == {None if isinstance(items, Iterator) else 2}
            told.clear()


def test_sync_map_raises_what_a_job_failed_with(threaded: BrokerThread) -> None:
    with SyncMeshClient(threaded.broker.address) as mesh, pytest.raises(JobFailedError):
        list(mesh.map("failing", [1, 2]))


def test_sync_client_serves_several_threads(threaded: BrokerThread) -> None:
    with SyncMeshClient(threaded.broker.address) as mesh:
        threads = [threading.Thread(target=mesh.submit, args=("done",)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S)
    assert len(threaded.broker.jobs) == 8


def test_closed_sync_client_says_so_and_leaves_no_thread(threaded: BrokerThread) -> None:
    mesh = SyncMeshClient(threaded.broker.address)
    mesh.submit("done")
    mesh.close()
    mesh.close()
    with pytest.raises(RuntimeError, match="closed"):
        mesh.submit("done")
    assert "mesh-client" not in {thread.name for thread in threading.enumerate()}


def test_closing_a_sync_client_tells_a_thread_that_waits(threaded: BrokerThread) -> None:
    mesh = SyncMeshClient(threaded.broker.address)
    job = mesh.submit("load")
    waiting = job.future()
    threaded.run(threaded.broker.watching.wait())
    mesh.close()
    with pytest.raises(RuntimeError, match="closed"):
        waiting.result(WAIT_S)


def test_sync_client_that_nobody_holds_closes_itself(threaded: BrokerThread) -> None:
    mesh = SyncMeshClient(threaded.broker.address)
    thread = mesh._thread
    mesh.submit("done")
    del mesh
    gc.collect()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_sync_future_keeps_its_client_until_it_is_done(threaded: BrokerThread) -> None:
    mesh = SyncMeshClient(threaded.broker.address)
    thread, job = mesh._thread, mesh.submit("load")
    waiting, job_id = job.future(), job.job_id
    del mesh, job
    gc.collect()
    threaded.run(threaded.broker.watching.wait())
    threaded.run(threaded.broker.move(job_id, job_pb2.JOB_STATE_SUCCEEDED, result=job_pb2.Result(content=b"1")))
    assert waiting.result(WAIT_S).content == b"1"
    del waiting
    gc.collect()
    thread.join(WAIT_S)
    assert not thread.is_alive(), "nobody holds the client any more"


def test_sync_client_refuses_to_wait_for_itself(threaded: BrokerThread) -> None:
    with SyncMeshClient(threaded.broker.address) as mesh:

        async def inside() -> None:
            mesh.submit("done")

        with pytest.raises(RuntimeError, match="wait for itself"):
            mesh.run(inside())


FORKED = """
import os, sys
from mesh_client import SyncMeshClient
mesh = SyncMeshClient(sys.argv[1])
mesh.submit("done")
child = os.fork()
if not child:
    try:
        mesh.submit("done")
    except RuntimeError as error:
        os._exit(7 if "fork" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), mesh.submit("done").job_key)
"""


def test_sync_client_says_that_it_does_not_cross_a_fork(threaded: BrokerThread) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORKED, threaded.broker.address],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (0, "7 2\n"), done.stderr


def test_program_that_forgets_to_close_its_client_ends(threaded: BrokerThread) -> None:
    code = (
        "import sys; from mesh_client import SyncMeshClient; print(SyncMeshClient(sys.argv[1]).submit('done').job_key)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, threaded.broker.address],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_sync_client_that_is_found_dead_in_its_own_thread_closes_itself(threaded: BrokerThread) -> None:
    mesh = SyncMeshClient(threaded.broker.address)
    mesh.submit("done")
    mesh.loop.call_soon_threadsafe(mesh._finalizer)
    mesh._thread.join(WAIT_S)
    assert not mesh._thread.is_alive()
    assert mesh.loop.is_closed()
