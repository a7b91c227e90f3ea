"""What lies between agents and the broker: delays by zone, in order on each stream; what is cut is kept until it heals.

A stream that was cut is not broken: its frames wait, as TCP's do, until the cut heals or one side gives the stream up.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from agent_stub.backoff import Random
from broker.dispatch.model import NO_SESSION, SessionId
from simulator.clock import After, Clock
from simulator.laws import Law
from simulator.scenario import Fidelity, Scenario
from simulator.streams import Stream, Streams

if TYPE_CHECKING:
    from simulator.agents import SimAgent


class Connection:
    """One stream of one agent. Frames of a direction arrive in the order in which they were sent."""

    __slots__ = ("agent", "down_us", "is_open", "session", "up_us")

    def __init__(self, agent: "SimAgent") -> None:
        self.agent = agent
        self.session: SessionId = NO_SESSION
        self.is_open = True
        self.up_us = 0  # when the latest frame arrives at the broker
        self.down_us = 0  # and at the agent


class Line:
    """The line of one agent: its delays, and whether either direction is cut (by how many partitions)."""

    __slots__ = ("cuts_down", "cuts_up", "delays", "extra_us", "held_down", "held_up")

    def __init__(self, delays: Iterator[int]) -> None:
        self.delays = delays
        self.extra_us = 0
        self.cuts_up = 0
        self.cuts_down = 0
        self.held_up: list[tuple[Connection, Callable[[Any], None], Any]] = []
        self.held_down: list[tuple[Connection, Callable[[Any], None], Any]] = []

    @property
    def is_cut(self) -> bool:
        """Whether no new stream can be opened."""
        return self.cuts_up > 0 or self.cuts_down > 0


class Network:
    """Carries frames; at `exact` they are there at once."""

    def __init__(self, clock: Clock, scenario: Scenario, streams: Streams) -> None:
        self._clock = clock
        self._streams = streams
        self._laws = scenario.network
        self._is_instant = scenario.broker.fidelity is Fidelity.EXACT

    def line(self, zone: str, entity: int) -> Line:
        """The line of an agent in a zone; `entity` names its random numbers."""
        law: Law = self._laws.same_zone if zone == self._laws.broker_zone else self._laws.other_zone
        return Line(self._streams.times_us(law, Stream.NETWORK, entity))

    def to_broker(self, connection: Connection, call: Callable[[Any], None], subject: Any) -> None:
        """Have `call(subject)` when what is sent now arrives at the broker."""
        if self._is_instant:
            call(subject)
            return
        line = connection.agent.line
        if line.cuts_up:
            line.held_up.append((connection, call, subject))
            return
        now_us = self._clock.now_us
        connection.up_us = max(connection.up_us, now_us + next(line.delays) + line.extra_us)
        self._clock.after(connection.up_us - now_us, _arrive, (call, subject))

    def to_agent(self, connection: Connection, call: Callable[[Any], None], subject: Any) -> None:
        """Have `call(subject)` when what is sent now arrives at the agent."""
        if self._is_instant:
            call(subject)
            return
        line = connection.agent.line
        if line.cuts_down:
            line.held_down.append((connection, call, subject))
            return
        now_us = self._clock.now_us
        connection.down_us = max(connection.down_us, now_us + next(line.delays) + line.extra_us)
        self._clock.after(connection.down_us - now_us, _arrive, (call, subject))

    def cut(self, line: Line, *, up: bool, down: bool) -> None:
        """Cut a line, in one direction or both."""
        line.cuts_up += up
        line.cuts_down += down

    def heal(self, line: Line, *, up: bool, down: bool) -> None:
        """Take a cut back: what waited is on its way."""
        line.cuts_up -= up
        line.cuts_down -= down
        if not line.cuts_up:
            held, line.held_up = line.held_up, []
            for connection, call, subject in held:
                self.to_broker(connection, call, subject)
        if not line.cuts_down:
            held, line.held_down = line.held_down, []
            for connection, call, subject in held:
                self.to_agent(connection, call, subject)


def _arrive(event: After) -> None:
    call, subject = event.subject
    call(subject)


class GrpcBackoff:
    """gRPC's own delays between connection tries: 1 s, times 1.6 up to 120 s, each 20 % more or less.

    https://github.com/grpc/grpc/blob/master/doc/connection-backoff.md
    """

    def __init__(self, random: Random) -> None:
        self._random = random
        self._next_s = 1.0

    def next_delay_s(self, retry_after_s: float = 0.0) -> float:
        """The next delay in seconds, never before `retry_after_s`."""
        delay_s = self._next_s * (0.8 + 0.4 * self._random.random())
        self._next_s = min(self._next_s * 1.6, 120.0)
        return max(delay_s, retry_after_s)

    def reset(self) -> None:
        """A session came about."""
        self._next_s = 1.0
