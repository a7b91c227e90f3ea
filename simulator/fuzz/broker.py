"""A broker in memory: the dispatcher, its rows and its sessions, driven as the engine drives them.

A batch is committed before anything of it is seen; while a commit runs nothing steps. A broker that is killed keeps
what was committed; whether the batch under way is on disk is up to chance.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from random import Random
from typing import Final, Protocol, TypeVar

from agent_stub.session import Frame, Hello, Outcome
from broker.dispatch.batch import Batch, Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.invariants import Violation, check
from broker.dispatch.ledger import Randomness
from broker.dispatch.messages import (
    AgentConnected,
    AgentLeaving,
    AgentLeft,
    AgentsHeard,
    AttemptAccepted,
    AttemptFinished,
    AttemptId,
    AttemptProgressed,
    AttemptRejected,
    AttemptStarted,
    CapacityStated,
    Event,
    GroupConfigured,
    GroupRemoveRequested,
    JobSubmitted,
    KnownJob,
    Reply,
    SessionClosed,
)
from broker.dispatch.model import AgentNo, GroupNo, JobKey, OutcomeStatus, SessionId, Spread
from broker.dispatch.stored import Stored
from simulator.fuzz.chronicle import Chronicle
from simulator.fuzz.course import OPERATOR, Course
from simulator.fuzz.frames import BrokerFrame, Writer
from simulator.fuzz.judged import JudgedDispatcher, judge
from simulator.fuzz.timeline import MS, Timeline

GROUP: Final = GroupNo(1)
LAG_US: Final = 500 * MS
COMMIT_US: Final = 5 * MS
FAILING_US: Final = 1_000 * MS
"""How long a commit takes at the most that fails."""
DispatcherT = TypeVar("DispatcherT", bound=Dispatcher)
_STATUS: Final = dict(zip((1, 2, 3, 4), OutcomeStatus, strict=True))


class Chance(Protocol):
    """What decides."""

    def random(self) -> float: ...

    def randrange(self, start: int, stop: int | None = None, /) -> int: ...


class Caller(Protocol):
    """What the broker knows of the process at the other end of a stream."""

    number: AgentNo
    process: str

    @property
    def operations(self) -> frozenset[str]: ...

    @property
    def labels(self) -> frozenset[str]: ...


class Way(Protocol):
    """One direction of a stream."""

    def write(self, frame: BrokerFrame) -> None: ...


class Line(Protocol):
    """What the broker knows of a stream."""

    @property
    def down(self) -> Way: ...

    def cut(self) -> None: ...

    def left_by_broker(self) -> None: ...


class Peer:
    """One session as the broker sees it."""

    def __init__(self, session: SessionId, caller: Caller, incarnation: bytes, writer: Writer) -> None:
        self.session = session
        self.caller = caller
        self.agent = caller.number
        self.incarnation = incarnation
        self.writer = writer


class BrokerProcess:
    """`on_commit` hears each batch that is on disk, before it is released. `chance` is its own if none is given."""

    def __init__(
        self,
        course: Course,
        timeline: Timeline,
        chronicle: Chronicle,
        on_commit: Callable[[Batch], None],
        chance: Chance | None = None,
    ) -> None:
        self.stored = Stored()
        self.known: dict[bytes, KnownJob] = {}
        self.is_up = False
        self.is_removed = False
        """Whether an operator has removed the group, which is on disk before the dispatcher hears of it."""
        self.returning_until_us = 0
        """Until when agents may be on their way back after its start."""
        self.epoch = 0
        self.commit_us_max = COMMIT_US
        self.fails_next_commit = False
        self.waiting: dict[int, Callable[[Reply], None]] = {}
        self._course = course
        self.policy = course.policy
        self._timeline = timeline
        self._chance: Chance = chance or Random(f"broker of {course.seed}")
        self._chronicle = chronicle
        self._on_commit = on_commit
        self._ticket = 0
        self._life = 0

    # --- its life ---------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin, from what is on disk. Nothing, if it has begun already."""
        if self.is_up:
            return
        self.is_up = True
        self.returning_until_us = self._timeline.now_us + self.policy.recovery_grace_us
        self.epoch += 1
        self._session_no = 0
        self._chronicle.note(f"the broker starts for the {self.epoch}. time")
        self.dispatcher = self._recovered(JudgedDispatcher, self.stored, self._timeline.now_us)
        self._began = (self.policy, self._copy(), self._timeline.now_us) if self._course.replays else None
        self.dispatcher.begin(keeps=self._course.replays, looks_every=self._course.looks_every)
        self._batcher = Batcher(0)
        self._batcher.add(GROUP, self.dispatcher)
        self._mailbox: list[Event] = []
        self._heard: dict[SessionId, tuple[AgentNo, int]] = {}
        self.peers: dict[Line, Peer] = {}
        self.sessions: dict[SessionId, Peer] = {}
        """All of this life, also those whose stream has ended."""
        self._stalled_until_us = 0
        self._stood_from_us: int | None = None  # since the last turn
        self._asleep: list[Callable[[], None]] = []
        self._arm()
        if self.is_removed:
            self.remove_group()

    def _recovered(self, kind: type[DispatcherT], stored: Stored, now_us: int) -> DispatcherT:
        dispatcher = kind(GROUP, self.policy, self.epoch, self._jitter())
        stored.recover(dispatcher, now_us)
        return dispatcher

    def _jitter(self) -> Randomness:
        return Random(self.epoch)

    def _copy(self) -> Stored:
        """What is on disk now, apart from what will be: rows never change, their containers do."""
        other = Stored()
        for name in Stored.__slots__:
            setattr(other, name, copy(getattr(self.stored, name)))
        return other

    def judge_life(self) -> None:
        """What only a whole life shows: that its events have the same effects again, and that its rows say it all."""
        found = check(self.dispatcher)
        if self._began is not None:
            policy, stored, at_us = self._began
            again = Dispatcher(GROUP, policy, self.epoch, self._jitter())
            stored.recover(again, at_us)
            found += self.dispatcher.watcher.replay(again)
            self._chronicle.count("life replayed")
        if self._batcher.pending is None:
            found += self.dispatcher.watcher.recovery(self.stored)
            found += self._agents_recovered()
        judge(found)

    def _agents_recovered(self) -> list[Violation]:
        """Invariant 10, of agents: whoever recovers them would write the rows that they came from, links aside."""
        again = self._recovered(Dispatcher, self.stored, self._timeline.now_us).ledger
        for agent in again.agents.values():
            again.write_agent(agent)
        return [
            Violation(10, f"agent {row.agent_no} is recovered as {row}, stored as {stored}")
            for row in again.effects.writes.agents
            if row._replace(link="") != (stored := self.stored.agents[row.agent_no])._replace(link="")
        ]

    def configure(self, spread: Spread, *, refuses_inactive: bool) -> None:
        """An operator configures the group: that is on disk before the dispatcher hears of it."""
        self.policy = replace(self.policy, spread=spread, refuses_inactive=refuses_inactive)
        self.ask(lambda ticket: GroupConfigured(ticket, spread, refuses_inactive))

    def remove_group(self) -> None:
        """An operator removes the group: that is on disk before the dispatcher hears of it, and said at each start."""
        self.is_removed = True
        self.ask(lambda ticket: GroupRemoveRequested(ticket, OPERATOR))

    def kill(self, *, keeps: bool | None = None) -> None:
        """`kill -9`. Whether the batch under way is on disk `keeps` says, or chance; nobody is answered."""
        self._chronicle.note("the broker is killed")
        self.judge_life()
        self.is_up = False
        self._life += 1
        pending = self._batcher.pending
        if pending is not None:
            is_on_disk = self._chance.random() < 0.5 if keeps is None else keeps
            self._chronicle.count("killed after commit" if is_on_disk else "killed before commit")
            if is_on_disk:
                self._store(pending)
        self.waiting.clear()
        for stream in list(self.peers):
            stream.cut()
        self.peers.clear()

    def stall(self, for_us: int) -> None:
        """The process stands still: what arrives waits, timers are late."""
        if self._stood_from_us is None:
            self._stood_from_us = self._timeline.now_us
        self._stalled_until_us = self._timeline.now_us + for_us
        self._timeline.at(self._stalled_until_us, self._now_or_never(self._awake))

    def _awake(self) -> None:
        asleep, self._asleep = self._asleep, []
        for act in asleep:
            act()
        self._turn()

    def _now_or_never(self, act: Callable[[], None]) -> Callable[[], None]:
        """`act` if this life of the process lasts until then; when the process stands still, afterwards."""
        life = self._life

        def acting() -> None:
            if life != self._life:
                return
            if self._timeline.now_us < self._stalled_until_us:
                self._asleep.append(act)
            else:
                act()

        return acting

    @property
    def is_settled(self) -> bool:
        """Whether it is up and all that it knows is on disk."""
        return self.is_up and self._batcher.pending is None and not self._mailbox

    # --- what comes in ----------------------------------------------------------------------------------------------

    def ask(self, make: Callable[[int], Event], then: Callable[[Reply], None] = lambda _: None) -> None:
        """Post an event that is answered; `make` gets its ticket."""
        self._ticket += 1
        self.waiting[self._ticket] = then
        self._post(make(self._ticket))

    def read(self, stream: Line, caller: Caller, incarnation: bytes, frame: Hello | Frame) -> None:
        """A frame has arrived."""
        if self.is_up:
            self._now_or_never(lambda: self._read(stream, caller, incarnation, frame))()

    def forge(self, stream: Line, job_key: JobKey, attempt: int, *, is_progress: bool) -> None:
        """A report arrives on a stream that its agent never made."""
        peer = self.peers[stream]
        if is_progress:
            self._post(AttemptProgressed(peer.agent, peer.session, job_key, attempt, b"0"))
            return
        self._post(AttemptFinished(peer.agent, peer.session, job_key, attempt, OutcomeStatus.SUCCEEDED, body=b"forged"))

    def ended(self, stream: Line) -> None:
        """A stream has ended, for whatever reason."""
        self._now_or_never(lambda: self._ended(stream))()

    def _ended(self, stream: Line) -> None:
        peer = self.peers.pop(stream, None)
        if peer is not None:
            self._post(SessionClosed(peer.agent, peer.session))

    def _read(self, stream: Line, caller: Caller, incarnation: bytes, frame: Hello | Frame) -> None:
        if isinstance(frame, Hello):
            self._session_no += 1
            session = SessionId(self._session_no)
            peer = Peer(session, caller, incarnation, Writer(self.epoch, self.policy))
            self.peers[stream] = self.sessions[session] = peer
            self._post(self._hello(self.peers[stream], frame))
        elif stream in self.peers:
            peer = self.peers[stream]
            self._heard[peer.session] = (peer.agent, self._timeline.now_us)
            if frame.heartbeat is not None:
                peer.writer.beat(frame.heartbeat.seq)
                self._write(stream)
            for event in self._events(peer, frame):
                self._post(event)

    def resync(self, stream: Line) -> None:
        """Ask for the Hello again."""
        self.peers[stream].writer.resync()
        self._write(stream)

    def _hello(self, peer: Peer, hello: Hello) -> AgentConnected:
        return AgentConnected(
            peer.agent,
            peer.session,
            peer.incarnation,
            hello.connect_seq,
            hello.slots,
            hello.capacity.attempts,
            hello.capacity.seq,
            peer.caller.operations,
            peer.caller.labels,
            tuple(AttemptId(JobKey(key), attempt) for key, attempt in hello.held),
            tuple(self._outcome(peer, one) for one in hello.outcomes),
            tuple(AttemptId(JobKey(key), attempt) for key, attempt in hello.finished),
        )

    def _events(self, peer: Peer, frame: Frame) -> list[Event]:
        agent, session = peer.agent, peer.session
        events: list[Event] = [self._hello(peer, frame.hello)] if frame.hello else []
        if frame.capacity is not None:
            events.append(CapacityStated(agent, session, frame.capacity.attempts, frame.capacity.seq))
        events += [AttemptAccepted(agent, session, JobKey(key), attempt) for key, attempt in frame.accepted]
        events += [
            AttemptRejected(agent, session, JobKey(one.job_key), one.attempt, one.reason.name.lower(), one.text)
            for one in frame.rejected
        ]
        events += [AttemptStarted(agent, session, JobKey(key), attempt) for key, attempt in frame.started]
        events += [
            AttemptProgressed(agent, session, JobKey(one.job_key), one.attempt, one.checkpoint)
            for one in frame.progress
        ]
        events += [self._outcome(peer, one) for one in frame.outcomes]
        if frame.drain_request is not None:
            events.append(AgentLeaving(agent, session))
        if frame.goodbye is not None:
            events.append(AgentLeft(agent, session))
        return events

    def _outcome(self, peer: Peer, one: Outcome) -> AttemptFinished:
        return AttemptFinished(
            peer.agent,
            peer.session,
            JobKey(one.job_key),
            one.attempt,
            _STATUS[one.status],
            one.code,
            one.text,
            one.retryable,
            one.content or None,
        )

    # --- batches ----------------------------------------------------------------------------------------------------

    def _post(self, event: Event) -> None:
        self._mailbox.append(event)
        self._timeline.after(self._chance.randrange(MS), self._now_or_never(self._turn))

    def _turn(self) -> None:
        batcher = self._batcher
        if batcher.pending is not None:
            return
        events, self._mailbox = self._mailbox, []
        due_us, now_us = batcher.next_deadline_us(), self._timeline.now_us
        is_due = due_us is not None and due_us <= now_us
        if not events and not is_due:
            return
        late_us = 0 if due_us is None else now_us - due_us
        stood_us = 0 if self._stood_from_us is None else now_us - self._stood_from_us
        self._stood_from_us = None
        lag_us = max(late_us, stood_us) if max(late_us, stood_us) > LAG_US else 0
        batch = batcher.run(now_us, [(GROUP, event) for event in [*self._told(), *map(self._known, events)]], lag_us)
        if batch.seq:
            delay_us = self._chance.randrange(FAILING_US if self.fails_next_commit else self.commit_us_max)
            self._timeline.after(delay_us, self._now_or_never(self._committed))
        else:
            self._release(batch)

    def _told(self) -> list[Event]:
        if not self._heard:
            return []
        heard, self._heard = self._heard, {}
        return [AgentsHeard(tuple((agent, session, at_us) for session, (agent, at_us) in heard.items()))]

    def _known(self, event: Event) -> Event:
        if not isinstance(event, JobSubmitted):
            return event
        row = self.stored.keys.get(event.idempotency_key)
        same_key = None if row is None else KnownJob(row.job_key, row.digest)
        return replace(event, known=self.known.get(event.job_id, same_key))

    def _committed(self) -> None:
        if self.fails_next_commit:  # nobody knows whether it is on disk: the broker ends, and reads it when it starts
            self.fails_next_commit = False
            self._chronicle.count("commit failed")
            self.kill()
            self._timeline.after(self._chance.randrange(50 * MS, 2_000 * MS), self.start)
            return
        batch = self._batcher.committed()
        self._store(batch)
        self._release(batch)

    def _store(self, batch: Batch) -> None:
        for writes in batch.writes.values():
            self.stored.apply(writes)
            self.known |= {row.job_id: KnownJob(row.job_key, row.digest) for row in writes.inserts}
        self._on_commit(batch)

    def _release(self, batch: Batch) -> None:
        for reply in batch.replies():
            self.waiting.pop(reply.ticket)(reply)
        streams = {peer.session: stream for stream, peer in self.peers.items()}
        written: dict[Line, None] = {}
        for send in batch.sends():
            stream = streams.get(send.session)
            if stream is not None:
                self.peers[stream].writer.order(send)
                written[stream] = None
        for stream in written:
            self._timeline.after(self._chance.randrange(3 * MS), self._now_or_never(partial(self._write, stream)))
        self._arm()
        if self._mailbox:
            self._turn()

    def _write(self, stream: Line) -> None:
        peer = self.peers.get(stream)
        if peer is None:
            return
        for frame in peer.writer.pack(self._timeline.now_us):
            stream.down.write(frame)
        if peer.writer.is_ended:
            stream.left_by_broker()
            self._ended(stream)

    def _arm(self) -> None:
        due_us = self._batcher.next_deadline_us()
        if due_us is not None:
            self._timeline.at(due_us, self._now_or_never(self._turn))
