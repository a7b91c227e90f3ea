"""The writing side of a session, and its tables against what the dispatcher can say."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import get_args

import pytest

from broker import dispatch
from broker.dispatch.messages import (
    AcceptOutcome,
    AssignJob,
    CancelAttempt,
    RefuseOutcome,
    Send,
    StopReason,
)
from broker.dispatch.model import AgentNo, JobKey, SessionId
from broker.observe.traffic import Traffic
from broker.rpc.agent_convert import CANCEL_REASONS
from broker.rpc.sessions import END_CODES, HANDLERS, Session
from broker.store.base import Body
from protos.mesh.v1 import agent_service_pb2 as pb

NUMBER = SessionId(1)


def session(*, jobs_max: int = 4, bytes_max: int = 10_000) -> Session:
    return Session(
        NUMBER,
        AgentNo(1),
        1,
        frame_jobs_max=jobs_max,
        frame_bytes_max=bytes_max,
        now_us=lambda: 0,
        welcome=lambda order: pb.Welcome(session_id=order.session),
        traffic=Traffic(),
    )


def assign(key: int) -> AssignJob:
    return AssignJob(NUMBER, JobKey(key), 1, b"i" * 16, "echo", 0, 0, exclusive=False)


async def written(writing: Session) -> list[pb.BrokerFrame]:
    """All frames, with GoAway as the last one."""
    frames: list[pb.BrokerFrame] = []

    async def write(frame: pb.BrokerFrame) -> None:
        frames.append(frame)

    writing.go_away("the test is over")
    await writing.write(write)
    assert frames.pop().HasField("go_away")
    return frames


# --- tables ---------------------------------------------------------------------------------------------------------


def test_session_handles_every_order_of_the_dispatcher() -> None:
    assert {*HANDLERS, AssignJob} == set(get_args(Send))


def test_session_knows_how_to_end_for_every_reason_of_the_dispatcher() -> None:
    calls = [
        call
        for path in Path(dispatch.__path__[0]).glob("*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "EndSession"
    ]
    reasons = [call.args[1] for call in calls]
    words = {reason.value for reason in reasons if isinstance(reason, ast.Constant)}
    assert len(words) >= 4
    assert all(isinstance(reason, ast.Constant) for reason in reasons)
    assert words <= set(END_CODES)


def test_cancel_has_a_reason_of_its_own_for_every_reason_to_stop() -> None:
    reasons = {value for name, value in vars(StopReason).items() if name.isupper()}
    assert set(CANCEL_REASONS) == reasons
    assert len(set(CANCEL_REASONS.values())) == len(reasons)
    assert pb.CANCEL_REASON_UNSPECIFIED not in CANCEL_REASONS.values()


# --- frames are bounded ---------------------------------------------------------------------------------------------


async def test_frame_holds_no_more_of_a_kind_than_it_may() -> None:
    writing = session(jobs_max=4)
    for key in range(10):
        writing.deliver(AcceptOutcome(NUMBER, JobKey(key), 1))
        writing.deliver(RefuseOutcome(NUMBER, JobKey(100 + key), 1, "final"))
        writing.deliver(CancelAttempt(NUMBER, JobKey(200 + key), 1, StopReason.REQUESTED, 0))
        writing.assign(assign(300 + key), Body(b""), b"")
    frames = await written(writing)
    assert [len(frame.outcomes_accepted.job_keys) for frame in frames] == [4, 4, 2]
    assert [len(frame.outcomes_refused) for frame in frames] == [4, 4, 2]
    assert [len(frame.cancels) for frame in frames] == [4, 4, 2]
    assert [len(frame.assigns) for frame in frames] == [4, 4, 2]
    assert [key for frame in frames for key in frame.outcomes_accepted.job_keys] == list(range(10))
    assert [one.job_key for frame in frames for one in frame.assigns] == list(range(300, 310))


@pytest.mark.parametrize(
    "payload",
    [
        Body(b"x" * 2_000, "t" * 128),
        Body(b"", "t" * 128, tuple((f"{number:064}", "ü" * 60) for number in range(10))),
    ],
)
async def test_frame_holds_no_more_bytes_of_assignments_than_it_may(payload: Body) -> None:
    writing = session(jobs_max=512, bytes_max=10_000)
    for key in range(30):
        writing.assign(assign(2**62 + key), payload, b"")
    frames = await written(writing)
    assert sum(len(frame.assigns) for frame in frames) == 30
    assert all(len(frame.assigns) > 1 for frame in frames)
    assert max(frame.ByteSize() for frame in frames) <= 10_000


async def test_assignment_larger_than_a_frame_goes_alone() -> None:
    writing = session(bytes_max=10_000)
    for key in range(3):
        writing.assign(assign(key), Body(b"x" * 11_000), b"")
    assert [len(frame.assigns) for frame in await written(writing)] == [1, 1, 1]


# --- room -----------------------------------------------------------------------------------------------------------


async def test_session_has_room_again_when_its_answers_were_written() -> None:
    answering = session(jobs_max=4)
    for key in range(16):
        assert answering.has_room
        answering.deliver(AcceptOutcome(NUMBER, JobKey(key), 1))
    assert not answering.has_room
    waiting = asyncio.create_task(answering.wait_for_room())
    await asyncio.sleep(0)
    assert not waiting.done()
    await written(answering)
    await waiting
    assert (answering.has_room, answering.unread) == (True, 0)


def test_session_that_is_full_of_assignments_still_has_room() -> None:
    writing = session(jobs_max=4)
    for key in range(100):
        writing.assign(assign(key), Body(b""), b"")
    assert (writing.has_room, writing.backlog, writing.unread) == (True, 100, 0)
