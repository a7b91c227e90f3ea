"""The agent stream: who calls, who is let in, one reader and one writer, the end of the stream.

Heartbeats are stamped and acknowledged here, without the engine, so a long commit never looks like a dead broker or a
dead agent (`broker.rpc.intake`, `broker.rpc.sessions`).
"""

import asyncio
import itertools
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from functools import partial
from typing import Final

import grpc
import structlog

from broker.control.directory import Directory
from broker.control.presence import Machine
from broker.dispatch.messages import SessionClosed, WelcomeAgent
from broker.dispatch.model import NO_AGENT, NO_SESSION, SECOND_US, AgentNo, GroupNo, SessionId
from broker.engine import Engine
from broker.errors import AgentError, MalformedError, NotFoundError
from broker.observe.traffic import Traffic
from broker.rpc.admission import Admission
from broker.rpc.agent_convert import AgentFrames, duration_of, machine_of, welcome_of
from broker.rpc.intake import Frames, Intake
from broker.rpc.principals import AgentPrincipal, principal_of
from broker.rpc.refusals import REJECT, STREAM_REFUSALS
from broker.rpc.sessions import Session
from broker.rpc.status import end_call
from broker.rpc.turns import Turns
from broker.settings import Settings
from protos.mesh.v1 import agent_service_pb2 as agent_pb
from protos.mesh.v1 import agent_service_pb2_grpc

HELLO_WAIT_S: Final = 5.0
GO_AWAY_WAIT_S: Final = 2.0
END_WAIT_S: Final = 0.5
WAIT_BY: Final = 1 / 2
"""For which part of a lease an agent may wait to be let in: its lease runs from the time when it said Hello."""
LAST_FRAME_WAIT_S: Final = 0.2
"""How long a frame that is being written may take to leave before the call ends; an agent may not read at all."""
RETRY_AFTER_S: Final = {row.code: row.retry_after_s for row in STREAM_REFUSALS if row.comes_as == REJECT}

log = structlog.get_logger()

Context = grpc.aio.ServicerContext[agent_pb.AgentFrame, agent_pb.BrokerFrame]


class AgentService(agent_service_pb2_grpc.AgentServiceServicer):
    """Serves `mesh.v1.AgentService` on the mesh port."""

    def __init__(self, engine: Engine, directory: Directory, settings: Settings, mesh_id: str, turns: Turns) -> None:
        self._engine = engine
        self._turns = turns
        self._directory = directory
        self._settings = settings
        self._mesh_id = mesh_id
        self._grace_us = settings.dispatch.operation_policy().cancel_grace_us
        self._admission = Admission(settings.limits.hellos_per_s, engine.policy.lease_us / SECOND_US * WAIT_BY)
        self._numbers = itertools.count(1)
        self.traffic: defaultdict[GroupNo, Traffic] = defaultdict(Traffic)
        """What passes on the streams, by group."""
        self._sessions: dict[SessionId, Session] = {}
        self._emptied = asyncio.Event()
        self._leaving = ""

    @property
    def count(self) -> int:
        """Live sessions."""
        return len(self._sessions)

    @property
    def sessions(self) -> tuple[Session, ...]:
        """The live ones."""
        return tuple(self._sessions.values())

    async def go_away(self, reason: str) -> None:
        """Tell every agent to leave, as the last frame, and wait a little for the frames to be written.

        An agent that does not read does not hear it: whoever closes the port ends its stream.
        """
        self._leaving = reason
        self._emptied.clear()
        for session in self._sessions.values():
            session.go_away(reason)
        if self._sessions:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), GO_AWAY_WAIT_S)

    async def Connect(  # type: ignore[override]  # writes by context.write, which the stubs do not know
        self, request_iterator: Frames, context: Context
    ) -> None:
        """One stream of one agent, from Hello to its end."""
        principal = principal_of(context)
        first = await self._first_frame(request_iterator)
        session_no = SessionId(next(self._numbers))
        refusal = self._refusal(principal, first.hello) or await self._refusal_in_turn(principal, first.hello)
        if refusal is not None:
            await context.write(agent_pb.BrokerFrame(reject=refusal))
            return
        group = self._directory.group(principal.organisation, principal.group).group_no
        agent = await self._ensure_agent(group, principal.agent, first)
        session = self._session(session_no, group, agent, machine_of(first.hello, context.peer()))
        intake = self._intake(group, session)
        log.debug("session.began", agent=principal.agent, session=session_no, peer=context.peer())
        self._sessions[session_no] = session
        self._engine.attach(group, session_no, session)
        try:
            if self._leaving:  # said while this session began
                session.go_away(self._leaving)
            # Else the first frame takes the head of the answer along, and an end that comes while it waits would send
            # the head again: gRPC refuses that, and the agent would never hear that its stream has ended.
            await context.send_initial_metadata(())
            reading = intake.read(first, request_iterator)
            await self._serve(reading, context, session)
        except grpc.aio.InternalError:
            log.debug("session.broke", session=session_no)  # something could not be written: the peer is gone
        finally:
            del self._sessions[session_no]
            if not self._sessions:
                self._emptied.set()
            self._engine.detach(session_no)
            self._directory.presence.note_stuck(session_no, frozenset())
            if not self._leaving:
                # A stop is ours, not the agent's: it comes back to the next broker with what it holds. What it has
                # not accepted yet would go to another agent at once, and run twice.
                self._engine.post(group, SessionClosed(agent, session_no))
            log.debug("session.ended", agent=principal.agent, session=session_no)
        if session.is_taken_over:
            log.warning("agent.taken_over", agent=principal.agent, group=principal.group, peer=context.peer())
        if session.ending is not None:
            await _end(context, *session.ending)

    async def _first_frame(self, frames: Frames) -> agent_pb.AgentFrame:
        try:
            async with asyncio.timeout(HELLO_WAIT_S):
                first = await anext(frames)
        except TimeoutError as error:
            raise AgentError(f"no Hello within {HELLO_WAIT_S:g} s; send it as the first frame") from error
        except StopAsyncIteration as error:
            raise AgentError("the stream was closed before its Hello; send it as the first frame") from error
        if not first.HasField("hello"):
            raise MalformedError("the first frame of a stream must hold `hello`")
        return first

    def _refusal(self, principal: AgentPrincipal, hello: agent_pb.Hello) -> agent_pb.Reject | None:
        """Session rows a and b, as far as they are decided before the dispatcher."""
        if self._leaving:
            return _reject("STOPPING", "this broker is stopping")
        if self._engine.is_stalled:
            return _reject("STORE_UNAVAILABLE", "the store is not available")
        if hello.mesh_id not in ("", self._mesh_id) and (hello.held.job_keys or hello.outcomes):
            return _reject("WRONG_MESH", _wrong_mesh(self._mesh_id, hello))
        try:
            self._directory.group(principal.organisation, principal.group)
        except NotFoundError as error:
            way = f"`mesh groups list` shows all, `mesh groups create {principal.group}` makes it"
            return _reject("UNKNOWN_GROUP", f"{error.text}; {way}")
        return None

    async def _refusal_in_turn(self, principal: AgentPrincipal, hello: agent_pb.Hello) -> agent_pb.Reject | None:
        """The same once its turn has come, or that this is too far off."""
        turn = self._admission.turn()
        if not turn.is_booked:
            return _reject("OVERLOADED", "more agents connect at once than allowed", turn.in_s)
        if not turn.in_s:
            return None
        await asyncio.sleep(turn.in_s)
        return self._refusal(principal, hello)

    async def _ensure_agent(self, group: GroupNo, agent_id: str, first: agent_pb.AgentFrame) -> AgentNo:
        """The agent's number. Raises MalformedError before a frame that is none makes an agent that is kept."""
        if self._directory.agent(group, agent_id) is None:
            frames = AgentFrames(NO_AGENT, NO_SESSION, self._settings.limits)
            frames.hello(first.hello)
            frames.events(first)
        return await self._directory.ensure_agent(group, agent_id)

    def _session(self, number: SessionId, group: GroupNo, agent: AgentNo, machine: Machine) -> Session:
        limits = self._settings.limits
        epoch = self._engine.dispatcher(group).epoch

        def welcome(order: WelcomeAgent) -> agent_pb.Welcome:
            self._directory.presence.note(group, agent, machine)
            return welcome_of(order, epoch, self._engine.policy, limits, self._grace_us, self._mesh_id)

        return Session(
            number,
            agent,
            epoch,
            frame_jobs_max=limits.frame_jobs_max,
            frame_bytes_max=limits.frame_bytes_max,
            now_us=self._engine.clock.now_us,
            welcome=welcome,
            traffic=self.traffic[group],
        )

    def _intake(self, group: GroupNo, session: Session) -> Intake:
        limits = self._settings.limits
        frames = AgentFrames(session.agent, session.session, limits)
        stuck = partial(self._directory.presence.note_stuck, session.session)
        return Intake(self._engine, self._admission, self._turns, group, session, frames, limits, stuck)

    async def _serve(self, reading: Coroutine[None, None, None], context: Context, session: Session) -> None:
        """Read and write until one side ends, or the dispatcher or the reader ends the session.

        The writer stands still while the agent does not read.
        """
        reader = asyncio.create_task(reading, name=f"read-{session.session}")
        writer = asyncio.create_task(session.write(context.write), name=f"write-{session.session}")
        ended = asyncio.create_task(session.ended.wait(), name=f"ended-{session.session}")
        tasks = (reader, writer, ended)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
            session.leave()
            await asyncio.wait((writer,), timeout=LAST_FRAME_WAIT_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def _end(context: Context, code: grpc.StatusCode, text: str) -> None:
    """End the call for the peer.

    The status waits behind a frame that the peer does not read; it is left to gRPC then, and goes with the connection.
    A peer that is gone needs none.
    """
    with suppress(TimeoutError, grpc.aio.InternalError):
        async with asyncio.timeout(END_WAIT_S):
            await end_call(context, code, text)


def _wrong_mesh(mesh_id: str, hello: agent_pb.Hello) -> str:
    """Numbers of jobs are a mesh's own: what is in hand would be taken for another job's."""
    return (
        f"this broker is of mesh {mesh_id}, and the agent has work or outcomes of mesh {hello.mesh_id} in hand: start "
        "the broker of that mesh; if there is none any more, stop the agent and move its spool away"
    )


def _reject(code: str, text: str, retry_after_s: float = 0.0) -> agent_pb.Reject:
    """A Reject with what the table says of its code, or to be tried again after this time."""
    retry_after_us = round((retry_after_s or RETRY_AFTER_S[code]) * SECOND_US)
    number = agent_pb.RejectCode.Value(f"REJECT_CODE_{code}")
    return agent_pb.Reject(
        code=number, reason=text, should_retry=retry_after_us > 0, retry_after=duration_of(retry_after_us)
    )
