"""An agent in memory: the real session, driven as `agent_stub.client` drives it, with runs that take virtual time."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from agent_stub.backoff import Backoff
from agent_stub.session import (
    FENCED,
    AgentSession,
    Hello,
    Key,
    LeaveStream,
    Order,
    Outcome,
    OutcomeStatus,
    Phase,
    Progress,
    StartRun,
    StopRun,
)
from broker.dispatch.model import AgentNo, JobKey
from simulator.fuzz.broken import expect
from simulator.fuzz.broker import BrokerProcess
from simulator.fuzz.chronicle import Chronicle
from simulator.fuzz.course import HOPELESS, NAMES, POISON, Course, claims, labels_of, serves
from simulator.fuzz.frames import BrokerFrame, work
from simulator.fuzz.timeline import MS, S, Stream, Timeline

RUN_TIMES_US: Final = (5 * MS, 200 * MS, S, S, 4 * S, 4 * S, 4 * S, 15 * S)
POISONED_US: Final = 50 * MS
"""How long a job that kills its agent runs before it does."""
HELLO_BYTES: Final = 300
"""Few, so that some outcomes follow after Welcome."""


class Run:
    """A handler at work. `ends_us` moves forward when it is told to stop; an older `version` of its end is void."""

    def __init__(self, key: Key, status: OutcomeStatus, ends_us: int, *, is_exclusive: bool) -> None:
        self.key = key
        self.status = status
        self.ends_us = ends_us
        self.is_exclusive = is_exclusive
        self.is_fenced = False
        self.version = 0
        self.left_us = 0  # what is left of it while its process stands still


class Journal:
    """What really ran, as nobody in the mesh can know it. `executing` are exclusive jobs and who runs them now."""

    def __init__(self, chronicle: Chronicle) -> None:
        self.started: dict[Key, str] = {}
        self.succeeded: set[Key] = set()
        self.executing: dict[int, tuple[Key, str]] = {}
        self._chronicle = chronicle

    def starts(self, run: Run, process: str) -> None:
        """A handler begins: the only one of this attempt, ever (invariant 3)."""
        other = self.started.setdefault(run.key, process)
        expect(other == process, "inv03", f"attempt {run.key} starts on {process}, and has run on {other}")
        self._chronicle.note(f"attempt {run.key[1]} starts on {process}", run.key[0])

    def ends(self, run: Run, process: str) -> None:
        """A handler has ended by itself, or because it was told to."""
        self.stands_still(run)
        if run.status is OutcomeStatus.SUCCEEDED:
            self.succeeded.add(run.key)
        self._chronicle.note(f"attempt {run.key[1]} ends on {process}: {run.status.name.lower()}", run.key[0])

    def goes_on(self, run: Run, process: str) -> None:
        """The run executes from now on. Two of one exclusive job never do at a time (promise P3)."""
        if run.is_exclusive:
            other = self.executing.setdefault(run.key[0], (run.key, process))
            is_alone = other == (run.key, process)
            expect(is_alone, "P3", f"exclusive job {run.key[0]}: {run.key} on {process} while {other} runs")

    def stands_still(self, run: Run) -> None:
        """The run executes no more, or not now."""
        if run.is_exclusive:
            self.executing.pop(run.key[0], None)


class AgentProcess:
    """One process of an agent, from its start to its end. `on_end` hears why it is over."""

    def __init__(
        self,
        course: Course,
        name: str,
        number: AgentNo,
        life: int,
        *,
        timeline: Timeline,
        broker: BrokerProcess,
        journal: Journal,
        on_end: Callable[[AgentProcess], None],
    ) -> None:
        self.name = name
        self.process = f"{name}/{life}"
        self.number = number
        self.stream: Stream | None = None
        self.is_over = False
        self.is_frozen = False
        self._chance = chance = Random(f"agent {self.process} of {course.seed}")
        place = NAMES.index(name)
        self.session = AgentSession(
            chance.randint(1, 3), chance.randint(0, 1), operations=serves(course, place), hello_bytes_max=HELLO_BYTES
        )
        self._course = course
        self._operations = claims(course, place)
        self._labels = labels_of(course, place)
        self._timeline = timeline
        self._broker = broker
        self._journal = journal
        self._on_end = on_end
        self._runs: dict[Key, Run] = {}
        self._backlog: list[Callable[[], None]] = []
        self._backoff = Backoff(chance, 0.05, 0.6)
        self._offset_us = chance.randrange(100 * S)  # its clock began with its machine
        self._timer_us = 0
        self._has_just_woken = False
        self._cut_off_until_us = 0
        self._mute_until_us = 0
        self._dial()

    @property
    def now_us(self) -> int:
        """The agent's own clock."""
        return self._timeline.now_us + self._offset_us

    @property
    def operations(self) -> frozenset[str]:
        """What it says in its Hello that it runs."""
        return self._operations

    @property
    def labels(self) -> frozenset[str]:
        """What it says of itself in its Hello."""
        return self._labels

    @property
    def job_keys(self) -> list[JobKey]:
        """The jobs that it runs."""
        return [JobKey(key) for key, _ in self._runs]

    # --- its life ---------------------------------------------------------------------------------------------------

    def kill(self) -> None:
        """`kill -9`: everything of it is gone, and its runs with it."""
        if self.is_over:
            return
        for run in self._runs.values():
            self._journal.stands_still(run)
        self._runs.clear()
        self._end()
        if self.stream is not None:
            self.stream.cut()

    def freeze(self, for_us: int) -> None:
        """SIGSTOP for a while: nothing is read, nothing runs, its clock goes on."""
        self.is_frozen = True
        for run in self._runs.values():
            self._journal.stands_still(run)
            run.version += 1
            run.left_us = max(1, run.ends_us - self._timeline.now_us)
        self._timeline.after(for_us, self._wake)

    def cut_off(self, for_us: int) -> None:
        """Its network is away for a while, and nobody is told."""
        self._cut_off_until_us = self._timeline.now_us + for_us
        if self.stream is not None:
            self.stream.cut(is_silent=True)

    def mute(self, for_us: int) -> None:
        """None of its heartbeats gets through for a while; everything else does."""
        self._mute_until_us = self._timeline.now_us + for_us

    def _wake(self) -> None:
        if self.is_over:
            return
        self.is_frozen = False
        backlog, self._backlog = self._backlog, []
        if self._chance.random() < 0.5:
            backlog.append(self._on_timer)
        else:
            backlog.insert(0, self._on_timer)
        # What is fenced now, or was before it stood still, is killed in the first moment: it executes no step more.
        self._has_just_woken = True
        for run in list(self._runs.values()):
            run.ends_us = self._timeline.now_us + run.left_us
            if run.is_fenced:
                self._end_run(run, 0)
        for act in backlog:
            self._alive(act)
        self._has_just_woken = False
        for run in self._runs.values():
            self._journal.goes_on(run, self.process)
            if run.left_us:
                self._end_run(run, run.left_us)

    def drain(self) -> None:
        """SIGTERM."""
        if not self.is_over and not self.is_frozen:
            self.session.drain("SIGTERM")
            self._pump()

    def _end(self) -> None:
        self.is_over = True
        self._on_end(self)

    def _alive(self, act: Callable[[], None]) -> None:
        """Do it, unless the process has ended; when it stands still, afterwards."""
        if self.is_frozen:
            self._backlog.append(act)
        elif not self.is_over:
            act()

    def _later(self, delay_us: int, act: Callable[[], None]) -> None:
        self._timeline.after(delay_us, lambda: self._alive(act))

    # --- the stream -------------------------------------------------------------------------------------------------

    def _dial(self) -> None:
        if self.session.phase is not Phase.OFFLINE or self.stream is not None:
            return
        incarnation = self.process.encode()
        stream = Stream(
            self._timeline,
            self._chance,
            to_broker=lambda one, frame: self._broker.read(one, self, incarnation, frame),
            to_agent=lambda one, frame: self._alive(lambda: self._read(one, frame)),
            ended_at_broker=self._broker.ended,
            ended_at_agent=lambda one: self._alive(lambda: self._ended(one)),
        )
        self.stream = stream
        hello: Hello = self.session.hello(self.now_us)
        if self._broker.is_up and self._timeline.now_us >= self._cut_off_until_us:
            stream.up.write(hello)
        else:
            stream.cut()
        self._pump()

    def _ended(self, stream: Stream, retry_after_us: int = 0) -> None:
        if stream is not self.stream:
            return
        self.stream = None
        if self.session.phase is Phase.LEFT:
            self._end()
            return
        self.session.disconnected(self.now_us)
        self._pump()
        self._later(round(self._backoff.next_delay_s(retry_after_us / S) * S), self._dial)

    def _leave(self, retry_after_us: int = 0) -> None:
        stream = self.stream
        if stream is not None:
            stream.left_by_agent()
            self._ended(stream, retry_after_us)

    def _read(self, stream: Stream, frame: BrokerFrame) -> None:
        if stream is not self.stream:
            return
        if frame.reject_retry_us == 0:  # for good: the process gives up
            self.kill()
            return
        if frame.reject_retry_us is not None:
            self._leave(frame.reject_retry_us)
            return
        work(self.session, self.now_us, frame)
        if frame.welcome is not None and self.session.is_live:
            self._backoff.reset()
        self._pump()

    # --- orders of the session --------------------------------------------------------------------------------------

    def _pump(self) -> None:
        while orders := self.session.take_orders():
            for order in orders:
                self._carry_out(order)
        while self.stream is not None and (frame := self.session.take_frame(self.now_us)) is not None:
            if self._timeline.now_us < self._mute_until_us:
                frame.heartbeat = None
            self.stream.up.write(frame)
            if frame.goodbye is not None:
                self._say_goodbye(self.stream)
        self._arm()
        is_alone = self.session.phase in (Phase.OFFLINE, Phase.GREETING)
        if self.session.is_leaving and self.session.is_idle and is_alone and not self.is_over:
            self._end()
            if self.stream is not None:
                self.stream.cut()

    def _say_goodbye(self, stream: Stream) -> None:
        """It is written: the broker reads it, or the connection breaks; either way the process ends."""
        self._timeline.after(stream.up.extra_us + 100 * MS, lambda: self._broker.ended(stream))
        self._later(200 * MS, lambda: self._ended(stream))

    def _carry_out(self, order: Order) -> None:
        if isinstance(order, StartRun):
            self._start(order)
        elif isinstance(order, StopRun):
            self._stop(order)
        elif isinstance(order, LeaveStream):
            self._later(0, self._leave)

    def _start(self, order: StartRun) -> None:
        key = (order.assign.job_key, order.assign.attempt)
        failed = self._chance.random() < self._course.failing or order.assign.operation == HOPELESS
        status = OutcomeStatus.FAILED if failed else OutcomeStatus.SUCCEEDED
        run = Run(key, status, self._timeline.now_us, is_exclusive=order.assign.exclusive)
        self._runs[key] = run
        self._journal.starts(run, self.process)
        if not self._has_just_woken:
            self._journal.goes_on(run, self.process)
        if order.assign.operation == POISON:
            self._end_run(run, 2 * POISONED_US)
            self._later(POISONED_US, self.kill)
        else:
            self._end_run(run, self._chance.choice(RUN_TIMES_US))
            if "progress" in self._course.features:
                for quarter in (1, 2, 3):
                    self._later(quarter * (run.ends_us - self._timeline.now_us) // 4, lambda: self._progress(key))

    def _progress(self, key: Key) -> None:
        """A run that goes on says from where it could be taken up."""
        if key in self._runs:
            self.session.progressed(Progress(*key, checkpoint=b"%d" % key[1]))
            self._pump()

    def _stop(self, order: StopRun) -> None:
        run = self._runs.get((order.job_key, order.attempt))
        if run is None:
            return
        if run.status is OutcomeStatus.FAILED or self._chance.random() < 0.9:
            run.status = OutcomeStatus.CANCELLED
        run.is_fenced = run.is_fenced or order.reason == FENCED
        is_slow = order.reason != FENCED and self._chance.random() < self._course.slow_stops
        is_slow = is_slow and not run.is_fenced  # of several stops the one that ends first counts (agent_stub.runner)
        delay_us = 20 * S if is_slow else self._chance.randrange(900 * MS)
        if self._has_just_woken:
            delay_us = 0
        if delay_us < run.ends_us - self._timeline.now_us or is_slow:
            self._end_run(run, delay_us)

    def _end_run(self, run: Run, delay_us: int) -> None:
        run.version += 1
        run.left_us = 0
        run.ends_us = self._timeline.now_us + delay_us
        version = run.version
        if delay_us:
            self._later(delay_us, lambda: self._finish(run, version))
        else:
            self._finish(run, version)

    def _finish(self, run: Run, version: int) -> None:
        if run.version != version or self._runs.pop(run.key, None) is None:
            return
        self._journal.ends(run, self.process)
        text = f"{run.key} on {self.process}"
        is_failed = run.status is OutcomeStatus.FAILED
        content = b"" if is_failed else text.encode()
        self.session.finished(
            self.now_us, Outcome(*run.key, run.status, "boom" if is_failed else "", "", True, content)
        )
        if not self._has_just_woken:
            self._pump()

    def _on_timer(self) -> None:
        self._timer_us = 0
        self.session.timer(self.now_us)
        self._pump()

    def _arm(self) -> None:
        due_us = self.session.next_deadline_us()
        if due_us is None or self.is_over:
            return
        at_us = max(due_us - self._offset_us, self._timeline.now_us + MS)
        if not self._timer_us or at_us < self._timer_us:
            self._timer_us = at_us
            self._timeline.at(at_us, lambda: self._alive(lambda: self._timed(at_us)))

    def _timed(self, at_us: int) -> None:
        if self._timer_us == at_us:
            self._on_timer()
