"""The broker of the simulated world: what `broker.engine` does, in virtual time, over the same `Batcher`.

    mailbox -> step -> one commit -> replies, frames, notices -> re-arm

The event loop is serial: while it works, or a commit runs, events gather and share the next turn. Heartbeats are
stamped and answered at the edge, without a turn. At `exact` a turn costs no time and takes the events one by one.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from agent_stub.session import Frame, Heartbeat
from broker.dispatch.batch import Batch, Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AgentsHeard,
    AssignJob,
    EndSession,
    Event,
    JobAccepted,
    JobSubmitted,
    Notice,
    RankSet,
    RejectAgent,
    RequestRefused,
    Send,
    SessionClosed,
)
from broker.dispatch.model import AgentNo, GroupNo, SessionId
from broker.dispatch.stored import Stored
from simulator.agent_frames import events_of, hello_of
from simulator.clock import Clock
from simulator.fleet import Fleet
from simulator.network import Connection, Network
from simulator.recorder import Recorder
from simulator.scenario import Fidelity, Scenario
from simulator.store import SimStore
from simulator.streams import SECOND_US, Stream, Streams
from simulator.workload import SimJob

LAG_US: Final = 500_000
"""A turn later than this is a stall of ours, as in `broker.engine`."""
CLOCK_TOLERANCE_US: Final = 5_000_000
"""A broker starts with a clock that is so far behind, as in `broker.clock`."""
CONTROL_MAX: Final = 256
REPORTS_MAX: Final = 512
SUBMISSIONS_MAX: Final = 256

Posted = tuple[GroupNo, Event]
Outbox = dict[SessionId, list[Send]]
"""What leaves in one turn: a frame for each session."""


class Driver:
    """Drives the dispatchers of all groups. `keeps_rows`: the broker may crash, so what is stored is kept."""

    # With more than thirty attributes instances share no dictionary keys, and each look-up takes longer.
    __slots__ = (
        *("_asked_again", "_batcher", "_clock", "_committed_us", "_connections", "_control", "_costs", "_edge_us"),
        *("_fleets", "_frame_us", "_has_costs", "_heard", "_interval_us", "_is_busy", "_is_exact", "_is_wire", "_life"),
        *("_network", "_not_before_us", "_recorder", "_report_us", "_reports", "_rows", "_sessions", "_streams"),
        *("_submission_us", "_submissions", "_submitting_us", "_tickets", "_turn_us", "_unanswered", "_wake_us"),
        *("ahead_us", "epoch", "is_up", "refuses_until_us", "store", "wall_us", "when_noticed"),
    )

    def __init__(
        self,
        clock: Clock,
        scenario: Scenario,
        streams: Streams,
        network: Network,
        recorder: Recorder,
        fleets: Sequence[Fleet],
        *,
        keeps_rows: bool,
    ) -> None:
        self._clock = clock
        self._network = network
        self._recorder = recorder
        self._fleets = {fleet.no: fleet for fleet in fleets}
        self._streams = streams
        self._costs = scenario.broker.costs
        self._is_exact = scenario.broker.fidelity is Fidelity.EXACT
        self._has_costs = scenario.broker.fidelity in (Fidelity.BROKER, Fidelity.WIRE)
        self._is_wire = scenario.broker.fidelity is Fidelity.WIRE
        self._turn_us = self._costs.turn * SECOND_US
        self._submission_us = self._costs.submission * SECOND_US
        self._report_us = self._costs.report * SECOND_US
        self._frame_us = self._costs.frame * SECOND_US
        self._interval_us = round(scenario.broker.commits.interval * SECOND_US)
        self.store = SimStore(scenario.broker.commits, streams)
        self.when_noticed: Callable[[Fleet, Sequence[Notice]], None] | None = None
        """Called with what has become durable, before the recorder hears of it."""
        self.is_up = True
        self.refuses_until_us = 0
        """Before then no new stream is let in."""
        self.wall_us = 0
        """How far the wall clock of the broker's machine is ahead of virtual time; a broker reads it when it starts."""
        self.ahead_us = 0
        """How far engine time is: the wall clock, as the broker found it."""
        self.epoch = 1
        self._life = 0
        self._committed_us = 0
        self._is_busy = False
        self._wake_us: int | None = None
        self._not_before_us = 0
        self._edge_us = 0.0  # what frames and connections have cost the loop since the last turn
        self._control: deque[Posted] = deque()
        self._reports: deque[Posted] = deque()
        self._submissions: deque[Posted] = deque()
        self._heard: dict[GroupNo, dict[SessionId, tuple[AgentNo, int]]] = {}
        self._connections: dict[SessionId, Connection] = {}
        self._sessions = itertools.count(1)
        self._tickets = itertools.count(1)
        self._unanswered: dict[int, SimJob] = {}
        self._asked_again = 0  # tickets up to here were submitted again after a crash
        submit = scenario.network.submit
        is_at_once = self._is_exact or submit.constant == 0
        self._submitting_us = None if is_at_once else streams.times_us(submit, Stream.SUBMITTING)
        self._rows = {fleet.no: Stored() for fleet in fleets} if keeps_rows else {}
        self._batcher = Batcher(0)
        for fleet in fleets:
            self._batcher.add(fleet.no, self._new_dispatcher(fleet))

    def _new_dispatcher(self, fleet: Fleet) -> Dispatcher:
        return Dispatcher(fleet.no, fleet.policy, self.epoch, self._streams.chance(fleet.no, self.epoch))

    # --- what comes in ----------------------------------------------------------------------------------------------

    def submit(self, job: SimJob) -> None:
        """Somebody submits a job. While the broker is away it waits at the submitter, who asks again."""
        ticket = next(self._tickets)
        self._unanswered[ticket] = job
        self._recorder.arrived(job)
        if self._submitting_us is None:
            self._receive(ticket)
        else:
            self._clock.after(next(self._submitting_us), self._receive, ticket)

    def _receive(self, ticket: int) -> None:
        """A submission is here. One that comes to a broker that is away, or was sent to it again, is dropped."""
        job = self._unanswered.get(ticket)
        if self.is_up and job is not None and ticket > self._asked_again:
            self._submissions.append((job.work.group, self._submission(ticket, job)))
            self._kick()

    def _submission(self, ticket: int, job: SimJob) -> JobSubmitted:
        load = job.work
        work = load.work
        identity = (load.number << 64 | job.number).to_bytes(16, "big")
        return JobSubmitted(
            ticket,
            identity,
            load.operation,
            load.policy,
            identity,
            load.labels,
            work.level,
            load.fairness_of(job) if load.is_shared else "",
            schedule_to_start_us=job.start_within_us,
            run_timeout_us=load.run_timeout_us,
            total_timeout_us=load.deadline_us,
        )

    def add_agent(self, group: GroupNo, agent: AgentNo, agent_id: str, rank: int = 0) -> None:
        """An operator adds an agent, and gives it its rank."""
        self.control(group, AgentAdded(next(self._tickets), agent, agent_id))
        if rank:
            self.control(group, RankSet(next(self._tickets), agent, rank))

    def ask(self, group: GroupNo, make: Callable[[int], Event]) -> None:
        """An operator asks for something; `make` gets the ticket. What a broker that is away is asked is lost."""
        self.control(group, make(next(self._tickets)))

    def control(self, group: GroupNo, event: Event) -> None:
        """Post a control event."""
        if self.is_up:
            self._control.append((group, event))
            self._kick()

    def report(self, group: GroupNo, events: Sequence[Event]) -> None:
        """Post what an agent reports."""
        if self.is_up:
            for event in events:
                self._reports.append((group, event))
            self._kick()

    # --- streams ----------------------------------------------------------------------------------------------------

    def lets_in(self) -> bool:
        """Whether a new stream comes about now."""
        return self.is_up and self._clock.now_us >= self.refuses_until_us

    def attach(self, connection: Connection, hello: AgentConnected) -> None:
        """The Hello of a stream has arrived: it gets its session."""
        self._connections[connection.session] = connection
        self.control(connection.agent.fleet.no, hello)

    def next_session(self) -> SessionId:
        """A number for a stream."""
        return SessionId(next(self._sessions))

    def on_frame(self, arrived: tuple[Connection, Frame]) -> None:
        """A frame of an agent is here."""
        connection, frame = arrived
        if not self.is_up or not connection.is_open:
            return
        group, agent = connection.agent.fleet.no, connection.agent.no
        if frame.hello is not None:
            if connection.session == 0:
                connection.session = self.next_session()
            self._edge_us += self._costs.connect * SECOND_US if self._is_wire else 0.0
            self.attach(connection, hello_of(connection, frame.hello))
        heard = self._heard.get(group)
        if heard is None:
            heard = self._heard[group] = {}
        heard[connection.session] = (agent, self._clock.now_us + self.ahead_us)
        if frame.heartbeat is not None:
            self._acknowledge(connection, frame.heartbeat)
        events = events_of(connection, frame)
        if events:
            self._edge_us += self._frame_us
            self.report(group, events)

    def _acknowledge(self, connection: Connection, beat: Heartbeat) -> None:
        if self._is_wire:
            self._edge_us += 2 * self._frame_us
        self._network.to_agent(connection, connection.agent.on_beat, (connection, beat.seq, self.epoch))

    def on_closed(self, connection: Connection) -> None:
        """A stream has ended, as the broker sees it."""
        if self._connections.pop(connection.session, None) is not None:
            connection.is_open = False
            self.control(connection.agent.fleet.no, SessionClosed(connection.agent.no, connection.session))

    def close_all(self, agents: Sequence[object]) -> None:
        """Break the streams of these agents, for both sides."""
        chosen = set(map(id, agents))
        for connection in [one for one in self._connections.values() if id(one.agent) in chosen]:
            self._network.to_agent(connection, connection.agent.on_end, (connection, 0))
            self.on_closed(connection)

    # --- turns ------------------------------------------------------------------------------------------------------

    def _kick(self) -> None:
        if self._is_busy or not self.is_up:
            return
        if self._clock.now_us < self._not_before_us:
            self._wake_at(self._not_before_us)
            return
        self._turns()

    def _turns(self) -> None:
        """Take turns until nothing waits, or one of them takes time."""
        self._is_busy = True
        now_us = self._clock.now_us
        if self.ahead_us:  # else the number is the clock's own: each job that waits keeps it
            now_us += self.ahead_us
        while True:
            due_us = self._batcher.next_deadline_us()
            is_due = due_us is not None and due_us <= now_us
            if not (is_due or self._reports or self._submissions or self._control):
                break
            lag_us = now_us - due_us if due_us is not None and now_us - due_us > LAG_US else 0
            submissions = len(self._submissions)
            events = self._take()
            submissions -= len(self._submissions)
            batch = self._batcher.run(now_us, self._heard_events() + events if self._heard else events, lag_us)
            if self._has_costs:
                outbox = [_by_session(effects.sends) for effects in batch.effects.values()]
                spent_us = self._spent_us(batch, submissions, len(events) - submissions, sum(map(len, outbox)))
                self._clock.after(spent_us, self._on_spent, (self._life, batch, outbox))
                return
            self._settle(batch, [_by_session(effects.sends) for effects in batch.effects.values()])
        self._is_busy = False
        if due_us is not None:
            self._wake_at(due_us - self.ahead_us)

    def _take(self) -> list[Posted]:
        if self._is_exact:
            waiting = self._control or self._reports or self._submissions
            return [waiting.popleft()] if waiting else []
        events: list[Posted] = []
        for waiting, most in (
            (self._control, CONTROL_MAX),
            (self._reports, REPORTS_MAX),
            (self._submissions, SUBMISSIONS_MAX),
        ):
            if not waiting:
                continue
            if len(waiting) <= most:
                events.extend(waiting)
                waiting.clear()
            else:
                events.extend([waiting.popleft() for _ in range(most)])
        return events

    def _heard_events(self) -> list[Posted]:
        heard, self._heard = self._heard, {}
        return [
            (group, AgentsHeard(tuple([(agent, session, at_us) for session, (agent, at_us) in sessions.items()])))
            for group, sessions in heard.items()
        ]

    def _spent_us(self, batch: Batch, submissions: int, reports: int, frames: int) -> int:
        """How long the turn takes: the loop's work, then the commit. The loop is free while a commit runs."""
        work_us = self._turn_us + submissions * self._submission_us + reports * self._report_us
        loop_us = round(work_us + frames * self._frame_us + self._edge_us)
        self._edge_us = 0.0
        self._recorder.loop_busy_us += loop_us
        now_us = self._clock.now_us
        self._not_before_us = now_us + self._interval_us
        return max(1, loop_us + (self.store.commit_us(now_us + loop_us) if batch.seq else 0))

    def _on_spent(self, turn: tuple[int, Batch, list[Outbox]]) -> None:
        life, batch, outbox = turn
        if life != self._life:
            return  # the broker died with it
        self._settle(batch, outbox)
        self._is_busy = False
        if self._clock.now_us < self._not_before_us:
            self._wake_at(self._not_before_us)
        else:
            self._turns()

    def _wake_at(self, at_us: int) -> None:
        if self._wake_us is None or at_us < self._wake_us:
            self._wake_us = at_us
            self._clock.at(max(at_us, self._clock.now_us), self._on_wake, at_us)

    def _on_wake(self, at_us: int) -> None:
        if self._wake_us == at_us:
            self._wake_us = None
            self._kick()

    # --- what leaves ------------------------------------------------------------------------------------------------

    def _settle(self, batch: Batch, outbox: list[Outbox]) -> None:
        """The batch is durable: replies, sends, notices."""
        if batch.seq:
            self._batcher.committed()
            self._committed_us = batch.at_us
        recorder = self._recorder
        for (group, effects), frames in zip(batch.effects.items(), outbox, strict=True):
            if self._rows and effects.writes:
                rows = self._rows[group]
                rows.apply(effects.writes)
                rows.finished.clear()
            for reply in effects.replies:
                job = self._unanswered.pop(reply.ticket, None)
                if job is None:
                    continue
                if type(reply) is JobAccepted:
                    recorder.accepted(job, reply.job_key)
                elif type(reply) is RequestRefused:
                    recorder.refused(job)
            if effects.notices:
                if self.when_noticed is not None:
                    self.when_noticed(self._fleets[group], effects.notices)
                recorder.on_notices(group, effects.notices)
            for session, sends in frames.items():
                self._deliver(session, sends)

    def _deliver(self, session: SessionId, sends: list[Send]) -> None:
        connection = self._connections.get(session)
        if connection is None:
            return
        jobs = self._recorder.jobs
        ordered: list[tuple[Send, SimJob | None]] = []
        for send in sends:
            if type(send) is AssignJob:
                ordered.append((send, jobs[send.job_key]))
            elif type(send) is EndSession or type(send) is RejectAgent:
                del self._connections[session]
                connection.is_open = False
                wait_us = send.retry_after_us if isinstance(send, RejectAgent) else 0
                self._network.to_agent(connection, connection.agent.on_end, (connection, wait_us))
                return
            else:
                ordered.append((send, None))
        self._network.to_agent(connection, connection.agent.on_sends, (connection, ordered))

    # --- the broker's death -----------------------------------------------------------------------------------------

    def crash(self) -> None:
        """The broker dies: streams break, what was not committed is gone."""
        self.is_up = False
        self._life += 1
        self._is_busy = False
        self._wake_us = None
        self._heard.clear()
        for waiting in (self._control, self._reports, self._submissions):
            waiting.clear()
        connections = list(self._connections.values())
        self._connections.clear()
        for connection in connections:
            connection.is_open = False
            self._network.to_agent(connection, connection.agent.on_end, (connection, 0))
        self._recorder.broker_down()

    @property
    def behind_us(self) -> int:
        """How long a broker would refuse to start now because its wall clock is behind what is stored."""
        return max(0, self._committed_us - CLOCK_TOLERANCE_US - self._clock.now_us - self.wall_us)

    def recover(self) -> None:
        """A successor takes over: dispatchers from what is stored, under a new epoch; submitters ask again."""
        assert self._rows, "the world keeps rows when the scenario lets the broker crash"
        self.is_up = True
        self.ahead_us = max(self.wall_us, self._committed_us - self._clock.now_us)
        self.epoch += 1
        self._batcher = self._batcher.successor()
        for fleet in self._fleets.values():
            dispatcher = self._new_dispatcher(fleet)
            self._rows[fleet.no].recover(dispatcher, self._clock.now_us + self.ahead_us)
            self._batcher.add(fleet.no, dispatcher)
            for agent in fleet.agents:
                if agent.no not in dispatcher.ledger.agents:  # it was added while nobody could hear it
                    self._control.append((fleet.no, AgentAdded(next(self._tickets), agent.no, agent.name)))
                    self._control.append((fleet.no, RankSet(next(self._tickets), agent.no, agent.pool.rank)))
        for ticket, job in self._unanswered.items():
            self._submissions.append((job.work.group, self._submission(ticket, job)))
            self._asked_again = ticket
        self._kick()

    def dispatcher(self, group: GroupNo) -> Dispatcher:
        """The dispatcher of a group, to read."""
        found = self._batcher.get(group)
        assert found is not None
        return found


def _by_session(sends: list[Send]) -> Outbox:
    if len(sends) == 1:
        return {sends[0].session: sends}
    frames: Outbox = {}
    for send in sends:
        ordered = frames.get(send.session)
        if ordered is None:
            frames[send.session] = [send]
        else:
            ordered.append(send)
    return frames
