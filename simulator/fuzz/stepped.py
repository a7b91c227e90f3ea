"""The driver of a dispatcher in a small mesh: it turns and commits when it is told to. See `simulator.fuzz.small`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from broker.dispatch.model import AgentNo
from simulator.fuzz.broker import BrokerProcess
from simulator.fuzz.chronicle import Chronicle
from simulator.fuzz.timeline import Timeline


class Still(Timeline):
    """Time that goes on when it is told to; what is to happen later is looked at by whoever plays."""

    def at(self, at_us: int, act: Callable[[], object]) -> None:
        """Nothing: it is found by its deadline."""


class Constant:
    """No chance."""

    def random(self) -> float:
        """Always the same."""
        return 0.5

    def randrange(self, start: int, stop: int | None = None, /) -> int:
        """The first there is."""
        return 0 if stop is None else start


class Tally(Chronicle):
    """Counts what happens, and keeps no lines."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def note(self, text: str, job_key: int = 0) -> None:
        """Nothing: the choices are the story."""


class SteppedBroker(BrokerProcess):
    """The driver, whose turns and commits are told."""

    @property
    def is_committing(self) -> bool:
        """Whether a batch is pending: nothing steps."""
        return self.is_up and self._batcher.pending is not None

    @property
    def due_us(self) -> int | None:
        """When its timer is due."""
        return self._batcher.next_deadline_us() if self.is_up else None

    @property
    def heard(self) -> dict[AgentNo, int]:
        """Contact that the dispatcher has not been told of yet."""
        return dict(self._heard.values()) if self.is_up else {}

    def turn(self) -> None:
        """Work what has come in and what is due. What it orders leaves at once, if there is nothing to commit."""
        if self.is_up:
            self._turn()
            self._flush()

    def commit(self) -> None:
        """The batch is on disk: what it orders leaves."""
        self._committed()
        self._flush()

    def _flush(self) -> None:
        for line in list(self.peers):
            self._write(line)
        if self._mailbox and not self.is_committing:  # it has ended a stream itself
            self.turn()
