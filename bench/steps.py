"""The longest single call of a dispatcher when as much falls due at once as ever can: nothing may stand still for it.

Every step, take of effects and question for the next deadline is timed by the processor's clock (another program's turn
is not ours), and the longest is the figure: while a call runs, the broker reads no frame and answers no one. The slices
(`placements_step_max`, `expiries_step_max`) must keep it under 20 ms whatever happens.

    python -m bench.steps --case deadlines --size 1000000
"""

import argparse
import json
import random
import time
from collections.abc import Callable
from typing import Any, Final

from broker import garbage
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AttemptAccepted,
    CancelRequested,
    Effects,
    Event,
    GroupRemoveRequested,
    JobSubmitted,
    SessionClosed,
    TimerFired,
)
from broker.dispatch.model import (
    SECOND_US,
    AgentNo,
    DispatchPolicy,
    GroupNo,
    OperationPolicy,
    SessionId,
    job_key,
)

GROUP: Final = GroupNo(1)
BATCH: Final = 256
ATTEMPTS: Final = 512
"""What each agent holds where agents are lost."""
POLICY: Final = OperationPolicy(no=1)


class Timed:
    """A dispatcher whose calls are timed from `watch` on."""

    def __init__(self, size: int) -> None:
        self.dispatcher = Dispatcher(GROUP, DispatchPolicy(queue_jobs_max=2 * size), 1, random.Random(1))
        self.now_us = SECOND_US
        self.longest_s = 0.0
        self.longest_call = ""
        self.calls = 0
        self._ticket = 0

    def watch(self) -> None:
        """The scene is set: as in the broker, the collector does not look through it."""
        garbage.tune()
        self.longest_s, self.calls = 0.0, 0

    def _timed(self, call: Callable[..., Any], *arguments: Any) -> Any:
        began_s = time.thread_time()
        result = call(*arguments)
        spent_s = time.thread_time() - began_s
        if spent_s > self.longest_s:
            self.longest_s, self.longest_call = spent_s, type(arguments[1]).__name__ if arguments else call.__name__
        self.calls += 1
        return result

    def turn(self, *events: Event) -> None:
        """One batch, then the timer for as long as the dispatcher asks for it now."""
        for event in events:
            self._timed(self.dispatcher.step, self.now_us, event)
        self._take()
        while (due_us := self._timed(self.dispatcher.next_deadline_us)) is not None and due_us <= self.now_us:
            self._timed(self.dispatcher.step, self.now_us, TimerFired())
            self._take()

    def _take(self) -> Effects:
        effects: Effects = self._timed(self.dispatcher.take_effects)
        return effects

    def advance(self, until_us: int) -> None:
        """Let time pass until then, the timer fires when it is asked for."""
        while (due_us := self._timed(self.dispatcher.next_deadline_us)) is not None and due_us <= until_us:
            self.now_us = max(self.now_us, due_us)
            self.turn()
        self.now_us = until_us

    def submit(self, count: int, start_within_us: int = 0) -> None:
        """Submit that many, a batch at a time."""
        for first in range(0, count, BATCH):
            numbers = range(self._ticket + 1, self._ticket + 1 + min(BATCH, count - first))
            self._ticket = numbers[-1]
            self.turn(*(_submission(number, start_within_us) for number in numbers))

    def connect(self, agents: int, slots: int) -> None:
        """Add agents and connect them."""
        for number in range(1, agents + 1):
            agent, session, operations = AgentNo(number), SessionId(number), frozenset({"echo"})
            hello = AgentConnected(agent, session, b"i", 1, slots, slots, 1, operations, frozenset())
            self.turn(AgentAdded(0, agent, f"agent-{number}"), hello)

    def accept_all(self) -> None:
        """Every agent has taken what it was sent."""
        for agent in self.dispatcher.ledger.agents.values():
            taken = [AttemptAccepted(agent.no, agent.session, key, 1) for key in agent.sent]
            self.turn(*taken)


def _submission(number: int, start_within_us: int) -> JobSubmitted:
    job_id = number.to_bytes(16, "big")
    return JobSubmitted(number, job_id, "echo", POLICY, b"", schedule_to_start_us=start_within_us)


def deadlines(size: int) -> Timed:
    """So many jobs wait, and for all of them the time to start is over at once."""
    timed = Timed(size)
    timed.submit(size, 3_600 * SECOND_US)
    timed.watch()
    timed.advance(timed.now_us + 3_601 * SECOND_US)
    assert not timed.dispatcher.ledger.jobs
    return timed


def filled(size: int) -> Timed:
    """So many jobs are submitted and wait: what holds them grows."""
    timed = Timed(size)
    timed.watch()
    timed.submit(size, 3_600 * SECOND_US)
    assert len(timed.dispatcher.ledger.jobs) == size
    return timed


def removed(size: int) -> Timed:
    """The group is removed with agents that work and so many jobs in all."""
    timed = _working(size // 2)
    timed.submit(size // 2)
    timed.turn(GroupRemoveRequested(0))
    assert not timed.dispatcher.ledger.jobs
    return timed


def cancels(size: int) -> Timed:
    """So many jobs that are due within the minute are cancelled: their deadlines are forgotten."""
    timed = Timed(size)
    timed.submit(size, 3_600 * SECOND_US)
    timed.advance(timed.now_us + 3_590 * SECOND_US)
    timed.watch()
    for last in range(size, 0, -BATCH):  # the newest first: their entries stand last
        keys = [job_key(GROUP, number) for number in range(last, max(last - BATCH, 0), -1)]
        timed.turn(*(CancelRequested(key, key) for key in keys))
    assert not timed.dispatcher.ledger.jobs
    return timed


def _working(size: int) -> Timed:
    timed = Timed(size)
    timed.connect(size // ATTEMPTS, ATTEMPTS)
    timed.submit(size)
    timed.accept_all()
    timed.advance(timed.now_us + 2 * SECOND_US)
    timed.watch()
    assert sum(len(agent.live) for agent in timed.dispatcher.ledger.agents.values()) == size // ATTEMPTS * ATTEMPTS
    return timed


def closed(size: int) -> Timed:
    """Agents with so many attempts, all streams end at once, and nobody comes back."""
    timed = _working(size)
    timed.turn(*(SessionClosed(agent, SessionId(agent)) for agent in timed.dispatcher.ledger.agents))
    timed.advance(timed.now_us + 3 * SECOND_US)
    assert not any(agent.live for agent in timed.dispatcher.ledger.agents.values())
    return timed


def silent(size: int) -> Timed:
    """Agents with so many attempts, none is heard any more."""
    timed = _working(size)
    timed.advance(timed.now_us + 20 * SECOND_US)
    assert not any(agent.live for agent in timed.dispatcher.ledger.agents.values())
    return timed


def stalled(size: int) -> Timed:
    """Agents with so many attempts, and the broker stood still for a while."""
    timed = _working(size)
    timed.now_us += 5 * SECOND_US
    timed.turn(TimerFired(lag_us=5 * SECOND_US))
    return timed


CASES: Final[dict[str, Callable[[int], Timed]]] = {
    "filled": filled,
    "deadlines": deadlines,
    "cancels": cancels,
    "closed": closed,
    "silent": silent,
    "stalled": stalled,
    "removed": removed,
}


def measure(case: str, size: int) -> dict[str, object]:
    """One row of the table."""
    timed = CASES[case](size)
    return {
        "case": case,
        "size": size,
        "calls": timed.calls,
        "longest_ms": round(timed.longest_s * 1e3, 2),
        "in": timed.longest_call,
    }


def main() -> None:
    """Measure one case and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.steps", description="One row: the longest single call.")
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--size", type=int, default=1_000_000)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.case, asked.size)))


if __name__ == "__main__":
    main()
