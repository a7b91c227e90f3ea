"""The other driver of the dispatcher: SimPy is the clock, `broker.dispatch` is the code under load.

First form: one group, equal agents, Poisson arrivals and exponential durations, at *exact* fidelity (no network, no
cost of the broker, a store that commits at once), so that closed forms apply. Work is drawn for the job, not for the
agent or the order of service: every fleet size sees the same day.
"""

import random
from array import array
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

import simpy

from broker.dispatch.batch import Batcher
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.messages import AgentAdded, AgentConnected, AssignJob, AttemptFinished, Event, JobSubmitted
from broker.dispatch.model import (
    SECOND_US,
    AgentNo,
    DispatchPolicy,
    GroupNo,
    JobKey,
    OperationPolicy,
    OutcomeStatus,
    SessionId,
)

GROUP: Final = GroupNo(1)
OPERATION: Final = "simulated"
HORIZON_US: Final = 10**15  # longer than any run: agents are never silent at exact fidelity


@dataclass(slots=True, frozen=True)
class Question:
    """What is simulated: `agents` of `slots` each, `rate_per_s` arrivals, durations of `mean_s`, for `jobs` jobs."""

    agents: int
    slots: int
    rate_per_s: float
    mean_s: float
    jobs: int
    seed: int


@dataclass(slots=True)
class Answer:
    """What was seen, in seconds and shares; the first tenth of the jobs is warm-up and left out of the latencies."""

    jobs: int
    seconds: float
    sojourn_s: "array[float]"
    wait_s: "array[float]"
    busy_s: float
    assigned: dict[int, int]

    def percentile_s(self, share: float) -> float:
        """The sojourn time that `share` of the jobs did not pass."""
        ordered = sorted(self.sojourn_s)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def mean_s(self) -> float:
        """Mean sojourn time: from acceptance to outcome."""
        return sum(self.sojourn_s) / len(self.sojourn_s)

    def mean_wait_s(self) -> float:
        """Mean time from acceptance to assignment."""
        return sum(self.wait_s) / len(self.wait_s)


class World:
    """One run. Virtual time is SimPy's, in seconds; the dispatcher sees whole microseconds."""

    def __init__(self, question: Question) -> None:
        self._question = question
        self._env = simpy.Environment()
        policy = DispatchPolicy(suspect_us=HORIZON_US, lease_us=2 * HORIZON_US, accept_timeout_us=HORIZON_US)
        self._batcher = Batcher(0)
        self._batcher.add(GROUP, Dispatcher(GROUP, policy, 1, random.Random(f"{question.seed}/jitter")))
        self._policy = OperationPolicy(no=1)
        self._arrivals = random.Random(f"{question.seed}/arrivals")
        self._durations = random.Random(f"{question.seed}/durations")
        self._accepted_s: dict[JobKey, tuple[int, float, float]] = {}
        self._answer = Answer(0, 0.0, array("d"), array("d"), 0.0, {})
        self._submitted = 0

    def run(self) -> Answer:
        """Play until every job has its outcome."""
        for number in range(1, self._question.agents + 1):
            self._connect(AgentNo(number))
        self._env.process(self._arrive())
        self._env.run()
        self._answer.seconds = self._env.now
        return self._answer

    def _connect(self, agent: AgentNo) -> None:
        slots = self._question.slots
        self._answer.assigned[agent] = 0
        self._work(AgentAdded(0, agent, f"agent-{agent}"))
        operations = frozenset({OPERATION})
        incarnation = agent.to_bytes(16, "big")
        self._work(AgentConnected(agent, SessionId(agent), incarnation, 1, slots, slots, 1, operations, frozenset()))

    def _arrive(self) -> Generator[simpy.Event, None, None]:
        question = self._question
        for number in range(1, question.jobs + 1):
            yield self._env.timeout(self._arrivals.expovariate(question.rate_per_s))
            self._submitted = number
            self._work(
                JobSubmitted(number, number.to_bytes(16, "big"), OPERATION, self._policy, number.to_bytes(16, "big"))
            )

    def _work(self, event: Event) -> None:
        """One event is one batch at exact fidelity; its commit takes no time."""
        batch = self._batcher.run(round(self._env.now * SECOND_US), [(GROUP, event)])
        if batch.seq:
            self._batcher.committed()
        for group, writes in batch.writes.items():
            assert group == GROUP
            for row in writes.inserts:
                duration_s = self._durations.expovariate(1 / self._question.mean_s)
                self._accepted_s[row.job_key] = (self._submitted, self._env.now, duration_s)
        for send in batch.sends():
            if isinstance(send, AssignJob):
                self._start(send)

    def _start(self, order: AssignJob) -> None:
        number, accepted_s, duration_s = self._accepted_s[order.job_key]
        self._answer.assigned[order.session] += 1
        self._answer.busy_s += duration_s
        if number > self._question.jobs // 10:
            self._answer.wait_s.append(self._env.now - accepted_s)
        done = self._env.timeout(duration_s)
        done.callbacks.append(lambda _: self._finish(order))

    def _finish(self, order: AssignJob) -> None:
        number, accepted_s, _ = self._accepted_s.pop(order.job_key)
        self._answer.jobs += 1
        if number > self._question.jobs // 10:
            self._answer.sojourn_s.append(self._env.now - accepted_s)
        agent = AgentNo(order.session)
        self._work(AttemptFinished(agent, order.session, order.job_key, order.attempt, OutcomeStatus.SUCCEEDED))
