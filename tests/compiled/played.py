"""What a form of the product makes of the same events and the same scenario, for comparison: JSON on standard output.

Run in a process of its own, by the interpreter of the tree or by that of a copy.
"""

import hashlib
import json
import random
from collections.abc import Iterator
from importlib.machinery import EXTENSION_SUFFIXES
from typing import Any

import broker.dispatch.lane
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import (
    AgentAdded,
    AgentConnected,
    AgentLeaving,
    AssignJob,
    AttemptAccepted,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    Event,
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
    OutcomeStatus,
    SessionId,
)
from simulator.world import World
from tests.simulator.worlds import scenario

AGENTS = 4
TURNS = 300
FAULTS: list[dict[str, Any]] = [
    {"at": "4 s", "crash": "erp/1", "for": "3 s"},
    {"at": "6 s", "hang": "erp/2", "for": "14 s"},
    {"at": "8 s", "drain": "erp/3", "for": "6 s", "then": "requeue", "deadline": "1 s"},
    {"at": "12 s", "partition": "zone-c", "for": "3 s", "way": "to-broker"},
    {"at": "20 s", "broker-crash": True, "for": "3 s"},
]


def _events(chance: random.Random, turn: int, assigned: list[AssignJob]) -> Iterator[Event]:
    """What happens in a turn: jobs come, attempts end well or badly, streams break and come back."""
    agent = AgentNo(1 + turn % AGENTS)
    if turn % 41 == 7:
        yield SessionClosed(agent, SessionId(agent))
    if turn % 41 in (0, 9):
        operations = frozenset({"echo"})
        yield AgentConnected(agent, SessionId(agent), b"i" * 16, 1 + turn, 4, 6, 1 + turn, operations, frozenset())
    if turn == TURNS - 40:
        yield AgentLeaving(agent, SessionId(agent))
    for number in range(3 * turn, 3 * turn + 3):
        yield JobSubmitted(
            number + 1,
            number.to_bytes(16, "big"),
            "echo",
            OperationPolicy(no=1),
            number.to_bytes(8, "big"),
            level=1 + number % 5,
            fairness=f"customer-{number % 3}",
            limit_key="narrow" if number % 7 == 0 else "",
            run_timeout_us=30 * SECOND_US,
            total_timeout_us=90 * SECOND_US,
            delay_us=SECOND_US if number % 11 == 0 else 0,
        )
    for order in assigned:
        agent = AgentNo(order.session)
        yield AttemptAccepted(agent, order.session, order.job_key, order.attempt)
        yield AttemptStarted(agent, order.session, order.job_key, order.attempt)
        if chance.random() < 0.1:
            yield CancelRequested(0, order.job_key)
        status = OutcomeStatus.FAILED if chance.random() < 0.2 else OutcomeStatus.SUCCEEDED
        yield AttemptFinished(agent, order.session, order.job_key, order.attempt, status)
    yield TimerFired()


def digest_of_effects() -> str:
    """Of everything that one dispatcher orders, told by a script of events: every field of it, in order."""
    chance = random.Random(7)
    dispatcher = Dispatcher(GroupNo(1), DispatchPolicy(), 1, random.Random(1))
    for number in range(1, AGENTS + 1):
        dispatcher.step(SECOND_US, AgentAdded(0, AgentNo(number), f"agent-{number}"))
    seen = hashlib.blake2b(digest_size=16)
    assigned: list[AssignJob] = []
    for turn in range(TURNS):
        now_us = SECOND_US + turn * 250_000
        for event in _events(chance, turn, assigned):
            dispatcher.step(now_us, event)
        effects = dispatcher.take_effects()
        seen.update(repr((dispatcher.next_deadline_us(), effects)).encode())
        assigned = [send for send in effects.sends if type(send) is AssignJob]
    return seen.hexdigest()


def main() -> None:
    """Play both."""
    run = World(scenario(fidelity="wire", settle="2 s", run="30 s", faults=FAULTS), 5, 0).run()
    seen = {
        "compiled": str(broker.dispatch.lane.__file__).endswith(tuple(EXTENSION_SUFFIXES)),
        "effects": digest_of_effects(),
        "world": run.digest,
        "figures": run.figures,
        "timeline": run.timeline,
        "jobs": run.jobs,
    }
    print(json.dumps(seen, sort_keys=True))


if __name__ == "__main__":
    main()
