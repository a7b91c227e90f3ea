"""What lies between agents and the broker: delays by zone, in order on each stream; what is cut is kept until it heals.

A stream that was cut is not broken: its frames wait, as TCP's do, until the cut heals or one side gives the stream up.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import prod
from typing import TYPE_CHECKING, Any, Final

from agent_stub.backoff import Random
from broker.dispatch.model import NO_SESSION, SessionId
from simulator.clock import Call, Clock
from simulator.laws import Law
from simulator.scenario import Fidelity, Scenario
from simulator.streams import Stream, Streams

if TYPE_CHECKING:
    from simulator.agents import SimAgent

RESEND_US: Final = 200_000
"""The shortest time after which Linux sends again what was not acknowledged (TCP_RTO_MIN); doubled each time."""
RESEND_MAX_US: Final = 120_000_000


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
    """The line of one agent: delays of each direction, and whether it is cut (by how many partitions).

    Nothing that is sent is lost for good: streams are TCP's, so what is lost is sent again, after 200 ms, then 400 ms
    and so on, and all behind it waits. `luck` is drawn from where something may be lost, and nowhere else.
    """

    __slots__ = (
        *("cuts_down", "cuts_up", "delays_down", "delays_up", "extra_down_us", "extra_up_us", "held_down", "held_up"),
        *("_delays", "_losses_down", "_losses_up", "_luck", "_new_luck"),
    )

    def __init__(self, delays: Iterator[int], luck: Callable[[], Iterator[float]], loss: float = 0.0) -> None:
        self._delays = self.delays_up = self.delays_down = delays
        self._new_luck = luck
        self._luck: Iterator[float] | None = None
        self._losses_up: list[float] = []
        self._losses_down: list[float] = []
        self.extra_up_us = 0
        self.extra_down_us = 0
        self.cuts_up = 0
        self.cuts_down = 0
        if loss:
            self.lose(loss, up=True, down=True)
        self.held_up: list[tuple[Connection, Call, Any]] = []
        self.held_down: list[tuple[Connection, Call, Any]] = []

    @property
    def is_cut(self) -> bool:
        """Whether no new stream can be opened."""
        return self.cuts_up > 0 or self.cuts_down > 0

    def lose(self, share: float, *, up: bool, down: bool) -> None:
        """Lose this share of what is sent from now on, beside what is lost already."""
        self._losses_up += [share] * up
        self._losses_down += [share] * down
        self._draw()

    def keep(self, share: float, *, up: bool, down: bool) -> None:
        """Take a loss back."""
        if up:
            self._losses_up.remove(share)
        if down:
            self._losses_down.remove(share)
        self._draw()

    def _draw(self) -> None:
        self.delays_up = self._with(self._losses_up)
        self.delays_down = self._with(self._losses_down)

    def _with(self, losses: list[float]) -> Iterator[int]:
        share = 1 - prod(1 - loss for loss in losses)
        if not share:
            return self._delays
        if self._luck is None:
            self._luck = self._new_luck()
        return _sent_again(self._delays, self._luck, share)


def _sent_again(delays: Iterator[int], luck: Iterator[float], share: float) -> Iterator[int]:
    for delay_us in delays:
        wait_us, again_us = delay_us, RESEND_US
        while next(luck) < share:
            wait_us += again_us
            again_us = min(2 * again_us, RESEND_MAX_US)
        yield wait_us


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
        luck = partial(self._streams.uniform, Stream.LOSS, entity)
        return Line(self._streams.times_us(law, Stream.NETWORK, entity), luck, self._laws.loss)

    def to_broker(self, connection: Connection, call: Call, subject: Any) -> None:
        """Have `call(subject)` when what is sent now arrives at the broker."""
        if self._is_instant:
            call(subject)
            return
        line = connection.agent.line
        if line.cuts_up:
            line.held_up.append((connection, call, subject))
            return
        at_us = self._clock.now_us + next(line.delays_up) + line.extra_up_us
        at_us = connection.up_us = max(at_us, connection.up_us)
        self._clock.at(at_us, call, subject)

    def to_agent(self, connection: Connection, call: Call, subject: Any) -> None:
        """Have `call(subject)` when what is sent now arrives at the agent."""
        if self._is_instant:
            call(subject)
            return
        line = connection.agent.line
        if line.cuts_down:
            line.held_down.append((connection, call, subject))
            return
        at_us = self._clock.now_us + next(line.delays_down) + line.extra_down_us
        at_us = connection.down_us = max(at_us, connection.down_us)
        self._clock.at(at_us, call, subject)

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
