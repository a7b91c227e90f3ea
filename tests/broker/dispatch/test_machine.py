"""Any order of events leaves a sound dispatcher: a Hypothesis state machine with all invariants after each step."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

from broker.dispatch.messages import RejectCause
from broker.dispatch.model import OnLoss, OutcomeStatus
from tests.broker.dispatch.bench import GroupBench

AGENTS = ("a", "b", "c")
OPERATIONS = ("fetch", "store")
REPORTS = ("accept", "start", "start", "finish", "finish", "fail", "stopped", "stopped", "fenced")
agent_names = st.sampled_from(AGENTS)
seconds = st.sampled_from((0.5, 1, 2, 5, 7, 11, 31, 70))


class GroupMachine(RuleBasedStateMachine):
    """Agents come, go, hang and lie; jobs are submitted, cancelled and reported on; the broker is killed."""

    @initialize(seed=st.integers(0, 3), capacity=st.integers(0, 3))
    def begin(self, seed: int, capacity: int) -> None:
        self.group = GroupBench(
            seed, placements_step_max=2, expiries_step_max=3, queue_jobs_max=12, lanes_max=6, agent_classes_max=4
        )
        self.count = 0
        for name in AGENTS:
            self.group.add(name)
        self.group.connect("a", slots=max(1, capacity), capacity=capacity, operations=OPERATIONS)

    def attempt(self, draw: Any) -> str:
        """Some attempt: mostly the latest of a live job, now and then an old one or one of a finished job."""
        live = [name for name, key in self.group.job_names.items() if key in self.group.dispatcher.ledger.jobs]
        name = draw(st.sampled_from(live or sorted(self.group.job_names)))
        number = draw(st.sampled_from((0, 0, 0, 0, 1, 2)))
        return f"{name}#{number}" if number else name

    def reporter(self, draw: Any, attempt: str) -> str:
        """The agent that has the attempt, now and then another; only one that is connected can report."""
        holder = self.group.holder(attempt)
        name = draw(st.sampled_from((holder, holder, holder, *AGENTS)))
        return name if name in AGENTS and self.group.agent(name).is_present else ""

    @rule(
        operation=st.sampled_from(OPERATIONS),
        exclusive=st.booleans(),
        on_loss=st.sampled_from(OnLoss),
        level=st.integers(1, 5),
        fairness=st.sampled_from(("", "x", "y")),
        delay_s=st.sampled_from((0, 0, 0, 3, 90)),
        run_timeout_s=st.sampled_from((0, 0, 4)),
        total_timeout_s=st.sampled_from((0, 0, 20, 100)),
        schedule_to_start_s=st.sampled_from((0, 0, 8)),
        limits=st.sampled_from(({}, {"failures_max": 2, "crashes_max": 1, "bounces_max": 2})),
        again=st.booleans(),
    )
    def submit(self, limits: dict[str, int], again: bool, **fields: Any) -> None:
        self.count += 1
        job_id = {"id": f"j{self.count - 1}"} if again and self.count > 1 and self.count % 3 == 0 else {}
        self.group.submit(f"j{self.count}", payload_bytes=self.count, **fields, **limits, **job_id)

    @rule(
        name=agent_names,
        new=st.booleans(),
        slots=st.integers(1, 3),
        spare=st.integers(0, 1),
        operations=st.sampled_from((OPERATIONS, ("fetch",), ("store",))),
        data=st.data(),
    )
    def connect(self, name: str, new: bool, slots: int, spare: int, operations: tuple[str, ...], data: Any) -> None:
        agent = self.group.agent(name)
        held = [f"{self.group.name(key)}#{job.attempt}" for key, job in agent.live.items()]
        held += [f"{self.group.name(key)}#{attempt}" for key, attempt in agent.detached]
        held += [f"{self.group.name(job.key)}#{job.attempt}" for job in self.adoptable(name)]
        kept = [one for one in held if not new and data.draw(st.integers(0, 3))]
        ended = [one for one in kept if not data.draw(st.integers(0, 2))]
        status = data.draw(st.sampled_from(OutcomeStatus))
        self.group.connect(
            name,
            new=new,
            slots=slots,
            capacity=slots + spare,
            operations=operations,
            held=[one for one in kept if one not in ended],
            outcomes=[f"{one}={status}" for one in ended],
        )

    def adoptable(self, name: str) -> list[Any]:
        jobs = self.group.dispatcher.ledger.jobs.values()
        number = self.group.agent_names[name]
        return [job for job in jobs if job.phase == "adoptable" and job.agent == number]

    @rule(name=agent_names)
    def connect_late(self, name: str) -> None:
        if self.group.agent(name).is_present:
            self.group.connect(name, stale=True)

    @rule(name=agent_names)
    def resync(self, name: str) -> None:
        agent = self.group.agent(name)
        if agent.is_present:
            self.group.connect(name, resync=True, held=[self.group.name(key) for key in agent.live])

    @rule(name=agent_names)
    def close(self, name: str) -> None:
        if self.group.agent(name).is_present:
            self.group.close(name)

    @rule(name=agent_names)
    def leave(self, name: str) -> None:
        if self.group.agent(name).is_present:
            self.group.leave(name)

    @rule(name=agent_names)
    def mute(self, name: str) -> None:
        self.group.mute(name)

    @rule(name=agent_names)
    def unmute(self, name: str) -> None:
        self.group.unmute(name)

    @rule(name=agent_names, capacity=st.integers(0, 4))
    def capacity(self, name: str, capacity: int) -> None:
        if self.group.agent(name).is_present:
            self.group.capacity(name, capacity)

    @precondition(lambda self: self.group.job_names)
    @rule(
        data=st.data(),
        report=st.sampled_from(REPORTS),
        retryable=st.booleans(),
    )
    def report(self, data: Any, report: str, retryable: bool) -> None:
        attempt = self.attempt(data.draw)
        agent = self.reporter(data.draw, attempt)
        if agent:
            more = {"retryable": retryable} if report == "fail" else {}
            getattr(self.group, report)(attempt, agent=agent, **more)

    @precondition(lambda self: self.group.job_names)
    @rule(data=st.data(), cause=st.sampled_from((RejectCause.BUSY, RejectCause.UNFIT, RejectCause.LEAVING)))
    def reject(self, data: Any, cause: str) -> None:
        attempt = self.attempt(data.draw)
        agent = self.reporter(data.draw, attempt)
        if agent:
            self.group.reject(attempt, agent=agent, cause=cause)

    @precondition(lambda self: self.group.job_names)
    @rule(data=st.data())
    def checkpoint(self, data: Any) -> None:
        attempt = self.attempt(data.draw)
        agent = self.reporter(data.draw, attempt)
        if agent:
            self.group.progress(attempt, agent=agent, body=b"half")

    @precondition(lambda self: self.group.job_names)
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        self.group.cancel(data.draw(st.sampled_from(sorted(self.group.job_names))))

    @rule(time_s=seconds)
    def advance(self, time_s: float) -> None:
        self.group.advance(time_s)

    @rule(time_s=seconds)
    def stall(self, time_s: float) -> None:
        self.group.stall(time_s)

    @rule()
    def restart(self) -> None:
        self.group.restart()

    def teardown(self) -> None:
        """In the end everything is settled: agents come back and finish, and no job is left but held ones."""
        group = self.group
        group.check_run()
        for name in AGENTS:
            group.connect(name, new=True, slots=3, capacity=3, operations=OPERATIONS)
        for _ in range(200):
            states = group.states
            if all(state in {"succeeded", "failed", "cancelled", "dead", "held"} for state in states.values()):
                break
            group.advance(1)
            for name, phase in list(group.phases.items()):
                if phase in {"sent", "accepted", "stopping"}:
                    group.finish(name)
        assert set(group.states.values()) <= {"succeeded", "failed", "cancelled", "dead", "held"}, group.states
        group.check_run()


def run(examples: int, steps: int) -> None:
    """The same examples on every run on CI, new ones at home."""
    run_state_machine_as_test(
        GroupMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=os.environ.get("CI") == "true",
            database=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_dispatcher_stays_sound_under_any_order_of_events() -> None:
    run(examples=100, steps=40)


@pytest.mark.soak
def test_dispatcher_stays_sound_under_any_order_of_many_events() -> None:
    run(examples=3_000, steps=60)
