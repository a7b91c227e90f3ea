"""What one job costs the dispatcher, alone and with many agents and jobs in it: no wire, no store, no clock.

Each round takes `JOBS` jobs from submission to their outcome in a dispatcher that already holds a backlog: batches of
submissions go to the end, outcomes free slots, the oldest jobs that fit are placed. Every job has labels, a fairness
key, a priority, three deadlines and an idempotency key. Effects are taken after each batch, as the engine does.

    python -m bench.dispatch --agents 10 --queued 100000 --rounds 3
"""

import argparse
import json
import random
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from broker import garbage
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import AgentAdded, AgentConnected, AssignJob, AttemptFinished, JobSubmitted, TimerFired
from broker.dispatch.model import (
    SECOND_US,
    AgentNo,
    DispatchPolicy,
    GroupNo,
    OperationPolicy,
    OutcomeStatus,
    SessionId,
)

JOBS: Final = 100_000
BATCH: Final = 256
ZONES: Final = ("zone=a", "zone=b")
LABELS: Final = ((), ("zone=a",), ("zone=b",), ("zone=a", "zone=b"))
FAIRNESS: Final = tuple(f"customer-{number}" for number in range(16))
TURN_US: Final = 100


class Bench:
    """A dispatcher with `agents` agents whose slots are all taken while a backlog of `queued` jobs waits."""

    def __init__(self, agents: int, queued: int) -> None:
        policy = DispatchPolicy(queue_jobs_max=2_000_000 + queued)
        self.dispatcher = Dispatcher(GroupNo(1), policy, 1, random.Random(1))
        self.now_us = SECOND_US
        self.finished = 0
        self._operation = OperationPolicy(no=1)
        self._running: deque[AssignJob] = deque()
        self._ticket = 0
        slots = max(4, 2 * BATCH // agents)
        self._connect(agents, slots)
        if queued:
            # The slots are filled first: the backlog waits for room, not for an agent.
            self.submit_all(agents * slots + queued)

    def _connect(self, agents: int, slots: int) -> None:
        for number in range(1, agents + 1):
            agent, session = AgentNo(number), SessionId(number)
            self.dispatcher.step(self.now_us, AgentAdded(0, agent, f"agent-{number}"))
            operations, labels = frozenset({"echo"}), frozenset(ZONES)
            hello = AgentConnected(agent, session, b"incarnation-0001", 1, slots, slots, 1, operations, labels)
            self.dispatcher.step(self.now_us, hello)
        self.dispatcher.take_effects()

    def submissions(self, count: int) -> Iterator[JobSubmitted]:
        """New jobs, all different."""
        for _ in range(count):
            self._ticket += 1
            number = self._ticket
            yield JobSubmitted(
                number,
                number.to_bytes(16, "big"),
                "echo",
                self._operation,
                (~number & 0xFFFFFFFF).to_bytes(16, "big"),
                labels=LABELS[number % len(LABELS)],
                level=1 + number % 5,
                fairness=FAIRNESS[number % len(FAIRNESS)],
                schedule_to_start_us=3_600 * SECOND_US,
                run_timeout_us=30 * SECOND_US,
                total_timeout_us=7_200 * SECOND_US,
                payload_bytes=128,
                idempotency_key=f"order-{number}",
            )

    def submit_all(self, count: int) -> None:
        """Submit that many, a batch at a time."""
        while count > 0:
            self._turn(self.submissions(min(BATCH, count)))
            count -= BATCH

    def run(self, jobs: int) -> float:
        """Take `jobs` jobs through; microseconds a job. Making the events is not counted."""
        spent_s = 0.0
        goal = self.finished + jobs
        while self.finished < goal:
            submissions = list(self.submissions(BATCH))
            outcomes = [self._outcome(self._running.popleft()) for _ in range(min(BATCH, len(self._running)))]
            began_s = time.perf_counter()
            self._turn(outcomes)
            self._turn(submissions)
            spent_s += time.perf_counter() - began_s
            self.finished += len(outcomes)
        return spent_s / jobs * 1e6

    def _turn(self, events: "Iterator[JobSubmitted] | list[JobSubmitted] | list[AttemptFinished]") -> None:
        """One batch: events, the timer, the effects."""
        step, self.now_us = self.dispatcher.step, self.now_us + TURN_US
        for event in events:
            step(self.now_us, event)
        step(self.now_us, TimerFired())
        effects = self.dispatcher.take_effects()
        self._running.extend(send for send in effects.sends if type(send) is AssignJob)

    def _outcome(self, order: AssignJob) -> AttemptFinished:
        agent = AgentNo(order.session)
        return AttemptFinished(agent, order.session, order.job_key, order.attempt, OutcomeStatus.SUCCEEDED)


def measure(agents: int, queued: int, rounds: int) -> dict[str, object]:
    """One row of the table."""
    bench = Bench(agents, queued)
    # As the broker does: what waits is not looked through by the collector, and it collects seldom.
    garbage.tune()
    bench.run(10 * BATCH)
    costs = sorted(bench.run(JOBS) for _ in range(rounds))
    return {
        "agents": agents,
        "queued": queued,
        "jobs": rounds * JOBS,
        "labels": len(ZONES),
        "us_per_job": {
            "median": round(costs[len(costs) // 2], 2),
            "min": round(costs[0], 2),
            "max": round(costs[-1], 2),
        },
        "rounds": rounds,
    }


def main() -> None:
    """Measure one row and print it as JSON."""
    parser = argparse.ArgumentParser(prog="python -m bench.dispatch", description="One row: what a job costs.")
    parser.add_argument("--agents", type=int, default=10)
    parser.add_argument("--queued", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    print(json.dumps(measure(asked.agents, asked.queued, asked.rounds)))


if __name__ == "__main__":
    main()
