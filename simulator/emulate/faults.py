"""What goes wrong in a scenario, done to real processes at the same times."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, Final, Literal

from broker.dispatch.model import DrainEnd, DrainThen
from mesh_client import WrongStateError
from simulator import incidents
from simulator.emulate.stage import RealAgent, Stage
from simulator.scenario import agents_named

MODES: Final[dict[DrainEnd, Literal["stop", "pause"]]] = {DrainEnd.STOP: "stop", DrainEnd.PAUSE: "pause"}
THENS: Final[dict[DrainThen, Literal["finish", "requeue", "kill"]]] = {
    DrainThen.FINISH: "finish",
    DrainThen.REQUEUE: "requeue",
    DrainThen.KILL: "kill",
}

Act = Coroutine[Any, Any, None]


class RealFaults:
    """The faults of the scenario on its stage; `began_s` is the start of the run on the event loop's clock."""

    def __init__(self, stage: Stage, began_s: float) -> None:
        self._stage = stage
        self._began_s = began_s
        self._acts: dict[type[Any], Callable[[Any], Act]] = {
            incidents.Crash: self._crash,
            incidents.ZoneDown: self._zone_down,
            incidents.Hang: self._hang,
            incidents.Drain: self._drain,
            incidents.RollingUpgrade: self._rolling_upgrade,
            incidents.BrokerCrash: self._broker_crash,
        }

    async def run(self) -> None:
        """Do all of them, each at its time. Raises ProcessError, MeshClientError."""
        async with asyncio.TaskGroup() as tasks:
            for incident in self._stage.scenario.faults:
                assert isinstance(incident, incidents.Scripted)
                tasks.create_task(self._at(incident), name=incidents.label_of(incident))

    async def _at(self, incident: incidents.Scripted) -> None:
        await self._until(incident.at)
        await self._acts[type(incident)](incident)

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(self._began_s + at_s - asyncio.get_running_loop().time())

    def _named(self, words: Iterable[str]) -> list[RealAgent]:
        named = {place: None for word in words for place in agents_named(self._stage.scenario, word)}
        return [self._stage.agents[place] for place in named]

    async def _crash(self, incident: incidents.Crash) -> None:
        await self._outage(self._named(incident.crash), incident.at + incident.for_)

    async def _zone_down(self, incident: incidents.ZoneDown) -> None:
        await self._outage(self._named([incident.zone_down]), incident.at + incident.for_)

    async def _outage(self, agents: list[RealAgent], until_s: float) -> None:
        for agent in agents:
            self._stage.kill(agent)
        await self._until(until_s - self._stage.starts.agent_s)
        await self._bring_back(agents)

    async def _bring_back(self, agents: list[RealAgent]) -> None:
        async with asyncio.TaskGroup() as tasks:
            for agent in agents:
                tasks.create_task(self._stage.bring_back(agent), name=f"start-{agent.name}")

    async def _hang(self, incident: incidents.Hang) -> None:
        agents = self._named(incident.hang)
        for agent in agents:
            self._stage.freeze(agent)
        await self._until(incident.at + incident.for_)
        for agent in agents:
            self._stage.thaw(agent)

    async def _drain(self, incident: incidents.Drain) -> None:
        agents = self._named(incident.drain)
        for agent in agents:
            await self._stage.clients[agent.group].drain_agent(
                agent.group,
                agent.name,
                MODES[incident.ends],
                then=THENS[incident.then],
                deadline_s=incident.deadline or None,
            )
        if incident.ends is DrainEnd.STOP:
            await self._until(incident.at + incident.for_ - self._stage.starts.agent_s)
            await self._bring_back([agent for agent in agents if not self._stage.process(agent).is_running])
            return
        await self._until(incident.at + incident.for_)
        for agent in agents:
            await self._resume(agent)

    async def _resume(self, agent: RealAgent) -> None:
        client = self._stage.clients[agent.group]
        try:
            await client.resume_agent(agent.group, agent.name)
        except WrongStateError:  # it drains still
            await client.cancel_drain(agent.group, agent.name)

    async def _rolling_upgrade(self, incident: incidents.RollingUpgrade) -> None:
        loop, start_s = asyncio.get_running_loop(), self._stage.starts.agent_s
        agents = self._named([incident.rolling_upgrade])
        for first in range(0, len(agents), incident.batch):
            batch = agents[first : first + incident.batch]
            back_s = loop.time() - self._began_s + incident.each
            async with asyncio.TaskGroup() as tasks:
                for agent in batch:
                    tasks.create_task(self._stage.leave(agent), name=f"leave-{agent.name}")
            await self._until(back_s - start_s)
            await self._bring_back(batch)

    async def _broker_crash(self, incident: incidents.BrokerCrash) -> None:
        mesh = self._stage.mesh
        await mesh.broker.kill()
        await self._until(incident.at + incident.for_ - self._stage.starts.broker_s)
        await mesh.start_broker()
