"""A broker that knows only what the wire tells it, and chance: no attempt is ever lost between the two."""

from __future__ import annotations

import random

import pytest

from agent_stub.session import (
    AgentSession,
    Assign,
    Cancel,
    Key,
    Outcome,
    OutcomeStatus,
    StartRun,
    Verdict,
    Welcome,
)

S = 1_000_000
SLOTS = 3


class World:
    """Both ends and what lies between: `broker_holds` is the broker's table of live attempts."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.session = AgentSession(SLOTS, 1, operations={"copy"}, hello_bytes_max=200)
        self.now = 0
        self.broker_holds: set[Key] = set()
        self.attempts: dict[int, int] = {}
        self.running: set[Key] = set()
        self.ever_run: set[Key] = set()
        self.connect()

    def connect(self) -> None:
        self.session.disconnected(self.now)
        hello = self.session.hello(self.now)
        reported = {(one.job_key, one.attempt) for one in hello.outcomes}
        missing = self.broker_holds - set(hello.held) - reported
        assert not missing & self.ever_run, "what ran is listed until it is acknowledged"
        stopped = {key for key in hello.held if self.chance.random() < 0.2}
        verdicts = [Verdict.STOP if key in stopped else Verdict.KEEP for key in hello.held]
        self.session.welcomed(self.now, Welcome(1, 1, 10 * S, 2 * S, 2 * S, 5 * S, verdicts))
        self.session.acknowledged(reported)
        self.broker_holds -= missing | stopped | reported

    def assign(self) -> None:
        job = self.chance.randrange(8)
        attempt = self.attempts[job] = self.attempts.get(job, 0) + 1
        self.broker_holds.add((job, attempt))
        is_exclusive = self.chance.random() < 0.3
        self.session.assigned(self.now, Assign(job, attempt, "copy", is_exclusive))

    def cancel(self) -> None:
        job = self.chance.randrange(8)
        if job in self.attempts:
            self.session.cancelled(self.now, Cancel(job, self.attempts[job]))

    def read(self) -> None:
        """The broker reads all that the agent sends, and acknowledges most of it."""
        while (frame := self.session.take_frame(self.now)) is not None:
            self.broker_holds -= {(one.job_key, one.attempt) for one in frame.rejected}
            done = {(one.job_key, one.attempt) for one in frame.outcomes}
            if self.chance.random() < 0.7:
                self.session.acknowledged(done)
                self.broker_holds -= done
            if frame.heartbeat is not None and self.chance.random() < 0.7:
                self.session.heartbeat_acked(self.now, frame.heartbeat.seq, 1)

    def end_a_run(self) -> None:
        if self.running:
            key = self.chance.choice(sorted(self.running))
            self.running.discard(key)
            status = self.chance.choice([OutcomeStatus.SUCCEEDED, OutcomeStatus.CANCELLED])
            self.session.finished(self.now, Outcome(*key, status))

    def cut(self) -> None:
        if self.chance.random() < 0.2:
            self.connect()

    def carry_out(self) -> None:
        for order in self.session.take_orders():
            if isinstance(order, StartRun):
                key = (order.assign.job_key, order.assign.attempt)
                assert key not in self.ever_run, "an attempt is run once"
                assert key[0] not in {job for job, _ in self.running}, "one attempt of a job at a time"
                self.running.add(key)
                self.ever_run.add(key)
        assert len(self.running) == self.session.running <= SLOTS

    def go_on(self) -> None:
        self.now += self.chance.randrange(400_000)
        self.chance.choice([self.assign, self.assign, self.cancel, self.end_a_run, self.read, self.cut])()
        self.carry_out()
        self.session.timer(self.now)
        self.carry_out()
        if not self.session.is_live:
            self.connect()


@pytest.mark.parametrize("seed", range(60))
def test_both_sides_hold_nothing_in_the_end_whatever_happened(seed: int) -> None:
    world = World(seed)
    for _ in range(400):
        world.go_on()
    while world.running:
        world.end_a_run()
        world.carry_out()
    for _ in range(50):
        world.read()
        world.connect()
    assert len(world.ever_run) > 20
    assert world.broker_holds == set()
    assert world.session.is_idle
