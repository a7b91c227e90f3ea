from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator

import pytest

from mesh_client import JobSpec, JobState, MeshClient, NotFoundError, SyncMeshClient
from mesh_client.sync import AHEAD_MAX
from protos.mesh.v1 import job_pb2
from tests.mesh_client.broker import WAIT_S, BrokerThread


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
