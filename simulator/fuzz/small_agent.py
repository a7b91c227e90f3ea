"""An agent of a small mesh: the real session, whose driver does nothing by itself. See `simulator.fuzz.small`."""

from __future__ import annotations

from typing import Final

from agent_stub.session import (
    FENCED,
    AgentSession,
    Frame,
    Hello,
    Key,
    LeaveStream,
    Order,
    Outcome,
    OutcomeStatus,
    Phase,
    StartRun,
    StopRun,
)
from broker.dispatch.model import AgentNo
from simulator.fuzz.agent import Journal, Run
from simulator.fuzz.course import NAMES, WORK
from simulator.fuzz.frames import BrokerFrame, work
from simulator.fuzz.line import Line
from simulator.fuzz.timeline import S, Timeline

OPERATIONS: Final = frozenset({WORK})
WELCOME_TIMEOUT_US: Final = 6 * S
BEAT_US: Final = 2 * S


class SmallAgent:
    """One process of an agent, from its start to its end.

    `line` is its stream (None: it wants to dial), `runs` what it executes: each ends when it is told to.
    """

    def __init__(self, number: AgentNo, life: int, timeline: Timeline, journal: Journal) -> None:
        self.number = number
        self.process = f"{NAMES[number - 1]}/{life}"
        self.session = AgentSession(1, operations=OPERATIONS, welcome_timeout_us=WELCOME_TIMEOUT_US)
        self.line: Line | None = None
        self.runs: dict[Key, Run] = {}
        self.is_over = False
        self.again_us = 0
        """When its timer is due at the earliest: time goes on past a session that does not heed it."""
        self._timeline = timeline
        self._journal = journal

    @property
    def operations(self) -> frozenset[str]:
        """What it says in its Hello that it runs."""
        return OPERATIONS

    @property
    def labels(self) -> frozenset[str]:
        """What it says of itself in its Hello."""
        return frozenset()

    @property
    def may_dial(self) -> bool:
        """Whether it has no stream and wants one; a process that has ended, once it is started again."""
        return self.line is None

    @property
    def due_us(self) -> int | None:
        """When `timer` is due; None: not before something else happens."""
        due_us = None if self.is_over else self.session.next_deadline_us()
        return None if due_us is None else max(due_us, self.again_us)

    # --- what happens to it -----------------------------------------------------------------------------------------

    def dial(self) -> Line:
        """A new stream is open, and says Hello."""
        line = self.line = Line(self.number)
        hello: Hello = self.session.hello(self._timeline.now_us)
        line.up.write(hello)
        self._pump()
        return line

    def read(self, frame: BrokerFrame) -> None:
        """A frame has arrived on its stream."""
        if frame.reject_retry_us is not None:
            self._leave()
            return
        work(self.session, self._timeline.now_us, frame)
        self._pump()

    def hear_the_end(self) -> None:
        """Its stream has ended."""
        self.line = None
        if self.session.phase is Phase.LEFT:
            self.is_over = True
            return
        self.session.disconnected(self._timeline.now_us)
        self._pump()

    def timer(self) -> None:
        """Its deadline has come."""
        now_us = self._timeline.now_us
        self.session.timer(now_us)
        self._pump()
        due_us = self.session.next_deadline_us()
        self.again_us = now_us + BEAT_US if due_us is not None and due_us <= now_us else 0

    def finish(self, key: Key) -> None:
        """A run ends: well, unless it was told to stop."""
        run = self.runs.pop(key)
        self._journal.ends(run, self.process)
        content = f"{key} on {self.process}".encode() if run.status is OutcomeStatus.SUCCEEDED else b""
        self.session.finished(self._timeline.now_us, Outcome(*key, run.status, content=content))
        self._pump()

    def drain(self) -> None:
        """SIGTERM."""
        self.session.drain("SIGTERM")
        self._pump()

    def kill(self) -> None:
        """`kill -9`: everything of it is gone, its runs, and what is under way on its stream."""
        for run in self.runs.values():
            self._journal.stands_still(run)
        self.runs.clear()
        self.is_over = True
        if self.line is not None:
            self.line.cut()
            self.line.ends_at_agent = False
            self.line = None

    # --- orders of the session --------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while orders := self.session.take_orders():
            for order in orders:
                self._carry_out(order)
        while self.line is not None and (frame := self.session.take_frame(self._timeline.now_us)) is not None:
            self.line.up.write(frame)
            if frame.goodbye is not None:
                self.line.left_by_agent()
                self.line = None
                self.is_over = True
        is_alone = self.session.phase in (Phase.OFFLINE, Phase.GREETING)
        if self.session.is_leaving and self.session.is_idle and is_alone and not self.is_over:
            self.kill()

    def _carry_out(self, order: Order) -> None:
        if isinstance(order, StartRun):
            key = (order.assign.job_key, order.assign.attempt)
            run = Run(key, OutcomeStatus.SUCCEEDED, 0, is_exclusive=order.assign.exclusive)
            self.runs[key] = run
            self._journal.starts(run, self.process)
            self._journal.goes_on(run, self.process)
        elif isinstance(order, StopRun):
            self._stop(order)
        elif isinstance(order, LeaveStream):
            self._leave()

    def _stop(self, order: StopRun) -> None:
        """A run that is told to stop ends when it likes; at the fence it is killed."""
        run = self.runs.get((order.job_key, order.attempt))
        if run is not None:
            run.status = OutcomeStatus.CANCELLED
            if order.reason == FENCED:
                self.finish(run.key)

    def _leave(self) -> None:
        if self.line is not None:
            self.line.left_by_agent()
            self.hear_the_end()


def is_beat_only(frame: Hello | Frame) -> bool:
    """Whether a frame says nothing but that its agent lives."""
    return isinstance(frame, Frame) and frame == Frame(heartbeat=frame.heartbeat)
