"""A session with its driver's clock, for the tests of its rules."""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

from agent_stub.session import (
    AgentSession,
    Assign,
    Cancel,
    Frame,
    Hello,
    Key,
    Order,
    Outcome,
    OutcomeStatus,
    StartRun,
    StopRun,
    Verdict,
    Welcome,
)

S = 1_000_000
LEASE = Welcome(
    session_id=1, epoch=5, lease_us=10 * S, lease_margin_us=2 * S, heartbeat_us=2 * S, idle_heartbeat_us=5 * S
)
OrderT = TypeVar("OrderT", bound=Order)


class Bench:
    """A session with its driver's clock; `run` and `stop` are the orders given so far."""

    def __init__(self, slots: int = 4, prefetch: int = 0, **options: Any) -> None:
        self.session = AgentSession(slots, prefetch, operations={"copy", "move"}, **options)
        self.now = 100 * S
        self.orders: list[Order] = []

    def connect(self, *stopped: Key, epoch: int = 5) -> Hello:
        hello = self.hello()
        self.welcome(hello, *stopped, epoch=epoch)
        return hello

    def hello(self) -> Hello:
        return self.session.hello(self.now)

    def welcome(self, hello: Hello, *stopped: Key, epoch: int = 5) -> None:
        verdicts = [Verdict.STOP if key in stopped else Verdict.KEEP for key in hello.held]
        self.session.welcomed(self.now, dataclasses.replace(LEASE, epoch=epoch, verdicts=verdicts))

    def assign(self, *keys: Key, **options: Any) -> None:
        for key in keys:
            self.session.assigned(self.now, Assign(*key, **{"operation": "copy", **options}))

    def cancel(self, key: Key) -> None:
        self.session.cancelled(self.now, Cancel(*key, grace_us=3 * S))

    def finish(self, key: Key, status: OutcomeStatus = OutcomeStatus.SUCCEEDED, **more: Any) -> None:
        self.session.finished(self.now, Outcome(*key, status, **more))

    def ack(self, *keys: Key) -> None:
        self.session.acknowledged(keys)

    def beat(self) -> int:
        """Let the next heartbeat leave; its number."""
        self.now = max(self.now, min(self.now + 5 * S, self.session.next_deadline_us() or 0))
        for frame in self.frames():
            if frame.heartbeat is not None:
                return frame.heartbeat.seq
        raise AssertionError("no heartbeat was due")

    def frames(self) -> list[Frame]:
        frames = []
        while (frame := self.session.take_frame(self.now)) is not None:
            frames.append(frame)
        return frames

    def frame(self) -> Frame:
        """All that is due, which is one frame."""
        frames = self.frames()
        assert len(frames) == 1
        return frames[0]

    def outcomes(self) -> dict[Key, OutcomeStatus]:
        return {(one.job_key, one.attempt): one.status for frame in self.frames() for one in frame.outcomes}

    def given(self, kind: type[OrderT]) -> list[OrderT]:
        """The orders of one kind since the last question about any."""
        self.orders = self.session.take_orders()
        return [order for order in self.orders if isinstance(order, kind)]

    def started(self) -> list[Key]:
        return [(order.assign.job_key, order.assign.attempt) for order in self.given(StartRun)]

    def stopped(self) -> list[tuple[Key, str]]:
        return [((order.job_key, order.attempt), order.reason) for order in self.given(StopRun)]
