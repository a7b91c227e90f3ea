"""The mesh of a scenario as real processes on this machine: its broker, its groups, its agents.

What a fault does to the simulated agent is done here to a process: SIGKILL, SIGSTOP, SIGTERM, and a start that is so
much earlier than the agent is wanted as starting takes.
"""

import asyncio
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from mesh_client import MeshClient
from mesh_client.loopback import Mesh, Process
from simulator.emulate.playable import settings_of
from simulator.fleet import placing_of
from simulator.scenario import Group, Pool, Scenario, places_of

T = TypeVar("T")

RETRY_FOR_S: Final = 120.0
AT_ONCE: Final = 2
"""So many processes start at the same time: more of them only wait for each other."""
LEAVE_S: Final = 600.0


@dataclass(slots=True, frozen=True)
class Starts:
    """How long a broker and an agent take from the start of the process until they work, in seconds."""

    broker_s: float = 0.0
    agent_s: float = 0.0


@dataclass(slots=True)
class Loss:
    """An agent that is down or stands still, in seconds since the epoch; `back_s` infinite until it is back."""

    agent: str
    lost_s: float
    back_s: float = float("inf")


@dataclass(slots=True, eq=False)
class RealAgent:
    """One agent of the scenario: `name` is its process and its name in the group."""

    group: str
    number: int
    zone: str
    pool: Pool
    loss: Loss | None = field(default=None)

    @property
    def name(self) -> str:
        """Unique on this machine."""
        return f"{self.group}-{self.number}"


def run(acts: Coroutine[Any, Any, T]) -> T:
    """Run these to their end; on SIGTERM, and at the end of the terminal, end all that they started, as Ctrl-C does.

    Raises KeyboardInterrupt if it was told to end, and what they raise.
    """

    async def guarded() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        told = [number for number, known in before.items() if known is not signal.SIG_IGN]  # `nohup`
        for number in told:
            loop.add_signal_handler(number, task.cancel)
        try:
            return await acts
        finally:
            for number in told:
                loop.remove_signal_handler(number)
                signal.signal(number, before[number])

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


class Stage:
    """The processes of a scenario over the empty folder. Raises ProcessError, MeshClientError."""

    def __init__(self, folder: Path, scenario: Scenario, starts: Starts) -> None:
        self.scenario = scenario
        self.starts = starts
        self.mesh = Mesh(folder / "broker", settings=settings_of(scenario))
        self.clients = {
            group: MeshClient(self.mesh.addresses.api, group=group, retry_for_s=RETRY_FOR_S)
            for group in scenario.groups
        }
        self.agents = {
            (name, number): RealAgent(name, number, zone, pool)
            for name, group in scenario.groups.items()
            for number, (pool, zone) in enumerate(places_of(group), 1)
        }
        self.losses: list[Loss] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for client in self.clients.values():
            await client.close()
        await self.mesh.__aexit__(kind, error, trace)

    async def start(self) -> Starts:
        """Start all of it; how long the broker took, and an agent on average when few start at once."""
        began_s = time.monotonic()
        await self.mesh.start_broker()
        broker_s = time.monotonic() - began_s
        for group, client in self.clients.items():
            await add_group(client, group, self.scenario.groups[group])
        may_start = asyncio.Semaphore(AT_ONCE)
        spent_s = [0.0]

        async def begin(agent: RealAgent) -> None:
            async with may_start:
                since_s = time.monotonic()
                await self._start(agent)
                spent_s.append(time.monotonic() - since_s)

        async with asyncio.TaskGroup() as tasks:
            for agent in self.agents.values():
                tasks.create_task(begin(agent), name=f"start-{agent.name}")
        return Starts(broker_s, sum(spent_s) / max(1, len(spent_s) - 1))

    async def _start(self, agent: RealAgent) -> None:
        options = ("--group", agent.group, "--prefetch", str(agent.pool.prefetch), "--log-level", "info")
        await self.mesh.start_agent(agent.name, slots=agent.pool.slots, options=options)

    # --- what happens to agents -------------------------------------------------------------------------------------

    def process(self, agent: RealAgent) -> Process:
        """Its process."""
        return self.mesh.agents[agent.name]

    def kill(self, agent: RealAgent) -> None:
        """SIGKILL: the agent is gone at once."""
        if self.process(agent).is_running:
            self._lose(agent)
            self.process(agent).signal(signal.SIGKILL)

    def freeze(self, agent: RealAgent) -> None:
        """SIGSTOP: it stands still and stays connected."""
        if self.process(agent).is_running:
            self._lose(agent)
            self.process(agent).signal(signal.SIGSTOP)

    def thaw(self, agent: RealAgent) -> None:
        """SIGCONT: it goes on where it stood."""
        if self.process(agent).is_running:
            self.process(agent).signal(signal.SIGCONT)
            self._is_back(agent)

    async def leave(self, agent: RealAgent) -> None:
        """SIGTERM, and wait until it has finished what it has and left."""
        if self.process(agent).is_running:
            await self.process(agent).stop(LEAVE_S)

    async def bring_back(self, agent: RealAgent) -> None:
        """Start its process again; returns when its session has begun."""
        await self.process(agent).kill()  # it has ended; what it wrote is read to its end
        await self._start(agent)
        self._is_back(agent)

    def _lose(self, agent: RealAgent) -> None:
        agent.loss = Loss(agent.name, time.time())
        self.losses.append(agent.loss)

    def _is_back(self, agent: RealAgent) -> None:
        if agent.loss is not None:
            agent.loss.back_s, agent.loss = time.time(), None


async def add_group(client: MeshClient, name: str, group: Group | None = None) -> None:
    """Make a group that jobs can be sent to, which is one that an environment names; it places as the scenario says."""
    placing, choices = placing_of(group.policy if group is not None else "least-loaded")
    if name == "default":  # that one is there from the first start on
        await client.update_group(name, placing=placing.value, placing_choices=choices)
    else:
        await client.create_group(name, placing=placing.value, placing_choices=choices)
        await client.create_environment(name, target_group=name)
