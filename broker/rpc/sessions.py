"""The writing side of an agent's stream: one writer, what waits is packed into few frames.

Orders wait by class, and a frame takes them in this order: welcome or reject, heartbeat acknowledgement (only the
newest), acknowledged outcomes, cancels, assignments. Assignments are bounded by the agent's capacity, answers because
nothing more is taken from an agent that does not read them (`has_room`), so an agent that never reads costs a bounded
amount and stops nobody else (promise P10).
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from itertools import islice
from typing import Any, Final, TypeVar

import grpc

from broker.dispatch.messages import (
    AcceptOutcome,
    AssignJob,
    CancelAttempt,
    DrainAgent,
    EndSession,
    FinishDrain,
    RefuseOutcome,
    RejectAgent,
    Send,
    SetPrefetch,
    StopReason,
    UndrainAgent,
    WelcomeAgent,
)
from broker.dispatch.model import AgentNo, JobKey, OnLoss, SessionId
from broker.observe.traffic import NOT_LATEST, Traffic
from broker.rpc.agent_convert import (
    CANCEL_REASONS,
    ON_LOSS,
    drain_done_of,
    drain_of,
    duration_of,
    group_settings_of,
    undrain_of,
)
from broker.store.base import Body
from protos.mesh.v1 import agent_service_pb2 as agent_pb

ASSIGN_BYTES: Final = 384
"""What an assignment costs on the wire besides its contents, at most: identifiers, names, durations."""
ENTRY_BYTES: Final = 8
"""What an entry of its metadata costs besides key and value."""
ROOM_FRAMES: Final = 4
"""Answers of so many full frames may wait for the agent to read them."""

OrderT = TypeVar("OrderT")

END_CODES: Final = {
    "superseded": (grpc.StatusCode.ABORTED, "SUPERSEDED: a newer stream of this agent has taken over"),
    "taken_over": (
        grpc.StatusCode.ABORTED,
        "SUPERSEDED: another process with the name of this agent has connected; end one, or give it another name",
    ),
    "disabled": (grpc.StatusCode.FAILED_PRECONDITION, "AGENT_DISABLED: an operator disabled this agent"),
    "removed": (grpc.StatusCode.PERMISSION_DENIED, "REMOVED: an operator removed this agent from its group"),
    "overloaded": (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "OVERLOADED: answers were not read for a whole lease; read the stream, then connect again",
    ),
    "not_owner": (grpc.StatusCode.UNAVAILABLE, "NOT_OWNER: another broker has taken over the group; connect again"),
    "failed": (grpc.StatusCode.INTERNAL, "FAILED: an order could not be written, see the broker's log; connect again"),
    "silent": (grpc.StatusCode.DEADLINE_EXCEEDED, "SILENT: nothing was heard for a whole lease; connect again"),
}


class Session:
    """One stream of one agent, as the engine and the reader see it: an `Outbox` that writes by itself.

    `welcome` makes the Welcome of a WelcomeAgent. `ended` is set when the dispatcher ends the session; `ending` says
    then how. Whoever serves the stream ends it, not the writer: that may stand still because the agent does not read.
    """

    def __init__(
        self,
        session: SessionId,
        agent: AgentNo,
        epoch: int,
        *,
        frame_jobs_max: int,
        frame_bytes_max: int,
        now_us: Callable[[], int],
        welcome: Callable[[WelcomeAgent], agent_pb.Welcome],
        traffic: Traffic,
    ) -> None:
        self.traffic = traffic
        self.session = session
        self.agent = agent
        self.epoch = epoch
        self.is_rejected = False
        self.futile = 0
        """How many reports were refused, of attempts that the agent does not have (any more)."""
        self.ended = asyncio.Event()
        self.ending: tuple[grpc.StatusCode, str] | None = None
        self._jobs_max = frame_jobs_max
        self._bytes_max = frame_bytes_max
        self._now_us = now_us
        self._welcome = welcome
        self._ready = asyncio.Event()
        self._room = asyncio.Event()
        self._first: deque[agent_pb.BrokerFrame] = deque()
        self._last: agent_pb.BrokerFrame | None = None
        self._is_over = False
        self._heartbeat = 0
        self._accepted: deque[AcceptOutcome] = deque()
        self._refused: deque[RefuseOutcome] = deque()
        self._cancels: deque[CancelAttempt] = deque()
        self._assigns: dict[tuple[JobKey, int], tuple[AssignJob, Body, bytes]] = {}

    @property
    def backlog(self) -> int:
        """Assignments that were ordered and not handed to gRPC yet."""
        return len(self._assigns)

    @property
    def unread(self) -> int:
        """Everything but assignments that was ordered and not handed to gRPC yet."""
        return len(self._first) + len(self._accepted) + len(self._refused) + len(self._cancels)

    @property
    def is_taken_over(self) -> bool:
        """Whether another process with the name of the agent has ended it."""
        return self.ending == END_CODES["taken_over"]

    @property
    def has_room(self) -> bool:
        """Whether the agent may say more: each thing that it says may be answered."""
        return self.unread < ROOM_FRAMES * self._jobs_max

    async def wait_for_room(self) -> None:
        """Return when there is room."""
        while not self.has_room:
            self._room.clear()
            await self._room.wait()

    # --- what is to be written --------------------------------------------------------------------------------------

    def deliver(self, send: Send) -> None:
        """Queue an order that carries no payload."""
        HANDLERS[type(send)](self, send)
        self._ready.set()

    def assign(self, order: AssignJob, payload: Body, checkpoint: bytes) -> None:
        """Queue an assignment with its payload."""
        self._assigns[order.job_key, order.attempt] = (order, payload, checkpoint)
        self._ready.set()

    def acknowledge(self, heartbeat_seq: int) -> None:
        """Answer a heartbeat, at the edge: no engine, no commit."""
        self._heartbeat = heartbeat_seq
        self._ready.set()

    def resync(self, reason: str) -> None:
        """Ask for Hello again on this stream."""
        self._first.append(agent_pb.BrokerFrame(resync=agent_pb.Resync(reason=reason)))
        self._ready.set()

    def go_away(self, reason: str) -> None:
        """Say GoAway as the last frame; the writer ends after it."""
        self._last = agent_pb.BrokerFrame(go_away=agent_pb.GoAway(reason=reason))
        self._ready.set()

    def _cancel(self, order: CancelAttempt) -> None:
        # An unsent assignment needs not be sent; the agent answers the cancel of an attempt it does not know.
        self._assigns.pop((order.job_key, order.attempt), None)
        self._cancels.append(order)
        if order.reason == StopReason.SUPERSEDED:
            self.traffic.refused[NOT_LATEST] += 1
            self.futile += 1

    def _refuse(self, order: RefuseOutcome) -> None:
        self._refused.append(order)
        self.futile += 1

    def _begin(self, order: WelcomeAgent) -> None:
        # What was ordered before this Hello was worked and has not left: the dispatcher has taken it back with it.
        self._assigns.clear()
        self.traffic.refused[NOT_LATEST] += order.keep.count(False)
        self._first.append(agent_pb.BrokerFrame(welcome=self._welcome(order)))

    def _reject(self, order: RejectAgent) -> None:
        self.reject(order.code, order.text, order.retry_after_us)

    def reject(self, code: str, text: str, retry_after_us: int) -> None:
        """Say why the session does not come about, as the last frame."""
        self.is_rejected = True
        self._last = agent_pb.BrokerFrame(
            reject=agent_pb.Reject(
                code=agent_pb.RejectCode.Value(f"REJECT_CODE_{code}"),
                reason=text,
                retry_after=duration_of(retry_after_us),
                should_retry=retry_after_us > 0,
            )
        )
        self._ready.set()

    def end(self, reason: str) -> None:
        """Have the stream ended; `reason` is a key of `END_CODES`."""
        self.ending = END_CODES[reason]
        self.ended.set()

    def leave(self) -> None:
        """Write nothing after the frame that is being written: the call must not end in the middle of one."""
        self._is_over = True
        self._ready.set()

    # --- the writer -------------------------------------------------------------------------------------------------

    async def write(self, write: Callable[[agent_pb.BrokerFrame], Awaitable[None]]) -> None:
        """Write frames until the stream ends or the last frame is out. What gathers meanwhile shares the next frame."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            while not self._is_over and (frame := self._pack()) is not None:
                await write(frame)
                self.traffic.sent += 1
            if self._is_over:
                return
            if self._last is not None:
                await write(self._last)
                self.traffic.sent += 1
                return

    def _pack(self) -> agent_pb.BrokerFrame | None:
        """The next frame, or None if nothing waits."""
        if self._first:
            frame = self._first.popleft()
        else:
            frame = agent_pb.BrokerFrame()
            used = self._pack_acknowledgements(frame) + self._pack_cancels(frame) + self._pack_assigns(frame)
            if not used:
                return None
        if self.has_room:
            self._room.set()
        return frame

    def _pack_acknowledgements(self, frame: agent_pb.BrokerFrame) -> int:
        """At most a frame's jobs of each kind: what does not fit goes into the next one."""
        used = 0
        if self._heartbeat:
            frame.heartbeat_ack.seq, frame.heartbeat_ack.epoch = self._heartbeat, self.epoch
            self._heartbeat = 0
            used += 1
        accepted = _taken(self._accepted, self._jobs_max)
        if accepted:
            frame.outcomes_accepted.job_keys.extend([one.job_key for one in accepted])
            frame.outcomes_accepted.attempts.extend([one.attempt for one in accepted])
        refused = _taken(self._refused, self._jobs_max)
        for one in refused:
            frame.outcomes_refused.add(job_key=one.job_key, attempt=one.attempt, reason=one.reason)
            self.traffic.refused[one.reason] += 1
        return used + len(accepted) + len(refused)

    def _pack_cancels(self, frame: agent_pb.BrokerFrame) -> int:
        cancels = _taken(self._cancels, self._jobs_max)
        for order in cancels:
            frame.cancels.add(
                job_key=order.job_key,
                attempt=order.attempt,
                reason=CANCEL_REASONS.get(order.reason, agent_pb.CANCEL_REASON_UNSPECIFIED),
                grace=duration_of(order.grace_us),
            )
        return len(cancels)

    def _pack_assigns(self, frame: agent_pb.BrokerFrame) -> int:
        used = used_bytes = 0
        for attempt, (order, payload, checkpoint) in self._assigns.items():
            size = _assign_bytes(payload, checkpoint)
            if used and (used >= self._jobs_max or used_bytes + size > self._bytes_max):
                break
            used += 1
            used_bytes += size
            self._add_assign(frame, attempt, order, payload, checkpoint)
        for attempt in list(islice(self._assigns, used)):
            del self._assigns[attempt]
        return used

    def _add_assign(
        self,
        frame: agent_pb.BrokerFrame,
        attempt: tuple[JobKey, int],
        order: AssignJob,
        payload: Body,
        checkpoint: bytes,
    ) -> None:
        message = frame.assigns.add(
            job_key=attempt[0],
            attempt=attempt[1],
            job_id=order.job_id,
            operation=order.operation,
            payload=payload.content,
            content_type=payload.content_type,
        )
        if order.run_timeout_us:
            message.run_timeout.CopyFrom(duration_of(order.run_timeout_us))
        if order.total_by_us:
            message.total_remaining.CopyFrom(duration_of(max(0, order.total_by_us - self._now_us())))
        if payload.metadata:
            message.metadata.update(payload.metadata)
        if checkpoint:
            message.checkpoint = checkpoint
        if order.exclusive:
            message.exclusive = True
        if order.on_loss is not OnLoss.RETRY:
            message.on_loss = ON_LOSS[order.on_loss]


def _tell(frame_of: Callable[[Any], agent_pb.BrokerFrame]) -> Callable[[Session, Any], None]:
    """A frame of its own, before what is packed."""
    return lambda session, order: session._first.append(frame_of(order))


# Not a table of each session: it would know the session that knows it, and only the collector could take them away.
HANDLERS: Final[dict[type[Send], Callable[[Session, Any], None]]] = {
    AcceptOutcome: lambda session, order: session._accepted.append(order),
    RefuseOutcome: Session._refuse,
    CancelAttempt: Session._cancel,
    WelcomeAgent: Session._begin,
    RejectAgent: Session._reject,
    EndSession: lambda session, order: session.end(order.reason),
    DrainAgent: _tell(drain_of),
    SetPrefetch: _tell(group_settings_of),
    UndrainAgent: _tell(undrain_of),
    FinishDrain: _tell(drain_done_of),
}


def _taken(waiting: deque[OrderT], most: int) -> list[OrderT]:
    """What waited longest, taken out."""
    return [waiting.popleft() for _ in range(min(most, len(waiting)))]


def _assign_bytes(payload: Body, checkpoint: bytes) -> int:
    size = ASSIGN_BYTES + len(payload.content) + len(checkpoint)
    for key, value in payload.metadata:
        size += ENTRY_BYTES + len(key.encode()) + len(value.encode())
    return size
