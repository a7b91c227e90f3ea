from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from broker.dispatch.messages import JobSubmitted
from broker.dispatch.model import OperationPolicy
from broker.errors import MalformedError
from broker.rpc.job_convert import TIME_MAX_US, submission_of, uuid_text
from broker.store.base import Body
from protos.mesh.v1 import job_service_pb2 as pb
from tests.broker.running import echo

NOW_US = 1_700_000_000_000_000
POLICY = OperationPolicy(no=1)


def submitted(spec: pb.JobSpec) -> JobSubmitted:
    return submission_of(spec, 1, POLICY, 0, NOW_US, 1_000)


def test_submission_has_all_that_was_said() -> None:
    spec = echo(
        job_id=b"i" * 16,
        payload=b"p",
        content_type="text/plain",
        priority=5,
        labels={"b": "2", "a": "1"},
        fairness_key="f",
        idempotency_key="k",
        metadata={"y": "2", "x": "1"},
        delay=Duration(seconds=1, nanos=1),
        schedule_to_start=Duration(seconds=2),
        run_timeout=Duration(seconds=3),
        total_timeout=Duration(seconds=4),
    )
    event = submission_of(spec, 9, POLICY, 7, NOW_US, 1_000)
    assert event.ticket == 9
    assert (event.job_id, event.operation, event.policy) == (b"i" * 16, "echo", POLICY)
    assert (event.labels, event.level, event.fairness) == (("a=1", "b=2"), 5, "f")
    assert (event.environment_no, event.payload_bytes, event.idempotency_key) == (7, 1, "k")
    assert (event.delay_us, event.schedule_to_start_us) == (1_000_001, 2_000_000)
    assert (event.run_timeout_us, event.total_timeout_us) == (3_000_000, 4_000_000)
    assert event.body == Body(b"p", "text/plain", (("x", "1"), ("y", "2")))


def test_submission_without_an_id_gets_one_of_version_seven() -> None:
    first, second = submitted(echo()), submitted(echo())
    assert UUID(bytes=first.job_id).version == 7
    assert first.job_id != second.job_id


def test_submission_of_normal_priority_is_level_three() -> None:
    assert (submitted(echo()).level, submitted(echo(priority=1)).level) == (3, 1)


PLAIN = dict[str, object](payload=b"p", content_type="text/plain", priority=2, fairness_key="f")
RARE = PLAIN | {
    "labels": {"a": "1", "b": "2"},
    "metadata": {"x": "1"},
    "delay": Duration(seconds=1),
    "schedule_to_start": Duration(seconds=1),
    "run_timeout": Duration(seconds=1),
    "total_timeout": Duration(seconds=1),
}


def test_digest_is_the_one_that_earlier_versions_wrote() -> None:
    """Stored digests are compared for days after an upgrade: these bytes must never change."""
    assert submitted(echo()).digest.hex() == "cb90b67287ca25d219478ad9e1b8d690"
    assert submitted(echo(**PLAIN)).digest.hex() == "21b1ddf26bced1460c77adf9cf17f1b7"
    assert submitted(echo(**RARE)).digest.hex() == "bfeb895038f11aaf8b16993b9d4da533"


@pytest.mark.parametrize("said", [PLAIN, RARE])
def test_digest_differs_when_any_part_of_the_content_does(said: dict[str, Any]) -> None:
    other: dict[str, object] = {
        "payload": b"q",
        "content_type": "text/html",
        "priority": 4,
        "fairness_key": "g",
        "labels": {"a": "1", "b": "3"},
        "metadata": {"x": "2"},
    }
    times = ("delay", "schedule_to_start", "run_timeout", "total_timeout")
    other |= dict.fromkeys(times, Duration(seconds=2)) | {"start_at": Timestamp(seconds=1)}
    if "delay" in said:
        del other["start_at"]
    specs = [echo(**said), *(echo(**(said | {name: value})) for name, value in other.items())]
    specs.append(pb.JobSpec(operation="other", **said))
    assert len({submitted(spec).digest for spec in specs}) == len(specs)


def test_digest_does_not_confuse_what_stands_side_by_side() -> None:
    assert (
        submitted(echo(fairness_key="ab", content_type="c")).digest
        != submitted(echo(fairness_key="a", content_type="bc")).digest
    )
    assert submitted(echo(content_type="a", payload=b"b")).digest != submitted(echo(content_type="a\nb")).digest


def test_digest_is_the_same_whatever_the_id_the_key_and_the_order_are() -> None:
    one = submitted(echo(job_id=b"1" * 16, idempotency_key="k", labels={"a": "1", "b": "2"}))
    two = submitted(echo(job_id=b"2" * 16, idempotency_key="l", labels={"b": "2", "a": "1"}))
    assert one.digest == two.digest


def test_start_is_a_delay_from_now_and_none_when_it_is_past() -> None:
    assert submitted(echo(start_at=Timestamp(seconds=1_700_000_010, nanos=1_999))).delay_us == 10_000_001
    assert submitted(echo(start_at=Timestamp(seconds=1))).delay_us == 0


@pytest.mark.parametrize(
    ("field", "duration"),
    [
        ("delay", Duration(seconds=-1)),
        ("run_timeout", Duration(seconds=TIME_MAX_US // 1_000_000, nanos=1)),
        ("total_timeout", Duration(nanos=1_000_000_000)),
        ("schedule_to_start", Duration(seconds=1, nanos=-1)),
    ],
)
def test_duration_that_is_none_is_refused_by_name(field: str, duration: Duration) -> None:
    with pytest.raises(MalformedError) as caught:
        submitted(echo(**{field: duration}))
    assert (caught.value.reason, caught.value.details["field"]) == ("TIME_OUT_OF_RANGE", field)


def test_shortest_and_longest_duration_are_kept() -> None:
    assert submitted(echo(run_timeout=Duration(nanos=1))).run_timeout_us == 1
    longest = Duration(seconds=TIME_MAX_US // 1_000_000)
    assert submitted(echo(total_timeout=longest)).total_timeout_us == TIME_MAX_US


def test_id_has_the_canonical_form() -> None:
    job_id = bytes(range(16))
    assert uuid_text(job_id) == str(UUID(bytes=job_id))
