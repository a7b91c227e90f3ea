"""Virtual time, and the streams that carry frames through it: each direction in order, with delays, until it is cut."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from random import Random
from typing import Any, Final

from agent_stub.session import Frame, Hello
from simulator.fuzz.broken import LIVENESS, expect
from simulator.fuzz.frames import BrokerFrame

MS = 1_000
S = 1_000_000
START_US = 1_000 * S
STEPS_MAX: Final = 20_000
"""Many times what happens in a run."""


class Timeline:
    """What happens when. Things of the same instant happen in the order in which they were said.

    `steps` counts what has happened.
    """

    def __init__(self) -> None:
        self.now_us = START_US
        self.steps = 0
        self._count = 0
        self._heap: list[tuple[int, int, Callable[[], Any]]] = []

    def at(self, at_us: int, act: Callable[[], Any]) -> None:
        """Have `act` happen at this time, or now if that is past."""
        self._count += 1
        heappush(self._heap, (max(at_us, self.now_us), self._count, act))

    def after(self, delay_us: int, act: Callable[[], Any]) -> None:
        """Have `act` happen in a while."""
        self.at(self.now_us + delay_us, act)

    def run(self, until_us: int, is_done: Callable[[], bool] = lambda: False) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until_us and not is_done():
            self.now_us, _, act = heappop(self._heap)
            self.steps += 1
            expect(self.steps < STEPS_MAX, LIVENESS, "the mesh is busy for ever")
            act()
        if not is_done():
            self.now_us = until_us


class Pipe:
    """One direction of a stream."""

    def __init__(self, timeline: Timeline, chance: Random, read: Callable[[Any], None]) -> None:
        self.is_cut = False
        self.extra_us = 0
        self._timeline = timeline
        self._chance = chance
        self._read = read
        self._last_us = 0

    def write(self, frame: object) -> None:
        """A finished write proves nothing: the frame arrives later, or never."""
        delay_us = self._chance.randrange(20 * MS) + self.extra_us
        self._last_us = max(self._last_us, self._timeline.now_us + delay_us)
        self._timeline.at(self._last_us, lambda: self._arrive(frame))

    def _arrive(self, frame: object) -> None:
        if not self.is_cut:
            self._read(frame)


class Stream:
    """One stream of one agent. Both ends hear of its end apart from each other, and perhaps never."""

    def __init__(
        self,
        timeline: Timeline,
        chance: Random,
        *,
        to_broker: Callable[[Stream, Hello | Frame], None],
        to_agent: Callable[[Stream, BrokerFrame], None],
        ended_at_broker: Callable[[Stream], None],
        ended_at_agent: Callable[[Stream], None],
    ) -> None:
        self.up = Pipe(timeline, chance, lambda frame: to_broker(self, frame))
        self.down = Pipe(timeline, chance, lambda frame: to_agent(self, frame))
        self._timeline = timeline
        self._chance = chance
        self._ended_at_broker = ended_at_broker
        self._ended_at_agent = ended_at_agent

    def cut(self, *, is_silent: bool = False) -> None:
        """The connection breaks; what is under way is lost. `is_silent`: nobody is told."""
        self.up.is_cut = self.down.is_cut = True
        if not is_silent:
            self._timeline.after(self._chance.randrange(200 * MS), lambda: self._ended_at_broker(self))
            self._timeline.after(self._chance.randrange(200 * MS), lambda: self._ended_at_agent(self))

    def left_by_agent(self) -> None:
        """The agent ends the stream. What it wrote before may still arrive; the end comes after it."""
        self.down.is_cut = True
        self.up.is_cut = self.up.is_cut or self._chance.random() < 0.5
        self._timeline.after(60 * MS + self.up.extra_us, lambda: self._ended_at_broker(self))

    def left_by_broker(self) -> None:
        """The broker ends the stream: what it wrote before still arrives, then the agent hears of the end."""
        self.up.is_cut = True
        self._timeline.after(60 * MS + self.down.extra_us, lambda: self._ended_at_agent(self))
