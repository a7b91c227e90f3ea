"""Many agents in one process, each with a stream, a session and a history of its own.

    python -m tests.e2e.fleet HISTORY --broker 127.0.0.1:7401 --first 0 --agents 250

SIGTERM drains them all; the process ends when each has left. With `--light` thousands fit beside a broker on a small
machine: the same agents, with all that they decide, on streams made by hand and without a thread each.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from agent_stub.builtins import builtin_operations
from agent_stub.logs import configure
from agent_stub.operations import Operations
from agent_stub.settings import AgentSettings
from agent_stub.watchdog import Postbox, Watchdog
from tests.e2e.agent import WritingAgent
from tests.e2e.stream import Stream

if TYPE_CHECKING:
    import grpc.aio

    from agent_stub.client import Call


class LightAgent(WritingAgent):
    """One without gRPC, and without a watchdog: what it runs is short, and nothing of it is exclusive."""

    def __init__(self, settings: AgentSettings, operations: Operations) -> None:
        super().__init__(settings, operations)
        self._watchdog = _Unwatched(self._runner.fence)

    def _dial(self, broker: str) -> tuple[grpc.aio.Channel, Call]:
        stream = Stream(broker, self.settings.dev_identity)
        # The classes of gRPC cannot be derived from; what an agent uses of them is there.
        return cast("grpc.aio.Channel", stream), cast("Call", stream)


class _Unwatched(Watchdog):
    """No thread: there are thousands in this process, and it has one loop."""

    def start(self) -> None:
        """Nothing begins."""

    def watch(self, name: str, loop: Postbox, thread_id: int | None) -> None:
        """Nobody looks."""

    def guard(self, lease_end_us: int | None) -> None:
        """Nothing is to be fenced."""


async def run(broker: str, first: int, number: int, slots: int, *, is_light: bool = False) -> int:
    """Serve until told to leave; the exit code of the process."""
    kind = LightAgent if is_light else WritingAgent
    agents = [
        kind(AgentSettings(agent=f"h{first + at}", broker=broker, slots=slots, dev=True), builtin_operations())
        for at in range(number)
    ]

    def drain() -> None:
        for agent in agents:
            agent.drain("SIGTERM")

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, drain)
    return max(await asyncio.gather(*(agent.run() for agent in agents)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.e2e.fleet")
    parser.add_argument("history", type=Path)
    parser.add_argument("--broker", required=True)
    parser.add_argument("--first", type=int, default=0, help="number of the first agent")
    parser.add_argument("--agents", type=int, required=True)
    parser.add_argument("--slots", type=int, default=1, help="of each agent")
    parser.add_argument("--light", action="store_true", help="on streams made by hand")
    asked = parser.parse_args()
    WritingAgent.file = asked.history
    configure("warning")
    sys.exit(asyncio.run(run(asked.broker, asked.first, asked.agents, asked.slots, is_light=asked.light)))
