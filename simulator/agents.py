"""Agents of the simulated world: processes that run jobs, crash, hang, leave and come back.

`SessionAgent` drives the real agent's session (`agent_stub.session`) and its back-off over the network. `DirectAgent`
is for `exact`: it runs at once what it is given and reports nothing but outcomes.

A completion belongs to one run of one process: after a crash, a stop or a hang it finds that it is stale, or too early,
by itself, because SimPy has no cancel.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from agent_stub.backoff import Backoff
from agent_stub.session import AgentSession, Frame, Key, LeaveStream, Outcome, StartRun, StopRun
from agent_stub.session import OutcomeStatus as SessionStatus
from broker.dispatch.messages import (
    AcceptOutcome,
    AgentConnected,
    AgentLeaving,
    AgentLeft,
    AssignJob,
    AttemptFinished,
    AttemptId,
    AttemptStarted,
    CancelAttempt,
    DrainAgent,
    FinishDrain,
    RefuseOutcome,
    Send,
    SetPrefetch,
    UndrainAgent,
    WelcomeAgent,
)
from broker.dispatch.model import AgentNo, DrainEnd, JobKey, OutcomeStatus
from simulator.agent_frames import assign_of, cancel_of, welcome_of
from simulator.clock import Clock
from simulator.driver import Driver
from simulator.fleet import Fleet
from simulator.laws import Law
from simulator.network import Connection, GrpcBackoff, Network
from simulator.recorder import Recorder
from simulator.scenario import Pool
from simulator.streams import SECOND_US, Stream, Streams, Uniform
from simulator.workload import SimJob

# Of a member that is asked for several times a job: through its class each look-up costs 0.1 us up to Python 3.11.
_SUCCEEDED: Final = SessionStatus.SUCCEEDED
FEW_ITEMS: Final = 100
"""A frame of fewer reports has room left, so nothing waits behind it."""
ANSWERS: Final = (AcceptOutcome, RefuseOutcome)
ENTITY: Final = 1 << 20
"""Random streams of an agent: its group's number times this, plus its own."""

Ordered = Sequence[tuple[Send, SimJob | None]]
"""Orders, each assignment with its job."""


@dataclass(slots=True, eq=False)
class Site:
    """What every agent of the world stands in."""

    clock: Clock
    driver: Driver
    network: Network
    recorder: Recorder
    streams: Streams
    overhead: Law = field(default_factory=lambda: Law(constant=0.0))
    """What agents add to each run."""


class Run:
    """One attempt that runs."""

    __slots__ = ("due_us", "frozen_us", "job", "key", "started_us")

    def __init__(self, key: Key, job: SimJob, started_us: int, due_us: int, frozen_us: int) -> None:
        self.key = key
        self.job = job
        self.started_us = started_us
        self.due_us = due_us
        self.frozen_us = frozen_us  # how long its agent had stood still when `due_us` was counted


class SimAgent(ABC):
    """What both kinds of agents share: the life of the process, its runs, its connection."""

    # With more than thirty attributes instances share no dictionary keys, and each look-up takes longer.
    __slots__ = (
        *("_backoff", "_beats", "_connection", "_froze_at_us", "_frozen_us", "_life", "_lives", "_overheads_us"),
        *("_runs", "_stalled", "_standing", "busy_us", "entity", "fleet", "incarnation", "is_frozen", "is_leaving"),
        *(
            "is_on",
            "is_retired",
            "is_stuck",
            "labels",
            "line",
            "loss",
            "name",
            "no",
            "outages",
            "pool",
            "site",
            "slow",
            "when_left",
            "zone",
        ),
    )

    def __init__(self, site: Site, fleet: Fleet, number: int, pool: Pool, zone: str) -> None:
        self.site = site
        self.fleet = fleet
        self.no = AgentNo(number)
        self.name = f"{fleet.name}/{number}"
        self.pool = pool
        self.zone = zone
        self.labels = frozenset(pool.labels)
        entity = fleet.no * ENTITY + number
        self.entity = entity
        self.line = site.network.line(zone, entity)
        self.slow = 1.0
        self.is_on = False
        self.is_frozen = False
        self.is_stuck = False
        """Its runs make no progress, though all else of it works."""
        self.is_leaving = False
        self.is_retired = False
        """It has left in good order, and is not started again before `bring_back`."""
        self.outages = 0
        """Faults that keep it down; it is started again when the last one is over."""
        self.incarnation = b""
        self.when_left: Callable[[], None] | None = None
        """Called once when the process has left in good order."""
        self.loss = 0.0
        """The chance that a heartbeat is lost."""
        self.busy_us = 0
        self._life = 0
        self._lives = 0
        self._connection: Connection | None = None
        self._runs: dict[Key, Run] = {}
        self._stalled: list[Callable[[], None]] = []  # what a frozen process will read when it goes on
        self._standing: list[Callable[[], None]] = []  # what becomes of its runs then
        self._frozen_us = 0
        self._froze_at_us = 0
        jitter = Uniform(site.streams.uniform(Stream.BACKOFF, entity))
        self._backoff: Backoff | GrpcBackoff = GrpcBackoff(jitter) if pool.backoff == "grpc" else Backoff(jitter)
        self._beats: Iterator[float] | None = None
        self._overheads_us = site.streams.times_us(site.overhead, Stream.OVERHEAD, entity)

    # --- its life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the process: a new one, that knows nothing of the one before."""
        assert not self.is_on
        self._life += 1
        self._lives += 1
        self.incarnation = (self._lives << 64 | self.entity).to_bytes(16, "big")
        self.is_on = True
        self.is_frozen = self.is_stuck = self.is_leaving = False
        self._backoff.reset()
        self.site.recorder.agent_on(self)
        self._begin()

    def crash(self, *, silent: bool = False) -> None:
        """The process dies with all that runs in it; with `silent` nobody tells the broker."""
        self.outages += 1
        if not self.is_on:
            return
        self.site.recorder.agent_lost(self)
        connection = self._connection
        self._stop()
        if connection is not None and connection.is_open:
            if silent:
                connection.is_open = False
            else:
                self.site.network.to_broker(connection, self.site.driver.on_closed, connection)
        self._has_left()

    def repair(self) -> None:
        """What kept it down is over."""
        self.outages -= 1
        self._start_if_wanted()

    def bring_back(self) -> None:
        """An agent that left is wanted again; one that something else keeps down starts after that."""
        self.is_retired = False
        self._start_if_wanted()

    def _start_if_wanted(self) -> None:
        if not (self.is_on or self.outages or self.is_retired):
            self.start()

    def freeze(self) -> None:
        """The process stands still and stays connected."""
        if self.is_on and not self.is_frozen:
            self._stand_still()
            self.is_frozen = True
            self.site.recorder.agent_lost(self)

    def thaw(self) -> None:
        """The process goes on where it stood."""
        if not self.is_frozen:
            return
        self.is_frozen = False
        self._go_on()
        self.site.recorder.agent_found(self)
        stalled, self._stalled = self._stalled, []
        for call in stalled:
            call()

    def get_stuck(self) -> None:
        """Its runs make no progress and obey no word to stop; it beats on, reads, and takes what it is given."""
        if self.is_on and not self.is_stuck:
            self._stand_still()
            self.is_stuck = True

    def get_loose(self) -> None:
        """Its runs go on where they stood, or stop if they were told to."""
        if self.is_stuck:
            self.is_stuck = False
            self._go_on()

    def _stand_still(self) -> None:
        if not (self.is_frozen or self.is_stuck):
            self._froze_at_us = self.site.clock.now_us

    def _stood_us(self) -> int:
        """How long its runs have stood still so far."""
        now_us = self.site.clock.now_us
        return self._frozen_us + (now_us - self._froze_at_us if self.is_frozen or self.is_stuck else 0)

    def _go_on(self) -> None:
        if not (self.is_frozen or self.is_stuck):
            self._frozen_us += self.site.clock.now_us - self._froze_at_us
            standing, self._standing = self._standing, []
            for call in standing:
                call()

    def switch_off(self) -> None:
        """The run is over."""
        if self.is_on:
            self._stop()

    @abstractmethod
    def leave(self) -> None:
        """SIGTERM: finish what it has, take nothing new, leave. `when_left` is called then."""

    @abstractmethod
    def _begin(self) -> None:
        """What a new process does first."""

    def _stop(self) -> None:
        """The process is no more."""
        self._life += 1
        for run in list(self._runs.values()):
            self._end(run)
        self._frozen_us = self._stood_us()
        self.is_frozen = self.is_stuck = False
        self._stalled.clear()
        self._standing.clear()
        self._connection = None
        self.is_on = False
        self.site.recorder.agent_off(self)

    def _exit(self) -> None:
        """It has left in good order."""
        connection = self._connection
        self._stop()
        if connection is not None:
            self.site.network.to_broker(connection, self.site.driver.on_closed, connection)
        self.is_retired = True
        self._has_left()

    def _has_left(self) -> None:
        then, self.when_left = self.when_left, None
        if then is not None:
            then()

    # --- its stream -------------------------------------------------------------------------------------------------

    def _dial_in(self, delay_us: int) -> None:
        self.site.clock.after(delay_us, self._on_dial, self._life)

    def _on_dial(self, life: int) -> None:
        if life != self._life or self._connection is not None:
            return
        if self.is_frozen:
            life = self._life
            self._stalled.append(lambda: self._dial_in(0) if life == self._life else None)
        elif self.line.is_cut or not self.site.driver.lets_in():
            self._dial_in(round(self._backoff.next_delay_s() * SECOND_US))
        else:
            self._connection = Connection(self)
            self._greet(self._connection)

    @abstractmethod
    def _greet(self, connection: Connection) -> None:
        """Say Hello."""

    def on_end(self, ended: tuple[Connection, int]) -> None:
        """The broker has ended the stream, or died. It may ask for a pause before the next try."""
        connection, wait_us = ended
        if connection is not self._connection:
            return
        if self.is_frozen:
            self._stalled.append(lambda: self.on_end(ended))
            return
        connection.is_open = False
        self._connection = None
        self._lost_stream()
        if self.is_on:
            self._dial_in(round(self._backoff.next_delay_s(wait_us / SECOND_US) * SECOND_US))

    @abstractmethod
    def _lost_stream(self) -> None:
        """What the end of a stream means to the agent's side of it."""

    def on_sends(self, arrived: tuple[Connection, Ordered]) -> None:
        """Orders of the broker are here."""
        if arrived[0] is not self._connection:
            return
        if self.is_frozen:
            self._stalled.append(lambda: self.on_sends(arrived))
        else:
            self._read(arrived[1])

    @abstractmethod
    def _read(self, ordered: Ordered) -> None:
        """Do what the broker ordered."""

    @abstractmethod
    def on_beat(self, arrived: tuple[Connection, int, int]) -> None:
        """The broker has answered a heartbeat: (connection, its number, epoch)."""

    # --- its runs ---------------------------------------------------------------------------------------------------

    def _run(self, key: Key, job: SimJob) -> None:
        site = self.site
        now_us, stood_us = site.clock.now_us, self._stood_us() if self.is_stuck else self._frozen_us
        delay_us = round(job.work.duration_us(job, key[1]) * self.slow / self.pool.speed) + next(self._overheads_us)
        run = self._runs[key] = Run(key, job, now_us, now_us + delay_us, stood_us)
        site.recorder.started(job)
        site.clock.after(delay_us, self._finish, run)

    def _finish(self, run: Run) -> None:
        if self._runs.get(run.key) is not run:
            return
        if self.is_frozen or self.is_stuck:
            self._standing.append(lambda: self._finish(run))
            return
        if self._frozen_us != run.frozen_us:
            run.due_us += self._frozen_us - run.frozen_us
            run.frozen_us = self._frozen_us
            self.site.clock.at(run.due_us, self._finish, run)
            return
        if run.job.poison_us:
            self._tell_started(run)
            self.crash()
            self.site.clock.after(run.job.poison_us, lambda _: self.repair())
            return
        self._end(run)
        self._ended(run, run.job.work.fails(run.job, run.key[1]))

    @abstractmethod
    def _tell_started(self, run: Run) -> None:
        """Its agent is about to crash of it: the broker must know that it ran, or it is no suspect."""

    def _end(self, run: Run) -> None:
        del self._runs[run.key]
        self.busy_us += self.site.recorder.ran(run.job, run.started_us)

    @abstractmethod
    def _ended(self, run: Run, is_failed: bool) -> None:
        """A run has come to its end."""


class DirectAgent(SimAgent):
    """An agent without session and network: for `exact`. It keeps outcomes until they are acknowledged."""

    __slots__ = (*("_connects", "_listed", "_outcomes", "_waiting"),)

    def __init__(self, site: Site, fleet: Fleet, number: int, pool: Pool, zone: str) -> None:
        super().__init__(site, fleet, number, pool, zone)
        self._outcomes: dict[Key, OutcomeStatus] = {}
        self._waiting: dict[Key, SimJob] = {}
        self._listed: tuple[Key, ...] = ()
        self._connects = 0

    def crash(self, *, silent: bool = False) -> None:
        """The process dies. Nobody beats at `exact`, so a silent end would never be found out: it is told at once."""
        super().crash()

    def _begin(self) -> None:
        self._outcomes.clear()
        self._waiting.clear()
        self._connects = 0
        self._dial_in(0)

    def _greet(self, connection: Connection) -> None:
        connection.session = self.site.driver.next_session()
        self._connects += 1
        self._listed = (*self._runs, *self._waiting)
        held = tuple(AttemptId(JobKey(key), attempt) for key, attempt in self._listed)
        outcomes = tuple(self._finished(connection, key, status) for key, status in self._outcomes.items())
        slots = self.pool.slots
        hello = AgentConnected(
            self.no,
            connection.session,
            self.incarnation,
            self._connects,
            slots,
            slots * (1 + self.pool.prefetch),
            self._connects,
            self.fleet.operations,
            self.labels,
            held,
            outcomes,
        )
        self.site.driver.attach(connection, hello)

    def leave(self) -> None:
        self.is_leaving = True
        if self._connection is not None:
            self.site.driver.report(self.fleet.no, [AgentLeaving(self.no, self._connection.session)])
        self._leave_if_idle()

    def _leave_if_idle(self) -> None:
        if self.is_leaving and not (self._runs or self._waiting or self._outcomes):
            if self._connection is not None:
                self.site.driver.report(self.fleet.no, [AgentLeft(self.no, self._connection.session)])
            self._exit()

    def _read(self, ordered: Ordered) -> None:
        for send, job in ordered:
            if type(send) is AssignJob:
                assert job is not None
                self._take((send.job_key, send.attempt), job)
            elif isinstance(send, ANSWERS):
                self._outcomes.pop((send.job_key, send.attempt), None)
            else:
                self._obey(send)
        if self.is_leaving:
            self._leave_if_idle()

    def _take(self, key: Key, job: SimJob) -> None:
        if len(self._runs) < self.pool.slots:
            self._run(key, job)
        else:
            self._waiting[key] = job

    def _obey(self, send: Send) -> None:
        if isinstance(send, CancelAttempt):
            key = (send.job_key, send.attempt)
            self._drop(key)
            self._say(key, OutcomeStatus.CANCELLED)
            self._start_waiting()
        elif isinstance(send, WelcomeAgent):
            self._backoff.reset()
            self.site.recorder.connected(self)
            for keep, listed in zip(send.keep, self._listed, strict=True):
                if not keep:
                    self._drop(listed)
        elif isinstance(send, FinishDrain) and send.ends is DrainEnd.STOP:
            self.is_leaving = True

    def _lost_stream(self) -> None:
        """Nothing: what it holds it says in its next Hello."""

    def on_beat(self, arrived: tuple[Connection, int, int]) -> None:
        """Nothing: nobody beats at `exact`."""

    def _tell_started(self, run: Run) -> None:
        connection = self._connection
        if connection is not None:
            key, attempt = run.key
            self.site.driver.report(self.fleet.no, [AttemptStarted(self.no, connection.session, JobKey(key), attempt)])

    def _drop(self, key: Key) -> None:
        run = self._runs.get(key)
        if run is not None:
            self._end(run)
        self._waiting.pop(key, None)

    def _start_waiting(self) -> None:
        while self._waiting and len(self._runs) < self.pool.slots:
            key = next(iter(self._waiting))
            self._run(key, self._waiting.pop(key))

    def _ended(self, run: Run, is_failed: bool) -> None:
        self._say(run.key, OutcomeStatus.FAILED if is_failed else OutcomeStatus.SUCCEEDED)
        self._start_waiting()

    def _say(self, key: Key, status: OutcomeStatus) -> None:
        self._outcomes[key] = status
        connection = self._connection
        if connection is not None:
            self.site.driver.report(self.fleet.no, [self._finished(connection, key, status)])

    def _finished(self, connection: Connection, key: Key, status: OutcomeStatus) -> AttemptFinished:
        return AttemptFinished(self.no, connection.session, JobKey(key[0]), key[1], status)


class SessionAgent(SimAgent):
    """An agent that runs the real session over the network."""

    __slots__ = (*("_armed_us", "_session"),)

    def __init__(self, site: Site, fleet: Fleet, number: int, pool: Pool, zone: str) -> None:
        super().__init__(site, fleet, number, pool, zone)
        self._session = AgentSession(pool.slots, pool.prefetch)
        self._armed_us: int | None = None

    def _begin(self) -> None:
        self._session = AgentSession(self.pool.slots, self.pool.prefetch)
        self._armed_us = None
        self._dial_in(round(self._backoff.next_delay_s() * SECOND_US))

    def _greet(self, connection: Connection) -> None:
        hello = self._session.hello(self.site.clock.now_us)
        # Opening a connection is a round trip of its own before the first frame.
        self.site.network.to_agent(connection, self._on_open, (connection, Frame(hello=hello)))

    def _on_open(self, opened: tuple[Connection, Frame]) -> None:
        if opened[0] is self._connection and self.is_on:
            self._send_frame(*opened)
            self._pump()

    def leave(self) -> None:
        self.is_leaving = True
        self._session.drain("SIGTERM")
        self._pump()

    def _lost_stream(self) -> None:
        self._session.disconnected(self.site.clock.now_us)
        self._pump()

    def on_beat(self, arrived: tuple[Connection, int, int]) -> None:
        connection, seq, epoch = arrived
        if connection is not self._connection:
            return
        if self.is_frozen:
            self._stalled.append(lambda: self.on_beat(arrived))
            return
        self._session.heartbeat_acked(self.site.clock.now_us, seq, epoch)
        self._pump(may_be_due_sooner=False)

    def _read(self, ordered: Ordered) -> None:
        session, now_us = self._session, self.site.clock.now_us
        acknowledged: list[Key] = []
        others: list[tuple[Send, SimJob | None]] = []
        for one in ordered:
            send = one[0]
            if isinstance(send, ANSWERS):
                acknowledged.append((send.job_key, send.attempt))
            elif type(send) is WelcomeAgent:  # the first in its frame: without it the session reads nothing
                self._obey(send, now_us)
            else:
                others.append(one)
        if acknowledged:
            session.acknowledged(acknowledged)
        for send, job in others:
            if type(send) is AssignJob:
                assert job is not None
                session.assigned(now_us, assign_of(send, job, now_us + self.site.driver.ahead_us))
            else:
                self._obey(send, now_us)
        self._pump(may_be_due_sooner=len(acknowledged) < len(ordered))

    def _obey(self, send: Send, now_us: int) -> None:
        session = self._session
        if isinstance(send, CancelAttempt):
            session.cancelled(now_us, cancel_of(send))
        elif isinstance(send, WelcomeAgent):
            driver = self.site.driver
            session.welcomed(now_us, welcome_of(send, driver.epoch, self.fleet.policy))
            if session.is_live:
                self._backoff.reset()
                self.site.recorder.connected(self)
        elif isinstance(send, DrainAgent):
            session.drain_started()
        elif isinstance(send, UndrainAgent):
            session.drain_cancelled()
        elif isinstance(send, SetPrefetch):
            session.prefetch_set(send.prefetch)
        elif isinstance(send, FinishDrain):
            session.drain_done(is_stop=send.ends is DrainEnd.STOP)

    # --- what `agent_stub.client` does ------------------------------------------------------------------------------

    def _pump(self, *, may_be_due_sooner: bool = True) -> None:
        """Carry out the session's orders, send what is due, arm its timer if that may be due sooner than it was."""
        session = self._session
        while orders := session.take_orders():
            may_be_due_sooner = True
            for order in orders:
                if type(order) is StartRun:
                    job = order.assign.body
                    assert isinstance(job, SimJob)
                    self._run((order.assign.job_key, order.assign.attempt), job)
                elif isinstance(order, StopRun):
                    self._stop_run((order.job_key, order.attempt))
                elif isinstance(order, LeaveStream):
                    self._leave_stream()
        connection, now_us = self._connection, self.site.clock.now_us
        if connection is not None:
            while (frame := session.take_frame(now_us)) is not None:
                self._send_frame(connection, frame)
                if frame.goodbye is not None:
                    self._exit()
                    return
                if len(frame.outcomes) + len(frame.accepted) + len(frame.started) + len(frame.rejected) < FEW_ITEMS:
                    break  # all that waited was in it
        elif session.is_leaving and session.is_idle:
            self._exit()
            return
        if may_be_due_sooner:
            self._arm()

    def _send_frame(self, connection: Connection, frame: Frame) -> None:
        if frame.heartbeat is not None and self.loss and self._is_lost():
            frame.heartbeat = None
            if not (frame.outcomes or frame.accepted or frame.started or frame.capacity):
                return
        self.site.network.to_broker(connection, self.site.driver.on_frame, (connection, frame))

    def _is_lost(self) -> bool:
        if self._beats is None:
            self._beats = self.site.streams.uniform(Stream.BEATS, self.entity)
        return next(self._beats) < self.loss

    def _leave_stream(self) -> None:
        connection = self._connection
        if connection is not None:
            self._connection = None
            self.site.network.to_broker(connection, self.site.driver.on_closed, connection)
            self._session.disconnected(self.site.clock.now_us)
            self._dial_in(round(self._backoff.next_delay_s() * SECOND_US))

    def _stop_run(self, key: Key) -> None:
        run = self._runs.get(key)
        if run is not None and self.is_stuck:
            self._standing.append(lambda: self._stop_run(key))
        elif run is not None:
            self._end(run)
            self._session.finished(self.site.clock.now_us, Outcome(*key, SessionStatus.CANCELLED))

    def _tell_started(self, run: Run) -> None:
        """Nothing: its session has told it."""

    def _ended(self, run: Run, is_failed: bool) -> None:
        if is_failed:
            may_retry = run.job.work.may_retry(run.job, run.key[1])
            outcome = Outcome(*run.key, SessionStatus.FAILED, "simulated", "", may_retry)
        else:
            key, attempt = run.key
            outcome = Outcome(key, attempt, _SUCCEEDED)
        self._session.finished(self.site.clock.now_us, outcome)
        self._pump(may_be_due_sooner=False)

    def _arm(self) -> None:
        due_us = self._session.next_deadline_us()
        if due_us is not None and (self._armed_us is None or due_us < self._armed_us):
            self._armed_us = due_us
            delay_us = max(1, due_us - self.site.clock.now_us)
            self.site.clock.after(delay_us, self._on_timer, (self._life, due_us))

    def _on_timer(self, armed: tuple[int, int]) -> None:
        life, due_us = armed
        if life != self._life or due_us != self._armed_us:
            return
        self._armed_us = None
        if self.is_frozen:
            self._stalled.append(self._tick)
        else:
            self._tick()

    def _tick(self) -> None:
        self._session.timer(self.site.clock.now_us)
        self._pump()
