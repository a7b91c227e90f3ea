"""Many agents in one process, each with a stream, a session and a history of its own.

    python -m tests.e2e.fleet HISTORY --broker 127.0.0.1:7401 --first 0 --agents 250

SIGTERM drains them all; the process ends when each has left.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from pathlib import Path

from agent_stub.builtins import builtin_operations
from agent_stub.logs import configure
from agent_stub.settings import AgentSettings
from tests.e2e.agent import WritingAgent


async def run(broker: str, first: int, number: int, slots: int) -> int:
    """Serve until told to leave; the exit code of the process."""
    agents = [
        WritingAgent(AgentSettings(agent=f"h{first + at}", broker=broker, slots=slots, dev=True), builtin_operations())
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
    asked = parser.parse_args()
    WritingAgent.file = asked.history
    configure("warning")
    sys.exit(asyncio.run(run(asked.broker, asked.first, asked.agents, asked.slots)))
