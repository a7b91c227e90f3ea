"""What is called plain keeps the rules of the contract, whatever the rules are by now."""

from __future__ import annotations

import protovalidate
import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from broker.rpc.plain import is_plain
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import job_pb2
from protos.mesh.v1 import job_service_pb2 as pb

PARENT = "organizations/default/groups/default"


def around(*lengths: int) -> st.SearchStrategy[int]:
    """Lengths at the bounds of the contract, and beside them."""
    return st.sampled_from(sorted({max(0, length + step) for length in lengths for step in (-1, 0, 1)}))


def text_of(length: int) -> str:
    return "ä" * length


names = st.one_of(
    st.sampled_from(
        ["", "echo", "files.csv_to_sql", "Echo", "echo.", ".echo", "echo\n", "e cho", "é", "a1._b", "a..b"]
    ),
    around(128).map(lambda length: "a" * length),
    st.text(max_size=8),
)
specs = st.builds(
    pb.JobSpec,
    job_id=around(0, 16).map(bytes),
    operation=names,
    payload=st.binary(max_size=4),
    content_type=around(0, 128).map(text_of),
    priority=st.integers(0, 7),
    fairness_key=around(0, 64).map(text_of),
    idempotency_key=around(0, 256).map(text_of),
    labels=st.dictionaries(st.sampled_from(["zone", "Zone"]), st.just("a"), max_size=1),
    metadata=st.dictionaries(st.sampled_from(["", "traceparent"]), st.just("a"), max_size=1),
    delay=st.none() | st.integers(-1, 1).map(lambda seconds: Duration(seconds=seconds)),
    run_timeout=st.none() | st.integers(-1, 1).map(lambda seconds: Duration(seconds=seconds)),
)
attempts = around(0, 65_536).map(lambda length: agent_pb.AttemptList(job_keys=[1] * length, attempts=[1]))
frames = st.builds(
    agent_pb.AgentFrame,
    heartbeat=st.none() | st.builds(agent_pb.Heartbeat, seq=st.just(1), stuck=st.none() | attempts),
    capacity=st.none() | st.sampled_from([4_096, 4_097]).map(lambda most: agent_pb.Capacity(attempts=most)),
    accepted=st.none() | attempts,
    started=st.none() | attempts,
    progress=st.lists(st.builds(agent_pb.Progress, fraction=st.sampled_from([0.5, 1.5])), max_size=1),
    outcomes=st.lists(
        st.builds(
            agent_pb.Outcome,
            status=st.integers(-1, 6),
            failure=st.none() | st.just(job_pb2.Failure(code="x" * 1_000)),
            run_time=st.none() | st.integers(-1, 1).map(lambda seconds: Duration(seconds=seconds)),
        ),
        max_size=2,
    ),
    goodbye=st.none() | st.sampled_from([256, 257]).map(lambda length: agent_pb.Goodbye(reason="x" * length)),
)
requests = st.builds(
    lambda parent, jobs: pb.SubmitStreamRequest(batch=pb.SubmitJobsRequest(parent=parent, jobs=jobs)),
    st.sampled_from([PARENT, "", "a" * 256, "a" * 257]),
    st.lists(specs, max_size=2),
)


def request_of(*jobs: pb.JobSpec) -> pb.SubmitStreamRequest:
    return pb.SubmitStreamRequest(batch_seq=1, batch=pb.SubmitJobsRequest(parent=PARENT, jobs=jobs))


def plain_job() -> pb.JobSpec:
    return pb.JobSpec(job_id=bytes(range(16)), operation="echo", payload=b"x", priority=5, fairness_key="customer")


@given(requests)
def test_plain_batch_breaks_no_rule(request: pb.SubmitStreamRequest) -> None:
    assert not is_plain(request) or protovalidate.collect_violations(request) == []


@given(frames)
def test_plain_frame_breaks_no_rule(frame: agent_pb.AgentFrame) -> None:
    assert not is_plain(frame) or protovalidate.collect_violations(frame) == []


def test_frame_is_plain_when_it_says_what_became_of_attempts() -> None:
    listed = agent_pb.AttemptList(job_keys=[1], attempts=[1])
    outcomes = [
        agent_pb.Outcome(job_key=1, attempt=1, status=status) for status in job_pb2.OutcomeStatus.values() if status
    ]

    assert is_plain(
        agent_pb.AgentFrame(heartbeat=agent_pb.Heartbeat(), accepted=listed, started=listed, outcomes=outcomes)
    )


@pytest.mark.parametrize(
    "frame",
    [
        agent_pb.AgentFrame(hello=agent_pb.Hello(slots=1)),
        agent_pb.AgentFrame(outcomes=[agent_pb.Outcome(status=job_pb2.OUTCOME_STATUS_UNSPECIFIED)]),
        agent_pb.AgentFrame(accepted=agent_pb.AttemptList(job_keys=[1] * 65_537)),
        agent_pb.AgentFrame(started=agent_pb.AttemptList(attempts=[1] * 65_537)),
        agent_pb.AgentFrame(heartbeat=agent_pb.Heartbeat(stuck=agent_pb.AttemptList(job_keys=[1] * 65_537))),
        agent_pb.AgentFrame(progress=[agent_pb.Progress()]),
    ],
)
def test_frame_is_not_plain_when_its_rules_must_be_asked(frame: agent_pb.AgentFrame) -> None:
    assert not is_plain(frame)


@pytest.mark.parametrize("count", [1, 1_024])
def test_batch_is_plain_when_its_jobs_set_what_most_jobs_set(count: int) -> None:
    assert is_plain(request_of(*[plain_job()] * count))


@pytest.mark.parametrize("count", [0, 1_025])
def test_batch_is_not_plain_when_it_has_a_forbidden_size(count: int) -> None:
    assert not is_plain(request_of(*[plain_job()] * count))


@pytest.mark.parametrize(
    "more",
    [
        pb.JobSpec(labels={"zone": "a"}),
        pb.JobSpec(metadata={"traceparent": "00"}),
        pb.JobSpec(delay=Duration(seconds=1)),
        pb.JobSpec(start_at=Timestamp(seconds=1)),
        pb.JobSpec(schedule_to_start=Duration(seconds=1)),
        pb.JobSpec(run_timeout=Duration(seconds=1)),
        pb.JobSpec(total_timeout=Duration(seconds=1)),
        pb.JobSpec(operation="No"),
    ],
)
def test_batch_is_not_plain_when_the_rules_of_one_job_must_be_asked(more: pb.JobSpec) -> None:
    job = plain_job()
    job.MergeFrom(more)

    assert not is_plain(request_of(plain_job(), job))
