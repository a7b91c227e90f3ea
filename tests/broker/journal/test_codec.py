"""Events come back as they were; effects have one digest; bytes of customers are never written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AgentsHeard,
    AttemptFinished,
    AttemptId,
    DrainRequested,
    Effects,
    Event,
    GroupConfigured,
    JobAccepted,
    JobSubmitted,
    KnownJob,
    LabelsSet,
    Reply,
)
from broker.dispatch.model import (
    AgentNo,
    DrainEnd,
    DrainThen,
    GroupNo,
    JobKey,
    OnLoss,
    OperationPolicy,
    OutcomeStatus,
    Placing,
    SessionId,
    Spread,
)
from broker.dispatch.rows import RequestRow, Writes
from broker.dispatch.vocabulary import EVENTS, OPAQUE, OTHERS
from broker.journal.codec import SLICE, Codec
from tests.broker.dispatch.course import day

AGENT, SESSION, JOB = AgentNo(3), SessionId(4), JobKey(5)
POLICY = OperationPolicy(no=2, exclusive=True, on_loss=OnLoss.HOLD)
FINISHED = AttemptFinished(AGENT, SESSION, JOB, 2, OutcomeStatus.FENCED, "code", "ünïcode\n", retryable=False)
HELD = AttemptId(JOB, 2)
EXAMPLES: list[Event] = [
    JobSubmitted(1, b"\x00\xff", "work", POLICY, b"d", ("a=b",), known=KnownJob(JOB, b"e"), requeued_from=JOB),
    JobSubmitted(1, b"", "work", POLICY, b""),
    FINISHED,
    AgentConnected(AGENT, SESSION, b"i", 1, 2, 3, 4, frozenset({"x"}), frozenset(), (HELD,), (FINISHED,), (HELD,)),
    AgentsHeard(((AGENT, SESSION, 7), (AgentNo(8), SessionId(9), 10))),
    DrainRequested(1, AGENT, DrainEnd.PAUSE, DrainThen.KILL, 5),
    GroupConfigured(1, Spread.SPILL, refuses_inactive=True),
    GroupConfigured(1, Spread.BALANCED, refuses_inactive=False, placing=Placing.RANDOM, queue_jobs_max=7),
    LabelsSet(1, AGENT, ("disk=ssd", "zone=north"), "ann"),
    AgentAdded(1, AGENT, "a1", 2, ("zone=north",), RequestRow(1, "id", b"\x01", "agent", GroupNo(3), 4, 5)),
    AgentAdded(1, AGENT, "a1"),
]


@pytest.fixture
def codec() -> Codec:
    return Codec(EVENTS, OTHERS, OPAQUE)


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda event: type(event).__name__)
def test_event_is_read_as_it_was_written(codec: Codec, event: Event) -> None:
    found = codec.event(json.loads(codec.text(event)))
    assert found == event
    assert repr(found) == repr(event)  # types too: an enum and its value are equal


def test_every_event_of_a_course_is_read_as_it_was_written(codec: Codec) -> None:
    events = [event for _, event in day(7).watcher.script if event is not None]
    assert len({type(event) for event in events}) > 6
    assert [codec.event(json.loads(codec.text(event))) for event in events] == events


def test_body_is_not_written_but_that_there_is_one(codec: Codec) -> None:
    event = JobSubmitted(1, b"", "work", POLICY, b"", body=b"secret")
    assert "secret" not in codec.text(event)
    assert b"secret".hex() not in codec.text(event)
    assert codec.event(json.loads(codec.text(event))).body is True


@pytest.mark.parametrize("plain", [[], ["Nothing", 1], ["AgentLeft"], ["AgentLeft", 1, 2, 3], 7, ["SessionClosed", 1]])
def test_event_that_is_none_is_refused(codec: Codec, plain: object) -> None:
    with pytest.raises(ValueError, match="not an event"):
        codec.event(plain)


def test_digest_is_another_when_anything_is_another(codec: Codec) -> None:
    replies: list[Reply] = [JobAccepted(number, JOB) for number in range(3 * SLICE)]
    effects = [
        Effects(),
        Effects(replies=[JobAccepted(1, JOB)]),
        Effects(replies=[JobAccepted(1, JOB, duplicate=True)]),
        Effects(replies=replies),
        Effects(replies=replies[:-1]),
        Effects(writes=Writes(payloads={JOB: b"secret"})),
        Effects(writes=Writes(results={JOB: b"secret"})),
        Effects(writes=Writes(policies=[POLICY])),
    ]
    assert len({codec.digest(one) for one in effects}) == len(effects)


def test_digest_is_the_same_for_other_bytes_of_a_customer(codec: Codec) -> None:
    first, second = (Effects(writes=Writes(payloads={JOB: body})) for body in (b"one", True))
    assert codec.digest(first) == codec.digest(second)


@given(text=st.text(), blob=st.binary(), number=st.integers(0, 2**63))
def test_anything_in_a_text_or_number_comes_back(text: str, blob: bytes, number: int) -> None:
    codec = Codec(EVENTS, OTHERS, OPAQUE)
    event = JobSubmitted(number, blob, text, POLICY, blob, (text,), idempotency_key=text)
    line = codec.text(event)
    assert "\n" not in line
    assert codec.event(json.loads(line)) == event
