"""A step costs what it does, not what the group holds: executed bytecodes are counted, no time is measured."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import pytest

import broker.dispatch
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AgentsHeard,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    JobSubmitted,
    SessionClosed,
    TimerFired,
)
from broker.dispatch.model import (
    SECOND_US,
    AgentNo,
    DispatchPolicy,
    GroupNo,
    JobKey,
    OperationPolicy,
    OutcomeStatus,
    SessionId,
    job_key,
)

GROUP = GroupNo(1)
POLICY = OperationPolicy(no=1, bounces_max=1_000_000)
FOLDER = broker.dispatch.__path__[0]
Act = Callable[["Group"], object]


class Group:
    """A dispatcher with `agents` agents of one slot that work, and `jobs` more jobs that wait."""

    def __init__(self, agents: int, jobs: int) -> None:
        self.dispatcher = Dispatcher(GROUP, DispatchPolicy(), 1, random.Random(1))
        self.now_us = SECOND_US
        self.count = 0
        for number in range(1, agents + 1):
            self.step(AgentAdded(number, AgentNo(number), f"agent-{number}"))
            self.connect(number)
        for _ in range(agents + jobs):
            self.submit()
        self.idle()  # what the start left to tidy up is done: it costs what the start was
        self.dispatcher.take_effects()

    def step(self, event: Any) -> None:
        self.now_us += 1
        self.dispatcher.step(self.now_us, event)

    def connect(self, number: int) -> None:
        operations = frozenset({"work"})
        self.step(AgentConnected(AgentNo(number), SessionId(number), b"i", 1, 1, 1, 1, operations, frozenset()))

    def submit(self) -> None:
        self.count += 1
        number = self.count
        self.step(JobSubmitted(number, number.to_bytes(16, "big"), "work", POLICY, b"", fairness=f"key-{number % 7}"))

    def running(self, number: int = 1) -> JobKey:
        return next(iter(self.dispatcher.ledger.agents[AgentNo(number)].live))

    def finish(self) -> None:
        self.step(AttemptFinished(AgentNo(1), SessionId(1), self.running(), 1, OutcomeStatus.SUCCEEDED))

    def start(self) -> None:
        self.step(AttemptStarted(AgentNo(1), SessionId(1), self.running(), 1))

    def cancel_last(self) -> None:
        self.step(CancelRequested(0, job_key(GROUP, self.count)))

    def heartbeat(self) -> None:
        self.step(AgentsHeard(((AgentNo(1), SessionId(1), self.now_us),)))

    def lose(self) -> None:
        self.step(SessionClosed(AgentNo(1), SessionId(1)))

    def idle(self) -> None:
        self.step(TimerFired())
        self.dispatcher.next_deadline_us()


@contextmanager
def counted() -> Iterator[list[int]]:
    """How many bytecodes of the dispatcher run inside, in a list of one."""
    count = [0]

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDER):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count[0] += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield count
    finally:
        sys.settrace(before)


def work(group: Group, act: Act) -> float:
    """Bytecodes of one act, the average of some."""
    rounds = 5
    with counted() as count:
        for _ in range(rounds):
            act(group)
            group.dispatcher.take_effects()
    assert count[0], "nothing was counted"
    return count[0] / rounds


ACTS: dict[str, Act] = {
    "submit": Group.submit,
    "finish": Group.finish,
    "start": Group.start,
    "cancel": Group.cancel_last,
    "heartbeat": Group.heartbeat,
    "lose": Group.lose,
    "idle": Group.idle,
}


@pytest.fixture(scope="module")
def groups() -> dict[tuple[int, int], Group]:
    return {size: Group(*size) for size in ((10, 1_000), (1_000, 1_000), (10, 100_000))}


@pytest.mark.slow
@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_step_costs_the_same_with_a_hundred_times_more(groups: dict[tuple[int, int], Group], act: Act) -> None:
    small = work(groups[10, 1_000], act)
    assert work(groups[1_000, 1_000], act) < 2 * small + 500, "agents"
    assert work(groups[10, 100_000], act) < 2 * small + 500, "jobs"


@pytest.mark.slow
def test_counting_sees_a_scan(groups: dict[tuple[int, int], Group]) -> None:
    """The measure itself: a walk over all agents costs a hundred times more with a hundred times more agents."""

    def walk(group: Group) -> None:
        group.step(TimerFired(lag_us=1))

    assert work(groups[1_000, 1_000], walk) > 30 * work(groups[10, 1_000], walk)


def test_books_hold_nothing_of_finished_jobs() -> None:
    group = Group(10, 2_000)
    for _ in range(2_000):
        group.finish()
        group.dispatcher.take_effects()
    ledger = group.dispatcher.ledger
    assert len(ledger.jobs) == 10
    assert (ledger.queue.jobs, ledger.queue.waiting) == (0, {})
    assert len(ledger.deadlines) <= 2 * 20 + 128
    assert all(len(one.heap) <= 2 * 10 + 64 for one in ledger.placement.classes.values())
    assert [*ledger.dirty, *ledger.lazy, *ledger.fresh, *ledger.fresh_keys] == []


def test_books_stay_small_when_attempts_time_out_again_and_again() -> None:
    group = Group(10, 0)
    for number in range(2_000):
        agent = number % 10 + 1
        group.step(SessionClosed(AgentNo(agent), SessionId(agent)))
        group.connect(agent)
        group.dispatcher.take_effects()
    ledger = group.dispatcher.ledger
    assert len(ledger.jobs) == 10
    assert len(ledger.deadlines) <= 2 * 20 + 128
    assert sum(lane.size for lane in ledger.queue.lanes.values()) <= 10
