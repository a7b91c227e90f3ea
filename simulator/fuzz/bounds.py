"""How large a small mesh is, what can happen in it, and its times. See `simulator.fuzz.small`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from broker.dispatch.model import DispatchPolicy
from simulator.fuzz.timeline import S

POLICY: Final = DispatchPolicy(
    heartbeat_us=2 * S,
    idle_heartbeat_us=2 * S,
    suspect_us=6 * S,
    lease_us=8 * S,
    margin_us=2 * S,
    reconnect_grace_us=2 * S,
    recovery_grace_us=18 * S,
    accept_timeout_us=4 * S,
    stop_slack_us=2 * S,
    unoffered_grace_us=4 * S,
    lazy_write_us=2 * S,
)
"""Multiples of one beat, so that deadlines of both sides meet in one instant, and there are few instants."""


@dataclass(slots=True, frozen=True)
class Bounds:
    """How large the mesh is, and how often each fault may strike it, in all orders."""

    exclusive: bool = False
    agents: int = 2
    jobs: int = 1
    crashes: int = 0
    """`kill -9` of an agent."""
    cuts: int = 0
    """Connections that break, both ends hear of it."""
    silences: int = 0
    """Connections that break and nobody is told."""
    broker_crashes: int = 0
    """`kill -9` of the broker: between two turns, before a commit or after it."""
    cancels: int = 0
    drains: int = 0
    """Operators' drains to a pause, whose work is handed on at their deadline; each is taken back."""
    stops: int = 0
    """SIGTERM of an agent."""

    @property
    def words(self) -> str:
        """In a line."""
        kind = "exclusive" if self.exclusive else "repeatable"
        counts = [(getattr(self, name), one) for name, one in _ONE.items()]
        told = [f"{count} {one}{'s' * (count > 1)}" for count, one in counts if count]
        return f"{kind} work, {', '.join(told)}"


_ONE: Final = {
    "agents": "agent",
    "jobs": "job",
    "crashes": "dead agent",
    "cuts": "cut",
    "silences": "silent cut",
    "broker_crashes": "dead broker",
    "cancels": "cancel",
    "drains": "drain",
    "stops": "stop",
}
"""What one of each bound is called."""


class Choice(NamedTuple):
    """Something that can happen. `is_fault`: nobody may wait for it. `number` is of an agent, a line or a job."""

    name: str
    number: int = 0
    attempt: int = 0
    is_fault: bool = False

    @property
    def words(self) -> str:
        """For people."""
        told = self.name.replace("_", " ")
        return told if not self.number else f"{told} {self.number}"
