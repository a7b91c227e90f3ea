from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from mesh_client import JobSpec, JobState, MalformedError
from mesh_client.convert import job_view, spec_message, submitted_job
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb

JOB_ID = "01990000-0000-7000-8000-000000000001"


def test_spec_carries_every_field_that_was_given() -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    message = spec_message(
        JobSpec(
            "orders.load",
            b"x",
            content_type="text/csv",
            priority=2,
            labels={"site": "north"},
            fairness_key="me",
            start_at=at,
            schedule_to_start_s=1.5,
            run_timeout_s=60,
            total_timeout_s=3_600,
            idempotency_key="order-7",
            metadata={"trace": "1"},
            job_id=JOB_ID,
        )
    )
    assert message.job_id == UUID(JOB_ID).bytes
    assert message.start_at.ToDatetime(UTC) == at
    assert message.schedule_to_start.ToTimedelta() == timedelta(seconds=1.5)
    assert message.run_timeout.seconds == 60
    assert message.total_timeout.seconds == 3_600
    assert (message.operation, message.payload, message.content_type) == ("orders.load", b"x", "text/csv")
    assert (message.priority, message.fairness_key, message.idempotency_key) == (2, "me", "order-7")
    assert (dict(message.labels), dict(message.metadata)) == ({"site": "north"}, {"trace": "1"})


def test_spec_leaves_out_what_was_not_given() -> None:
    message = spec_message(JobSpec("done"))
    assert {field.name for field, _ in message.ListFields()} == {"job_id", "operation"}
    assert UUID(bytes=message.job_id).version == 7


@pytest.mark.parametrize("value", [{"a": ["é", 1.5, None]}, [], 0, False, ""])
def test_spec_encodes_json_also_when_it_is_falsy(value: object) -> None:
    message = spec_message(JobSpec("done", json=value))
    assert json.loads(message.payload) == value
    assert message.content_type == "application/json"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (JobSpec("done", b"x", json=1), "not both"),
        (JobSpec("done", json=object()), "cannot be written as JSON"),
        (JobSpec("done", start_at=datetime(2026, 1, 1)), "no time zone"),  # noqa: DTZ001 - that is the point
        (JobSpec("done", job_id="x"), "not a job id"),
        (JobSpec("done", job_id=b"short"), "not a job id"),
    ],
)
def test_spec_that_cannot_be_sent_is_refused(spec: JobSpec, words: str) -> None:
    with pytest.raises(MalformedError, match=words):
        spec_message(spec)


def test_view_has_words_instead_of_numbers_and_names() -> None:
    job = job_pb2.Job(
        name=f"organizations/acme/jobs/{JOB_ID}",
        job_id=JOB_ID,
        group="organizations/acme/groups/loaders",
        environment="organizations/acme/environments/prod",
        state=job_pb2.JOB_STATE_DEAD,
        failure=job_pb2.Failure(code="c", message="m", retryable=True),
    )
    job.accepted_at.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    view = job_view(job)
    assert (view.organization, view.group, view.environment) == ("acme", "loaders", "prod")
    assert (view.state, view.is_final) == (JobState.DEAD, True)
    assert view.accepted_at == datetime(2026, 1, 2, tzinfo=UTC)
    assert (view.finished_at, view.result) == (None, None)
    assert view.failure is not None
    assert (view.failure.code, view.failure.message, view.failure.retryable) == ("c", "m", True)


@pytest.mark.parametrize(
    ("answered", "is_own_id", "duplicate"),
    [
        pytest.param("own", True, False, id="its own repeat"),
        pytest.param("own", False, True, id="an id of the caller"),
        pytest.param("other", True, True, id="the business key of another job"),
    ],
)
def test_answer_is_a_duplicate_only_when_somebody_else_had_submitted_it(
    answered: str, is_own_id: bool, duplicate: bool
) -> None:
    sent = pb.JobSpec(job_id=bytes(15) + b"\1")
    job_id = sent.job_id if answered == "own" else bytes(15) + b"\2"
    result = pb.SubmitResult(job_id=job_id, job_key=9, duplicate=True)
    assert submitted_job(result, sent, is_own_id).duplicate is duplicate


def test_every_state_of_the_contract_has_a_word() -> None:
    numbers = [number for number in job_pb2.JobState.values() if number != job_pb2.JOB_STATE_UNSPECIFIED]
    assert {job_view(job_pb2.Job(state=number)).state for number in numbers} == set(JobState)
