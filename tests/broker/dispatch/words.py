"""Effects as short lines of words, with names in the place of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_never

from broker.dispatch.messages import (
    AcceptOutcome,
    AgentNoticed,
    AssignJob,
    CancelAttempt,
    DrainAgent,
    Effects,
    EndSession,
    FinishDrain,
    GroupRemoval,
    JobAccepted,
    Notice,
    RefuseOutcome,
    RejectAgent,
    Reply,
    RequestDone,
    RequestRefused,
    Send,
    SetPrefetch,
    Transition,
    UndrainAgent,
    WelcomeAgent,
)
from broker.dispatch.model import SECOND_US, JobState

if TYPE_CHECKING:
    from tests.broker.dispatch.bench import GroupBench


def replies(bench: GroupBench, effects: Effects) -> list[str]:
    """`accepted`, `accepted again as j1`, `refused JOB_FINAL`, `done cancelled`."""
    return [_reply(bench, reply) for reply in effects.replies]


def _reply(bench: GroupBench, reply: Reply) -> str:
    if isinstance(reply, JobAccepted):
        return f"accepted again as {bench.name(reply.job_key)}" if reply.duplicate else "accepted"
    if isinstance(reply, RequestRefused):
        return f"refused {reply.reason}"
    if isinstance(reply, RequestDone):
        return f"done {reply.state}".rstrip()
    if isinstance(reply, GroupRemoval):
        return f"removing {reply.jobs} jobs, {reply.agents} agents"
    assert_never(reply)


def sends(bench: GroupBench, effects: Effects) -> list[str]:
    """`a: assign j1#1`, `a: welcome keep j1#1`."""
    return [f"{bench.session_name(send.session)}: {_send(bench, send)}" for send in effects.sends]


def _send(bench: GroupBench, send: Send) -> str:  # noqa: PLR0911 - one line for each kind of order
    if isinstance(send, WelcomeAgent):
        return " ".join(("welcome", *("keep" if keep else "stop" for keep in send.keep)))
    if isinstance(send, RejectAgent):
        return f"reject {send.code}"
    if isinstance(send, EndSession):
        return f"end session, {send.reason}"
    if isinstance(send, DrainAgent):
        left = f" in {send.deadline_us / SECOND_US:g} s" if send.deadline_us else ""
        return f"drain to {send.ends}, {send.then}{left}, by {send.actor}: {send.reason}"
    if isinstance(send, SetPrefetch):
        return f"prefetch {send.prefetch:g}"
    if isinstance(send, UndrainAgent):
        return f"undrain, by {send.actor}"
    if isinstance(send, FinishDrain):
        return f"drained to {send.ends}"
    attempt = f"{bench.name(send.job_key)}#{send.attempt}"
    if isinstance(send, AssignJob):
        return f"assign {attempt}" + (" exclusive" if send.exclusive else "")
    if isinstance(send, CancelAttempt):
        return f"cancel {attempt}, {send.reason}, grace {send.grace_us / SECOND_US:g} s"
    if isinstance(send, AcceptOutcome):
        return f"outcome of {attempt} accepted"
    if isinstance(send, RefuseOutcome):
        return f"outcome of {attempt} refused, {send.reason}"
    assert_never(send)


def placements(bench: GroupBench, effects: Effects) -> list[str]:
    """`j1#1 a` for each placement."""
    return [
        f"{bench.name(send.job_key)}#{send.attempt} {bench.session_name(send.session)}"
        for send in effects.sends
        if isinstance(send, AssignJob)
    ]


def notices(bench: GroupBench, effects: Effects) -> list[str]:
    """`j1 queued -> assigned (placed on a)`, `agent a live (connected)`."""
    return [_notice(bench, notice) for notice in effects.notices]


def _notice(bench: GroupBench, notice: Notice) -> str:
    if isinstance(notice, Transition):
        before = f"{notice.from_state} -> " if notice.from_state else ""
        where = f" on {bench.agent_name(notice.agent)}" if notice.to_state is JobState.ASSIGNED else ""
        return f"{bench.name(notice.job_key)} {before}{notice.to_state} ({notice.reason}{where})"
    if isinstance(notice, AgentNoticed):
        by = f" by {notice.actor}" if notice.actor else ""
        return f"agent {bench.agent_name(notice.agent)} {notice.link} ({notice.why}{by})"
    assert_never(notice)
