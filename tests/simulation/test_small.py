"""A small mesh in which Hypothesis chooses what happens: what it breaks comes as the fewest steps that break it."""

from __future__ import annotations

import os
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from simulator.fuzz.bounds import Bounds, Choice
from simulator.fuzz.small import SmallMesh
from tests.mutants import all_mutants

ALL = {"crashes": 2, "cuts": 2, "silences": 2, "broker_crashes": 2, "cancels": 1, "drains": 1, "stops": 1}
DELIVERED = ("down", "up", "broker_hears_end", "agent_hears_end")
ENDING = ("commit", *DELIVERED, "timer", "finish", "undrain", "resolve", "start_broker", "dial", "submit", "tick")
"""In this order everything comes to its end: what arrives first, time last."""
ENDING_STEPS_MAX = 400
nth = st.integers(0, 3)


class SmallMachine(RuleBasedStateMachine):
    """Two jobs, two agents, a broker, every fault. `steps` are those of the latest run, until it broke something."""

    steps: ClassVar[list[str]] = []

    @initialize(exclusive=st.booleans())
    def begin(self, exclusive: bool) -> None:
        self.mesh = SmallMesh(Bounds(exclusive, jobs=2, **ALL))
        self.mesh.connect()
        SmallMachine.steps = []

    def able(self, *names: str) -> list[Choice]:
        return [choice for choice in self.mesh.choices() if choice.name in names]

    def play(self, place: int, *names: str) -> None:
        """One of those that can happen, if there is any."""
        able = self.able(*names)
        if able:
            choice = able[place % len(able)]
            SmallMachine.steps.append(choice.words)
            self.mesh.do(choice)

    @precondition(lambda self: self.able("submit"))
    @rule()
    def submit(self) -> None:
        self.play(0, "submit")

    @precondition(lambda self: self.able(*DELIVERED))
    @rule(place=nth)
    def deliver(self, place: int) -> None:
        self.play(place, *DELIVERED)

    @precondition(lambda self: self.able("tick", "timer"))
    @rule()
    def tick(self) -> None:
        self.play(0, "timer", "tick")

    @precondition(lambda self: self.able("finish"))
    @rule(place=nth)
    def finish_a_run(self, place: int) -> None:
        self.play(place, "finish")

    @precondition(lambda self: self.able("dial"))
    @rule(place=nth)
    def start_agent(self, place: int) -> None:
        self.play(place, "dial")

    @rule(place=nth)
    def crash(self, place: int) -> None:
        self.play(place, "crash", "stop")

    @rule(place=nth)
    def cut(self, place: int) -> None:
        self.play(place, "cut", "silence")

    @precondition(lambda self: self.able("commit"))
    @rule()
    def commit(self) -> None:
        self.play(0, "commit")

    @rule(place=nth)
    def crash_broker(self, place: int) -> None:
        self.play(place, "kill_broker", "lose", "keep")

    @precondition(lambda self: self.able("start_broker"))
    @rule()
    def restart_broker(self) -> None:
        self.play(0, "start_broker")

    @rule(place=nth)
    def operate(self, place: int) -> None:
        self.play(place, "cancel", "drain", "undrain", "resolve")

    @invariant()
    def nothing_is_lost(self) -> None:
        """What was answered is on disk (P1); the rest is judged in each step."""
        known = {row.job_key for row in self.mesh.broker.known.values()}
        assert set(self.mesh.accepted.values()) <= known

    def teardown(self) -> None:
        """No more faults: all work comes to its end."""
        if not hasattr(self, "mesh"):
            return
        for _ in range(ENDING_STEPS_MAX):
            if self.mesh.is_done:
                break
            able = self.able(*ENDING)
            self.mesh.do(min(able, key=lambda choice: ENDING.index(choice.name)))
        self.mesh.judge_end()


def run(examples: int, steps: int, *, is_same: bool) -> None:
    """`is_same`: the same examples in each run."""
    run_state_machine_as_test(
        SmallMachine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            derandomize=is_same,
            database=None,
            print_blob=False,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_small_mesh_keeps_its_promises_whatever_hypothesis_chooses() -> None:
    run(60, 40, is_same=os.environ.get("CI") == "true")


@pytest.mark.parametrize(("name", "steps"), [("acknowledge-before-commit", 2), ("double-reply", 6)])
def test_hypothesis_shrinks_a_mutant_to_a_few_steps(name: str, steps: int) -> None:
    with all_mutants()[name].applied(), pytest.raises(AssertionError):
        run(300, 30, is_same=True)
    assert 0 < len(SmallMachine.steps) <= steps, SmallMachine.steps
