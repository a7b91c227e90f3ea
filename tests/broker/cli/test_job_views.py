from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from broker.cli.exits import CommandError
from broker.cli.job_views import carry_out, changed_at, entered_at
from mesh_client import BulkSlice, FullError, JobView, NotFoundError, RefusedJob
from mesh_client.convert import job_view
from protos.mesh.v1 import job_pb2


def test_bulk_call_that_breaks_off_says_what_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    def slices() -> Iterator[BulkSlice]:
        yield BulkSlice(matched=3, changed=2, stopping=0, passed_over=1, refused=(), resume_token="next")
        raise CommandError("the broker is away", 5)

    with pytest.raises(CommandError):
        carry_out(slices(), 1_200, "requeued", is_json=False)

    written = capsys.readouterr()
    assert written.out == "2 jobs requeued, 1 passed over.\n"
    assert written.err == "2 of about 1,200 requeued\n"


def test_bulk_call_says_what_another_try_would_mend_and_what_not(capsys: pytest.CaptureFixture[str]) -> None:
    gone, full = RefusedJob("j1", NotFoundError("the group has been removed")), RefusedJob("j2", FullError("full"))
    only_gone, both = (
        BulkSlice(matched=2, changed=0, stopping=0, passed_over=0, refused=refused, resume_token="")
        for refused in ((gone,), (gone, full))
    )

    assert carry_out([only_gone], 1, "requeued", is_json=False) == 3
    assert capsys.readouterr().out == "0 jobs requeued, 1 refused for good.\n"
    carry_out([both], 2, "requeued", is_json=False)
    again = "1 refused: the same command again tries them again"
    assert capsys.readouterr().out == f"0 jobs requeued, 1 refused for good, {again}.\n"
    carry_out([both], 2, "requeued", is_json=True)
    assert '"refused":2' in capsys.readouterr().out.replace(" ", "")


def at(second: int) -> Timestamp:
    return Timestamp(seconds=1_760_000_000 + second)


def job(state: job_pb2.JobState.ValueType, attempt: int = 0) -> JobView:
    states = (job_pb2.JOB_STATE_QUEUED, job_pb2.JOB_STATE_ASSIGNED, job_pb2.JOB_STATE_QUEUED)
    steps = [job_pb2.JobTransition(at=at(number), to_state=state) for number, state in enumerate(states)]
    return job_view(job_pb2.Job(state=state, attempt=attempt, accepted_at=at(0), assigned_at=at(1), transitions=steps))


def test_job_that_came_back_says_when_and_not_when_it_was_accepted() -> None:
    accepted_at = job(job_pb2.JOB_STATE_QUEUED).accepted_at
    assert accepted_at is not None
    assert changed_at(job(job_pb2.JOB_STATE_QUEUED)) == accepted_at
    assert changed_at(job(job_pb2.JOB_STATE_ASSIGNED, 1)) == accepted_at + timedelta(seconds=1)
    back, held = job(job_pb2.JOB_STATE_QUEUED, 1), job(job_pb2.JOB_STATE_HELD, 1)
    assert changed_at(back) is changed_at(held) is None
    assert entered_at(back, "queued") == accepted_at + timedelta(seconds=2)
    assert entered_at(held, "held") == accepted_at
