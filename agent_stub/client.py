"""The agent: keeps one stream to its broker, for ever, and drives the session and the runner.

The stream may end at any time and for any reason: handlers run on, outcomes are kept, and the agent dials again after
its back-off, a new channel for each try. Everything that happens goes through the session and then through `_pump`,
which carries out the session's orders, wakes the writer and arms the one timer.

The stream and its heartbeats have a thread and an event loop of their own, in which no handler runs but the inline
ones: a handler that computes, blocks or hangs does not make the agent look dead. A watchdog beside it sees the rest.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import grpc
import grpc.aio

from agent_stub import convert, host
from agent_stub.backoff import Backoff, Random
from agent_stub.cleanup import Cleanup, clean
from agent_stub.clock import now_us
from agent_stub.convert import MalformedFrameError
from agent_stub.keeper import SWEEP_EVERY_S, Keeper
from agent_stub.logs import fields
from agent_stub.operations import Operations
from agent_stub.runner import GRACE_S, Runner
from agent_stub.session import (
    FENCED,
    AgentSession,
    Assign,
    KeepOutcome,
    Key,
    LeaveStream,
    Order,
    Outcome,
    Phase,
    Progress,
    StartRun,
    StopRun,
)
from agent_stub.settings import API_PORT, AgentSettings, SettingsError, check_address
from agent_stub.spool import Spool
from agent_stub.watchdog import Watchdog
from protos.mesh.v1 import agent_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2_grpc

if TYPE_CHECKING:
    Call: TypeAlias = grpc.aio.StreamStreamCall[pb.AgentFrame, pb.BrokerFrame]

EXIT_OK: Final = 0
EXIT_DENIED: Final = 4
EXIT_WRONG_STATE: Final = 6
EXIT_INTERRUPTED: Final = 130

SECOND_US: Final = 1_000_000
TIMER_MIN_S: Final = 0.02
"""The timer may find a heartbeat due that a blocked write keeps from leaving: it must not spin meanwhile."""
GOODBYE_WAIT_S: Final = 5.0
CLOSE_WAIT_S: Final = 1.0
STUCK_MAX: Final = 64
"""So many stuck runs are named in a heartbeat."""
BACK_BY: Final = 1 / 3
"""By which part of its recovery grace a broker that is back is dialled at the latest. The rest is for the herd: all
others come too, and only so many a second are let in."""

MESSAGE_BYTES_MAX: Final = 4 * 1024 * 1024 + 64 * 1024
CHANNEL_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    # Each try is a connection of its own, with our back-off and not gRPC's.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.enable_retries", 0),
    # keepalive_timeout alone does not bound the detection of a dead peer; the ping timeout does.
    ("grpc.keepalive_time_ms", 10_000),
    # And on a slow way the answer waits behind a payload: 1 MiB takes 9 s at 1 Mbit/s.
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 20_000),
    # Otherwise pings stop after two without data.
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
)
DEV_CHANNEL_OPTIONS: Final = (("grpc.enable_http_proxy", 0),)
"""Loopback addresses are not for the proxy that the environment names."""

DENIED: Final = frozenset(
    {
        pb.REJECT_CODE_UNKNOWN_AGENT,
        pb.REJECT_CODE_UNKNOWN_GROUP,
        pb.REJECT_CODE_REMOVED,
        pb.REJECT_CODE_REVOKED,
        pb.REJECT_CODE_EXPIRED,
    }
)

REMEDIES: Final = {
    grpc.StatusCode.UNAVAILABLE: "start the broker, or correct `broker` in [agent]; `mesh-agent check` looks",
    grpc.StatusCode.UNIMPLEMENTED: API_PORT,
    grpc.StatusCode.ABORTED: "end the other process of this name, or give one of the two another name",
}
"""What a person may do when the stream ends in this way; of UNAVAILABLE and the like only if it never began."""

log = logging.getLogger("mesh.agent")


@dataclass(frozen=True, slots=True)
class _Ending:
    """Why a stream is over, and what follows."""

    reason: str
    retry_after_s: float = 0.0
    exit_code: int | None = None
    next_broker: str = ""
    remedy: str = ""


class Agent:
    """One agent process. Make it and `run` it on the same event loop.

    Args:
        generator: the source of the back-off's jitter.

    Raises:
        OSError: the spool cannot be used.
    """

    def __init__(self, settings: AgentSettings, operations: Operations, *, generator: Random | None = None) -> None:
        self.settings = settings
        keeps_first = settings.spool is not None
        self.session = AgentSession(settings.slots, settings.prefetch, operations=operations, keeps_first=keeps_first)
        self._operations = operations
        self._keeper: Keeper | None = None
        if settings.spool is not None:
            self._keeper = Keeper(Spool(settings.spool), self.session, settings.spool_bytes_max, self._pump)
        self._runner = Runner(settings.slots, self._on_finished, self._on_progress)
        self._watchdog = Watchdog(self._runner.fence)
        self._backoff = Backoff(generator or random.SystemRandom())
        self._about = host.about(settings, operations, os.urandom(16))
        self._load = host.Load()
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()  # the writer has something to look at
        self._hurry = asyncio.Event()  # the pause before the next try is over
        self._left: asyncio.Future[_Ending] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None
        self._lag_s = 0.0
        self._is_pumping = False
        self._exit_code: int | None = None
        self._was_live = False
        self._live_since_s = 0.0
        self._offline_since_s = time.monotonic()

    # Its life --------------------------------------------------------------------------------------------------------

    async def run(self) -> int:
        """Serve until told to leave; the exit code of the process."""
        broker = self.settings.broker
        tending = self._begin()
        try:
            while self._exit_code is None:
                ending = await self._serve(broker)
                broker = ending.next_broker or self.settings.broker
                self._exit_code = self._exit_code if ending.exit_code is None else ending.exit_code
                self._leave_if_done()
                if self._exit_code is None:
                    await self._pause(ending)
        finally:
            for task in tending:
                task.cancel()
            self._finish()
        return self._exit_code

    def _begin(self) -> list[asyncio.Task[None]]:
        self._watchdog.watch("stream", self._loop, threading.get_ident())
        self._watchdog.start()
        tending = []
        if self._keeper is not None:
            self._keeper.restore()
            tending.append(asyncio.create_task(self._look_after(self._keeper), name="agent-keeper"))
        if self.settings.cleanup.rules:
            tending.append(asyncio.create_task(self._clean_up(self.settings.cleanup), name="agent-cleanup"))
        return tending

    async def _clean_up(self, cleanup: Cleanup) -> None:
        """Apply the rules now and then, in a thread: a directory may be large, and on a disk far away."""
        while True:
            try:
                gone = await asyncio.to_thread(clean, cleanup, is_over=lambda: self._exit_code is not None)
            except Exception:  # the next time it may work, and nobody awaits this task
                log.exception("files.not_cleaned")
            else:
                if gone:
                    log.info("files.cleaned", extra=fields(files=len(gone), bytes=sum(one.bytes for one in gone)))
            await asyncio.sleep(cleanup.every_s)

    async def _look_after(self, keeper: Keeper) -> None:
        while True:
            await asyncio.sleep(SWEEP_EVERY_S)
            keeper.sweep()
            self._leave_if_done()

    def _finish(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._watchdog.close()
        self._runner.close()
        if self._keeper is not None:
            self._keeper.close()
            self._keeper.flush()

    @property
    def is_running(self) -> bool:
        """Whether a handler still runs."""
        return len(self._runner) > 0

    def handle_signals(self) -> None:
        """SIGTERM and SIGINT drain the agent; the second one stops it now."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._on_signal, signal.Signals(number).name)

    def drain(self, reason: str) -> None:
        """Leave in good order: take nothing new, finish what is held, deliver it, say Goodbye."""
        log.info("agent.draining", extra=fields(reason=reason, held=self.session.held))
        self.session.drain(reason)
        self._sweep()
        self._pump()
        self._leave_if_done()

    def stop(self) -> None:
        """Leave now; what runs is lost to this process, and the broker gives it to another agent."""
        if self._exit_code is not None:
            return
        log.warning("agent.stopped", extra=fields(held=self.session.held))
        self._exit_code = EXIT_INTERRUPTED
        self._hurry.set()
        self._end(_Ending("stopped"))

    def _on_signal(self, name: str) -> None:
        if self.session.is_leaving:
            self.stop()
        else:
            self.drain(name)

    def _leave_if_done(self) -> None:
        """Without a stream there is nobody to say Goodbye to: nothing held is reason enough to go, and so are
        outcomes alone when all of them are in the spool and the broker has been away for a while.
        """
        session = self.session
        is_alone = session.phase in (Phase.OFFLINE, Phase.GREETING)
        if not session.is_leaving or not is_alone or self._exit_code is not None:
            return
        if session.is_idle or self._has_all_spooled():
            if session.held:
                log.info("agent.left", extra=fields(reason="the broker is away", spooled=session.held))
            self._exit_code = EXIT_OK
            self._hurry.set()
            self._end(_Ending("left"))

    def _has_all_spooled(self) -> bool:
        is_late = time.monotonic() - self._offline_since_s >= self.settings.spool_leave_s
        keeper = self._keeper
        return is_late and keeper is not None and self.session.has_only_outcomes and keeper.has_all

    async def _pause(self, ending: _Ending) -> None:
        had_session = bool(self._live_since_s)
        if had_session:
            self._backoff.session_over(self._loop.time() - self._live_since_s)
        self._live_since_s = 0.0
        delay_s = self._backoff.next_delay_s(ending.retry_after_s)
        remedy = {"remedy": ending.remedy} if ending.remedy else {}
        facts = fields(reason=ending.reason, held=self.session.held, retry_in_s=delay_s, **remedy)
        if had_session or not remedy:
            log.log(logging.WARNING if remedy else logging.INFO, "session.ended", extra=facts)
        else:
            log.warning("broker.unreachable", extra=facts)
        with suppress(TimeoutError):
            await asyncio.wait_for(self._hurry.wait(), delay_s)

    # One stream ------------------------------------------------------------------------------------------------------

    async def _serve(self, broker: str) -> _Ending:
        """One try: from dialling to the end of the stream."""
        self._left = self._loop.create_future()
        channel, call = self._dial(broker)
        first = pb.AgentFrame(hello=convert.hello_to(self.session.hello(now_us()), self._about))
        writer = asyncio.create_task(self._write(call, first), name="agent-writer")
        reader = asyncio.create_task(self._read(call), name="agent-reader")
        self._pump()
        try:
            return await self._ending_of_either(writer, reader)
        finally:
            # A call that is only dropped leaks; a handler of the other side waits for it.
            call.cancel()
            writer.cancel()
            reader.cancel()
            await asyncio.gather(writer, reader, return_exceptions=True)
            with suppress(TimeoutError):
                await asyncio.wait_for(channel.close(), CLOSE_WAIT_S)
            if self._was_live:
                self._was_live = False
                self._offline_since_s = time.monotonic()
            self.session.disconnected(now_us())
            self._sweep()
            self._pump()

    def _dial(self, broker: str) -> tuple[grpc.aio.Channel, Call]:
        """A connection of its own, and the call on it; returns at once."""
        channel = grpc.aio.insecure_channel(broker, options=[*CHANNEL_OPTIONS, *DEV_CHANNEL_OPTIONS])
        identity = (("mesh-dev-identity", self.settings.dev_identity),)
        return channel, agent_service_pb2_grpc.AgentServiceStub(channel).Connect(metadata=identity)

    async def _ending_of_either(self, writer: asyncio.Task[bool], reader: asyncio.Task[_Ending]) -> _Ending:
        all_three: set[asyncio.Future[Any]] = {writer, reader, self._left}
        await asyncio.wait(all_three, return_when=asyncio.FIRST_COMPLETED)
        if writer.done() and not self._left.done():
            # Goodbye is written: let the broker read it and end the stream. Or a write failed: what the broker said
            # last, a Reject perhaps, is still on its way to the reader.
            timeout_s = GOODBYE_WAIT_S if writer.result() else CLOSE_WAIT_S
            await asyncio.wait({reader, self._left}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self.session.phase is Phase.LEFT and writer.done():
            return _Ending("left", exit_code=EXIT_OK)
        if reader.done():
            return reader.result()
        return self._left.result() if self._left.done() else _Ending("stream ended: a write failed")

    async def _write(self, call: Call, first: pb.AgentFrame) -> bool:
        """The one writer: each frame holds all that gathered while the last one was written.

        Returns whether Goodbye has been written; False: a write failed, and the reader gets to know why.
        """
        try:
            await call.write(first)
            while True:
                self._wake.clear()
                frame = self.session.take_frame(now_us())
                if frame is None:
                    await self._wake.wait()
                    continue
                wire = convert.agent_frame(frame, self._about)
                if frame.heartbeat is not None:
                    self._add_load(wire.heartbeat)
                await call.write(wire)
                if frame.goodbye is not None:
                    await call.done_writing()
                    log.info("agent.left", extra=fields(reason=frame.goodbye))
                    return True
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError):
            return False

    async def _read(self, call: Call) -> _Ending:
        try:
            while True:
                wire = await call.read()
                if not isinstance(wire, pb.BrokerFrame):
                    return await self._ending_of(call, None)
                ending = self._receive(wire)
                self._pump()
                if ending is not None:
                    return ending
        except MalformedFrameError as error:
            return _Ending(f"malformed frame: {error}")
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            return await self._ending_of(call, error)

    async def _ending_of(self, call: Call, error: Exception | None) -> _Ending:
        """Why gRPC ended the stream. A clean end means as little as any other: only Goodbye is an agreement."""
        if not call.done():
            return _Ending(f"stream ended: {error or 'closed by the broker'}")
        code, details = await call.code(), await call.details()
        remedy = "" if self._was_live and code is not grpc.StatusCode.ABORTED else REMEDIES.get(code, "")
        return _Ending(f"stream ended: {code.name} {details or ''}".rstrip(), remedy=remedy)

    # What the broker says --------------------------------------------------------------------------------------------

    def _receive(self, wire: pb.BrokerFrame) -> _Ending | None:
        """Work one frame, its fields in the order of their numbers; an ending if the stream is over."""
        if wire.HasField("welcome"):
            self._on_welcome(wire.welcome)
        if wire.HasField("reject"):
            return _ending_by(wire.reject)
        session, at_us = self.session, now_us()
        if wire.HasField("heartbeat_ack"):
            session.heartbeat_acked(at_us, wire.heartbeat_ack.seq, wire.heartbeat_ack.epoch)
        if wire.HasField("resync"):
            log.info("session.resynced", extra=fields(reason=wire.resync.reason))
            session.resynced()
        if wire.HasField("outcomes_accepted"):
            self._acknowledged(convert.keys_of(wire.outcomes_accepted))
        if wire.outcomes_refused:
            self._on_refused(wire.outcomes_refused)
        for cancel in wire.cancels:
            session.cancelled(at_us, convert.cancel_of(cancel))
        for assign in wire.assigns:
            session.assigned(at_us, convert.assign_of(assign, self._operations))
        return self._receive_end(wire)

    def _receive_end(self, wire: pb.BrokerFrame) -> _Ending | None:
        if wire.HasField("drain"):
            self._on_drain(wire.drain)
        if wire.HasField("drain_done"):
            self.session.drain_done(is_stop=wire.drain_done.mode == pb.DRAIN_MODE_STOP)
        if wire.HasField("go_away"):
            return self._ending_by_go_away(wire.go_away)
        if wire.HasField("group_settings"):
            self._on_group_settings(wire.group_settings)
        return None

    def _on_welcome(self, welcome: pb.Welcome) -> None:
        self._runner.limits = convert.limits_of(welcome.limits)
        self._runner.grace_s = convert.us_of(welcome.cancel_grace) / SECOND_US or GRACE_S
        if self._keeper is not None:
            self._keeper.limits = self._runner.limits
        before = self.session.mesh_id
        self.session.welcomed(now_us(), convert.welcome_of(welcome))
        if self.session.is_live:
            self._on_mesh(before, self.session.mesh_id)
            self._backoff.bound(convert.us_of(welcome.recovery_grace) / SECOND_US * BACK_BY)
            self._was_live = True
            self._live_since_s = self._loop.time()
            session = self.session
            facts = fields(
                session=welcome.session_id, epoch=welcome.epoch, held=session.held, capacity=session.capacity
            )
            log.info("session.started", extra=facts)

    def _on_group_settings(self, settings: pb.GroupSettings) -> None:
        self.session.prefetch_set(convert.prefetch_of(settings))
        log.info("group.changed", extra=fields(capacity=self.session.capacity))

    def _on_mesh(self, before: str, now: str) -> None:
        if before and before != now:
            log.warning("mesh.changed", extra=fields(before=before, now=now))
        if self._keeper is not None:
            self._keeper.belong_to(now)

    def _on_refused(self, refused: Sequence[pb.OutcomeRefused]) -> None:
        for outcome in refused:
            facts = fields(job_key=outcome.job_key, attempt=outcome.attempt, reason=outcome.reason)
            log.info("outcome.refused", extra=facts)
        self._acknowledged((outcome.job_key, outcome.attempt) for outcome in refused)

    def _acknowledged(self, keys: Iterable[Key]) -> None:
        known = list(keys)
        self.session.acknowledged(known)
        if self._keeper is not None:
            self._keeper.acknowledged(known)

    def _on_drain(self, drain: pb.Drain) -> None:
        log.info("drain.cancelled" if drain.cancel else "drain.started", extra=fields(reason=drain.reason))
        if drain.cancel:
            self.session.drain_cancelled()
        else:
            self.session.drain_started()

    def _ending_by_go_away(self, go_away: pb.GoAway) -> _Ending:
        retry_after_s = convert.us_of(go_away.reconnect_after) / SECOND_US
        broker = go_away.preferred_broker
        try:
            if broker:
                check_address(broker, self.settings.dev)
        except SettingsError as error:
            log.warning("broker.refused", extra=fields(broker=broker, reason=error))
            broker = ""
        return _Ending(f"go away: {go_away.reason}", retry_after_s, next_broker=broker)

    # What happens here -----------------------------------------------------------------------------------------------

    def _on_finished(self, outcome: Outcome) -> None:
        if log.isEnabledFor(logging.DEBUG):
            facts = fields(job_key=outcome.job_key, attempt=outcome.attempt, status=outcome.status.name.lower())
            log.debug("job.finished", extra=facts)
        self.session.finished(now_us(), outcome)
        self._pump()

    def _on_progress(self, reports: Iterable[Progress]) -> None:
        for progress in reports:
            self.session.progressed(progress)
        self._pump()

    def _on_timer(self) -> None:
        assert self._timer is not None
        self._lag_s = max(self._lag_s, self._loop.time() - self._timer.when())
        self._timer = None
        self.session.timer(now_us())
        self._pump()

    def _pump(self) -> None:
        """Carry out what the session orders, until it orders nothing more."""
        if self._is_pumping:
            return  # an inline handler has finished inside of an order
        self._is_pumping = True
        try:
            while orders := self.session.take_orders():
                for order in orders:
                    self._carry_out(order)
        finally:
            self._is_pumping = False
        self._wake.set()
        self._arm()
        self._hold_lease()
        if self.session.is_leaving:
            self._leave_if_done()

    def _carry_out(self, order: Order) -> None:
        if isinstance(order, StartRun):
            self._start(order.assign)
        elif isinstance(order, StopRun):
            facts = fields(job_key=order.job_key, attempt=order.attempt, reason=order.reason)
            log.info("job.stopping", extra=facts)
            key, grace_s = (order.job_key, order.attempt), order.grace_us / SECOND_US
            self._runner.stop(key, grace_s, at_once=order.reason == FENCED)
        elif isinstance(order, KeepOutcome):
            assert self._keeper is not None, "the session was made without"
            self._keeper.keep_first(order.outcome)
        else:
            assert isinstance(order, LeaveStream)
            self._end(_Ending(order.reason))

    def _start(self, assign: Assign) -> None:
        known = self._operations.get(assign.operation)
        assert known is not None, "the session refuses what is not known"
        if log.isEnabledFor(logging.DEBUG):
            facts = fields(job_key=assign.job_key, attempt=assign.attempt, operation=assign.operation)
            log.debug("job.started", extra=facts)
        job = convert.job_of(assign)
        job.variables = self.settings.variables
        job.options = self.settings.options.get(assign.operation, {})
        job.folders = self.settings.job_folders
        if assign.exclusive:
            self._runner.renew_lease(self.session.lease_end_us)
        self._runner.start(job, known, is_exclusive=assign.exclusive)
        loop = self._runner.coroutines.loop
        if loop is not None:
            self._watchdog.watch("coroutines", loop, self._runner.coroutines.thread_id)

    def _hold_lease(self) -> None:
        """Tell those who end exclusive work when it must have ended, also if this loop stands still then."""
        if self._runner.has_exclusive:
            self._runner.renew_lease(self.session.lease_end_us)
            self._watchdog.guard(self.session.lease_end_us)
        else:
            self._watchdog.guard(None)

    def _sweep(self) -> None:
        if self._keeper is not None:
            self._keeper.sweep()

    def _end(self, ending: _Ending) -> None:
        if not self._left.done():
            self._left.set_result(ending)

    def _arm(self) -> None:
        """One timer at the session's next deadline; one that is early enough already is left."""
        deadline_us = self.session.next_deadline_us()
        if deadline_us is None or self._exit_code is not None:
            return
        delay_s = max((deadline_us - now_us()) / SECOND_US, TIMER_MIN_S)
        if self._timer is not None:
            if self._timer.when() <= self._loop.time() + delay_s:
                return
            self._timer.cancel()
        self._timer = self._loop.call_later(delay_s, self._on_timer)

    def _add_load(self, heartbeat: pb.Heartbeat) -> None:
        heartbeat.loop_lag.FromNanoseconds(int(self._lag_s * 1_000_000_000))
        heartbeat.cpu = self._load.cpu()
        heartbeat.memory_bytes = self._load.memory_bytes()
        if self._runner.stuck:
            heartbeat.stuck.CopyFrom(convert.attempts_to(self._runner.stuck_keys[:STUCK_MAX]))
        self._lag_s = 0.0


def _ending_by(reject: pb.Reject) -> _Ending:
    known = reject.code in pb.RejectCode.values()
    name = pb.RejectCode.Name(reject.code).removeprefix("REJECT_CODE_") if known else str(reject.code)
    facts = fields(code=name.lower(), reason=reject.reason, is_final=not reject.should_retry)
    log.log(logging.WARNING if reject.should_retry else logging.ERROR, "session.refused", extra=facts)
    if reject.should_retry:
        return _Ending(f"refused: {name.lower()}", convert.us_of(reject.retry_after) / SECOND_US)
    return _Ending(f"refused: {name}", exit_code=EXIT_DENIED if reject.code in DENIED else EXIT_WRONG_STATE)
