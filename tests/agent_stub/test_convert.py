from __future__ import annotations

import pytest

from agent_stub import convert
from agent_stub.convert import MalformedFrameError
from agent_stub.operations import JobContext, Operations, operation
from agent_stub.session import (
    Capacity,
    Frame,
    Heartbeat,
    Hello,
    Outcome,
    OutcomeStatus,
    Progress,
    Rejected,
    RejectedReason,
    Verdict,
)
from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import job_pb2
from tests.agent_stub.broker import assign, attempts, duration


@operation("lonely", exclusive=True)
def lonely(job: JobContext) -> None: ...


OPERATIONS = Operations([lonely])


@pytest.mark.parametrize(
    ("ours", "prefix", "names"),
    [
        (OutcomeStatus, "OUTCOME_STATUS_", job_pb2.OutcomeStatus.items()),
        (RejectedReason, "REJECTED_REASON_", pb.RejectedReason.items()),
        (Verdict, "VERDICT_", pb.Verdict.items()),
    ],
)
def test_numbers_of_the_session_are_those_of_the_wire(
    ours: type[OutcomeStatus], prefix: str, names: list[tuple[str, int]]
) -> None:
    wire = {name.removeprefix(prefix): number for name, number in names if number != 0}
    assert {one.name: int(one) for one in ours} == wire


def test_frame_has_on_the_wire_what_it_has_in_the_session() -> None:
    frame = Frame(
        heartbeat=Heartbeat(7, 3),
        capacity=Capacity(2, 8),
        accepted=[(1, 1)],
        rejected=[Rejected(4, 1, RejectedReason.BUSY, "full")],
        started=[(2, 1)],
        progress=[Progress(3, 1, 0.5, "half", b"c")],
        outcomes=[
            Outcome(5, 2, OutcomeStatus.SUCCEEDED, content=b"r", content_type="text/plain", run_time_us=1_500_000)
        ],
        drain_request="SIGTERM",
        drain_status=[(1, 1)],
        goodbye="",
    )
    outcome = pb.Outcome(job_key=5, attempt=2, status=job_pb2.OUTCOME_STATUS_SUCCEEDED, run_time=duration(1.5))
    outcome.result.content, outcome.result.content_type = b"r", "text/plain"
    assert convert.agent_frame(frame, pb.Hello()) == pb.AgentFrame(
        heartbeat=pb.Heartbeat(seq=7, held=3),
        capacity=pb.Capacity(seq=2, attempts=8),
        accepted=attempts((1, 1)),
        rejected=[pb.Rejected(job_key=4, attempt=1, reason=pb.REJECTED_REASON_BUSY, message="full")],
        started=attempts((2, 1)),
        progress=[pb.Progress(job_key=3, attempt=1, fraction=0.5, message="half", checkpoint=b"c")],
        outcomes=[outcome],
        drain_request=pb.DrainRequest(reason="SIGTERM"),
        drain_status=pb.DrainStatus(remaining=attempts((1, 1))),
        goodbye=pb.Goodbye(),
    )


def test_hello_joins_what_is_held_with_who_the_agent_is() -> None:
    said = [Outcome(2, 1, OutcomeStatus.FENCED)]
    hello = Hello(4, 2, Capacity(9, 6), [(1, 1), (3, 1)], said, 3, finished=[(3, 1)])
    about = pb.Hello(host="h", incarnation_id=bytes(16))
    wire = convert.agent_frame(Frame(hello=hello), about).hello
    assert (wire.host, wire.connect_seq, wire.slots, wire.capacity.seq, wire.previous_attempts) == ("h", 4, 2, 9, 3)
    assert (wire.held, wire.finished) == (attempts((1, 1), (3, 1)), attempts((3, 1)))
    assert [one.status for one in wire.outcomes] == [job_pb2.OUTCOME_STATUS_FENCED]
    assert about.connect_seq == 0, "what lasts is not touched"


def test_failure_and_empty_success_are_told_apart() -> None:
    failed = convert.outcome_to(Outcome(1, 1, OutcomeStatus.FAILED, "csv.bad_row", "line 7", retryable=True))
    assert failed.failure == job_pb2.Failure(code="csv.bad_row", message="line 7", retryable=True)
    succeeded = convert.outcome_to(Outcome(1, 1, OutcomeStatus.SUCCEEDED))
    assert not succeeded.HasField("failure")
    assert not succeeded.HasField("result")


def test_lists_of_different_length_are_malformed() -> None:
    with pytest.raises(MalformedFrameError):
        convert.keys_of(pb.AttemptList(job_keys=[1], attempts=[]))


def test_assignment_without_limits_has_none() -> None:
    taken = convert.assign_of(assign(1, "x"), OPERATIONS)
    assert (taken.run_timeout_us, taken.total_remaining_us, taken.exclusive) == (0, 0, False)
    assert convert.job_of(taken).remaining_s() is None


def test_assignment_keeps_its_limits_and_gives_the_shorter_one_to_the_handler() -> None:
    wire = assign(1, "x")
    wire.run_timeout.CopyFrom(duration(60))
    wire.total_remaining.CopyFrom(duration(30.5))
    taken = convert.assign_of(wire, OPERATIONS)
    assert (taken.run_timeout_us, taken.total_remaining_us) == (60_000_000, 30_500_000)
    remaining_s = convert.job_of(taken).remaining_s()
    assert remaining_s is not None
    assert 29.0 < remaining_s <= 30.5


def test_total_time_that_is_over_is_a_deadline_and_not_its_absence() -> None:
    wire = assign(1, "x")
    wire.total_remaining.CopyFrom(duration(0))
    assert convert.assign_of(wire, OPERATIONS).total_remaining_us > 0


def test_operation_that_says_so_is_exclusive_whatever_the_broker_says() -> None:
    assert convert.assign_of(assign(1, "lonely"), OPERATIONS).exclusive


@pytest.mark.parametrize(
    ("on_loss", "is_kept_first"),
    [
        (pb.ON_LOSS_UNSPECIFIED, False),
        (pb.ON_LOSS_RETRY, False),
        (pb.ON_LOSS_FAIL, True),
        (pb.ON_LOSS_HOLD, True),
    ],
)
def test_outcome_is_kept_first_when_its_loss_would_fail_or_hold_the_job(
    on_loss: pb.OnLoss.ValueType, is_kept_first: bool
) -> None:
    wire = assign(1, "x")
    wire.on_loss = on_loss
    taken = convert.assign_of(wire, OPERATIONS)
    assert (taken.is_kept_first, taken.exclusive, taken.body) == (is_kept_first, False, wire)


def test_cancel_keeps_its_reason_and_grace() -> None:
    wire = pb.Cancel(job_key=1, attempt=2, reason=pb.CANCEL_REASON_DRAIN_KILL, grace=duration(2.5))
    cancel = convert.cancel_of(wire)
    assert (cancel.job_key, cancel.attempt, cancel.reason, cancel.grace_us) == (1, 2, "drain_kill", 2_500_000)


def test_cancel_for_a_reason_of_a_newer_broker_is_still_a_cancel() -> None:
    newer = pb.Cancel.FromString(b"\x08\x01\x10\x02\x18\x63")
    assert convert.cancel_of(newer).reason == "unknown"


def test_welcome_of_a_broker_that_names_no_idle_interval_has_one() -> None:
    wire = pb.Welcome(epoch=3, heartbeat_interval=duration(2), lease=duration(10), lease_margin=duration(2))
    wire.verdicts.extend([pb.VERDICT_KEEP, pb.VERDICT_STOP])
    welcome = convert.welcome_of(wire)
    assert (welcome.heartbeat_us, welcome.idle_heartbeat_us, welcome.lease_us) == (2_000_000, 5_000_000, 10_000_000)
    assert list(welcome.verdicts) == [Verdict.KEEP, Verdict.STOP]


def test_limits_that_are_not_stated_keep_their_defaults() -> None:
    limits = convert.limits_of(pb.Limits(result_bytes_max=10))
    assert (limits.result_bytes_max, limits.failure_message_bytes_max) == (10, 4_096)
