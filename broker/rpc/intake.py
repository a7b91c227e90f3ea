"""The reading side of an agent's stream: heartbeats are always read, everything else only while there is room.

The agent's lease rests on its heartbeats, so nothing holds up their reading for longer than the time between two of
them: neither the store, nor a full mailbox, nor an agent that does not read its answers. What is in the way is dropped
then, which loses nothing, because the agent keeps what is not acknowledged; `Resync` asks for it as soon as the store
and the agent take part again, and it is the agent's turn: thousands may have missed something. The Hello that was asked
for is always taken in, because the agent says no other before it is answered. An agent that makes no room for its
answers for a whole lease is cut off.

A stream that ends says nothing (finding 5): only Goodbye is a clean leave, and it is never dropped.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from typing import Final

from broker.control.presence import Stuck
from broker.dispatch.messages import AttemptId, Event
from broker.dispatch.model import SECOND_US, GroupNo, JobKey
from broker.engine import Engine
from broker.errors import MalformedError
from broker.rpc.admission import Admission
from broker.rpc.agent_convert import AgentFrames, attempts_of
from broker.rpc.room import Room
from broker.rpc.sessions import Session
from broker.rpc.turns import FUTILE, Turns
from broker.settings import LimitSettings
from protos.mesh.v1 import agent_service_pb2 as agent_pb

Frames = AsyncIterator[agent_pb.AgentFrame]
STUCK_MAX: Final = 64
"""Of so many stuck attempts of an agent it is known which."""


class Intake:
    """Takes in the frames of one session."""

    def __init__(
        self,
        engine: Engine,
        admission: Admission,
        turns: Turns,
        group: GroupNo,
        session: Session,
        frames: AgentFrames,
        limits: LimitSettings,
        stuck: Callable[[Stuck], None],
    ) -> None:
        self._engine = engine
        self._admission = admission
        self._turns = turns
        self._group = group
        self._session = session
        self._frames = frames
        self._jobs_max = limits.frame_jobs_max
        self._room = Room(limits.frame_jobs_max, limits.message_bytes_max)
        self._tell_stuck = stuck
        self._stuck: Stuck = frozenset()
        self._patience_s = engine.policy.heartbeat_us / SECOND_US
        self._lease_s = engine.policy.lease_us / SECOND_US
        self._is_asked = False
        self._missed = ""
        self._turn: asyncio.TimerHandle | None = None  # when Hello is asked for
        self._full_since_s = 0.0
        self._futile = 0  # refused, and paid for

    async def read(self, first: agent_pb.AgentFrame, requests: Frames) -> None:
        """Take in the first frame, which holds Hello, and all that follows, until Goodbye or the end.

        Raises MalformedError. The first frame may wait for as long as it takes: no lease has begun yet.
        """
        self._session.traffic.received += 1
        self._answer_heartbeat(first)
        await self._engine.control(self._group, self._frames.hello(first.hello))
        await self._deliver(first)
        if self._take_goodbye(first):
            return
        try:
            async for frame in requests:
                self._session.traffic.received += 1
                self._engine.heard(self._group, self._session.agent, self._session.session)
                self._answer_heartbeat(frame)
                await self._take(frame)
                if self._take_goodbye(frame):
                    return
        finally:
            if self._turn is not None:
                self._turn.cancel()

    async def _take(self, frame: agent_pb.AgentFrame) -> None:
        if frame.HasField("hello"):
            self._take_asked(frame.hello)
        if self._is_blocked():
            self._miss(frame)
            return
        if self._missed and self._turn is None:
            self._ask_in_turn()
        if _says_more_than_hello(frame):
            try:
                async with asyncio.timeout(self._patience_s):
                    await self._deliver(frame)
            except TimeoutError:
                self._miss(frame)

    def _ask_in_turn(self) -> None:
        """Ask for Hello when it can be let in. Until then what the agent says counts as always."""
        turn = self._admission.turn()
        ask = self._ask if turn.is_booked else self._ask_in_turn
        self._turn = asyncio.get_running_loop().call_later(turn.in_s, ask)

    def _ask(self) -> None:
        self._turn = None
        if self._session.has_room and not self._engine.is_stalled:  # else a later frame takes another turn
            self._is_asked = True
            self._session.resync(self._missed)
            self._missed = ""

    def _take_asked(self, hello: agent_pb.Hello) -> None:
        """In the queue also while the store is away: one for each turn, and dropped it would never be answered."""
        if not self._is_asked:
            raise MalformedError("Hello is said once on a stream, and again only when `resync` asks for it")
        self._is_asked = False
        self._engine.post(self._group, self._frames.hello(hello))

    def _is_blocked(self) -> bool:
        """Whether nothing can be taken in now, without waiting. Ends the session if that is the agent's own doing."""
        if self._session.has_room:
            self._full_since_s = 0.0
            return self._engine.is_stalled
        now_s = time.monotonic()
        self._full_since_s = self._full_since_s or now_s
        if now_s - self._full_since_s >= self._lease_s:
            self._session.end("overloaded")
        return True

    def _miss(self, frame: agent_pb.AgentFrame) -> None:
        if _says_more_than_hello(frame) and not self._is_asked:  # else the Hello to come says it
            self._missed = "the store was away" if self._engine.is_stalled else "the broker had no room"

    async def _deliver(self, frame: agent_pb.AgentFrame) -> None:
        """What a frame says beside Hello, to the engine: a slice at a time, so that one overshoots no bound by much."""
        await self._turns.take(self._session.session, _reports_in(frame) + self._price_of_futile())
        events = self._frames.events(frame)
        size = frame.ByteSize() if events else 0
        for start in range(0, len(events), self._jobs_max):
            await self._session.wait_for_room()
            part = events[start : start + self._jobs_max]
            await self._report(part, size * len(part) // len(events))

    def _price_of_futile(self) -> int:
        """What was refused since it was asked last, in reports."""
        news, self._futile = self._session.futile - self._futile, self._session.futile
        return FUTILE * news

    async def _report(self, events: Sequence[Event], size: int) -> None:
        """One slice, once the engine has taken enough of those before it: the queue is never long by one agent."""
        await self._room.enter(len(events), size)
        leave = partial(self._room.leave, len(events), size)
        try:
            await self._engine.report(self._group, events, leave, self._session.session)
        except BaseException:
            leave()
            raise

    def _answer_heartbeat(self, frame: agent_pb.AgentFrame) -> None:
        if frame.HasField("heartbeat"):
            self._session.acknowledge(frame.heartbeat.seq)
            if self._stuck or frame.heartbeat.HasField("stuck"):
                self._note_stuck(frame.heartbeat)

    def _note_stuck(self, heartbeat: agent_pb.Heartbeat) -> None:
        stuck = frozenset(AttemptId(JobKey(key), attempt) for key, attempt in attempts_of(heartbeat.stuck)[:STUCK_MAX])
        if stuck != self._stuck:
            self._stuck = stuck
            self._tell_stuck(stuck)

    def _take_goodbye(self, frame: agent_pb.AgentFrame) -> bool:
        """Whether it was said: one a stream, so it needs not wait for room."""
        if not frame.HasField("goodbye"):
            return False
        # In the queue of the stream's end, or that would overtake it and a clean leave would look like a loss.
        self._engine.post(self._group, self._frames.goodbye())
        return True


def _reports_in(frame: agent_pb.AgentFrame) -> int:
    return len(frame.accepted.job_keys) + len(frame.started.job_keys) + len(frame.progress) + len(frame.outcomes)


def _says_more_than_hello(frame: agent_pb.AgentFrame) -> bool:
    return len(frame.ListFields()) > frame.HasField("heartbeat") + frame.HasField("hello")
