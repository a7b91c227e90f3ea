"""A stream whose frames arrive when somebody says so: each direction in order, until it is cut."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from agent_stub.session import Frame, Hello
from simulator.fuzz.frames import BrokerFrame

FrameT = TypeVar("FrameT")


class Way(Generic[FrameT]):
    """One direction: what is under way, oldest first. What is written when it is cut is gone."""

    def __init__(self) -> None:
        self.frames: deque[FrameT] = deque()
        self.is_cut = False

    def write(self, frame: FrameT) -> None:
        """A finished write proves nothing."""
        if not self.is_cut:
            self.frames.append(frame)

    def cut(self) -> None:
        """What is under way is lost, and all that follows."""
        self.is_cut = True
        self.frames.clear()


class Line:
    """One stream of agent `number`. `ends_at_broker` and `ends_at_agent`: an end that has not been heard of there yet.

    An end is heard after what was written before it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.up: Way[Hello | Frame] = Way()
        self.down: Way[BrokerFrame] = Way()
        self.ends_at_broker = False
        self.ends_at_agent = False

    @property
    def is_busy(self) -> bool:
        """Whether something of it is still to arrive."""
        return bool(self.up.frames or self.down.frames or self.ends_at_broker or self.ends_at_agent)

    @property
    def is_whole(self) -> bool:
        """Whether both directions carry."""
        return not (self.up.is_cut or self.down.is_cut)

    def cut(self, *, is_silent: bool = False) -> None:
        """The connection breaks; `is_silent`: nobody is told."""
        self.up.cut()
        self.down.cut()
        self.ends_at_broker = self.ends_at_agent = not is_silent

    def left_by_agent(self) -> None:
        """The agent ends it: nothing is read there any more."""
        self.down.cut()
        self.ends_at_agent = False
        self.ends_at_broker = True

    def left_by_broker(self) -> None:
        """The broker ends it: nothing is read there any more."""
        self.up.cut()
        self.ends_at_broker = False
        self.ends_at_agent = True
