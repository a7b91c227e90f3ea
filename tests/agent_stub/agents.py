"""A real agent on this event loop, for tests that play its broker."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from agent_stub.client import Agent
from agent_stub.operations import JobContext, Operations, operation
from agent_stub.settings import AgentSettings
from tests.agent_stub import handlers as shared
from tests.agent_stub.broker import WAIT_S, Broker

SHARED = (shared.spin, shared.spin_async, shared.chatter, shared.chatter_process, shared.tell, shared.write)


class FirstDelay:
    """No jitter, no wait: the shortest back-off there is."""

    def random(self) -> float:
        return 0.0


class Tries(FirstDelay):
    """Says when the agent has failed `number` times."""

    def __init__(self, number: int) -> None:
        self.left = number
        self.enough = asyncio.Event()

    def random(self) -> float:
        self.left -= 1
        if self.left <= 0:
            self.enough.set()
        return super().random()


class Gate:
    """An event that coroutines of any loop wait for."""

    def __init__(self) -> None:
        self._opened = threading.Event()
        self._waiting: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    def set(self) -> None:
        self._opened.set()
        for loop, event in self._waiting:
            loop.call_soon_threadsafe(event.set)

    async def wait(self) -> None:
        event = asyncio.Event()
        self._waiting.append((asyncio.get_running_loop(), event))
        if not self._opened.is_set():
            await event.wait()


@operation("block", exclusive=True)
def block(job: JobContext) -> None:
    """At the top of the module: an exclusive operation runs in a process of its own."""
    job.sleep(60.0)


class Handlers:
    """Operations whose course the test decides."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.go_on = Gate()
        self.begun: asyncio.Queue[tuple[int, int]] = asyncio.Queue()

        @operation("echo", inline=True)
        def echo(job: JobContext) -> bytes:
            return job.payload

        @operation("wait")
        async def wait(job: JobContext) -> str:
            self.loop.call_soon_threadsafe(self.begun.put_nowait, (job.job_key, job.attempt))
            await self.go_on.wait()
            return "waited"

        @operation("steps")
        def steps(job: JobContext) -> str:
            job.progress(0.5, "half", b"row 10")
            return job.checkpoint.decode()

        @operation("facts")
        async def facts(job: JobContext) -> dict[str, object]:
            return {"job_id": job.job_id, "attempt": job.attempt, "metadata": dict(job.metadata)}

        self.operations = Operations([echo, wait, steps, facts, block, *SHARED])


@dataclass
class Running:
    agent: Agent
    task: asyncio.Task[int]
    handlers: Handlers

    async def exit_code(self) -> int:
        async with asyncio.timeout(WAIT_S):
            return await self.task


@asynccontextmanager
async def running(
    broker: Broker, slots: int = 4, prefetch: int = 0, generator: FirstDelay | None = None, **more: Any
) -> AsyncIterator[Running]:
    handlers = Handlers()
    where = ("acme", "plant", "a1", broker.address)
    settings = AgentSettings(*where, slots, prefetch, dev=True, labels={"zone": "a"}, **more)
    agent = Agent(settings, handlers.operations, generator=generator or FirstDelay())
    task = asyncio.create_task(agent.run())
    try:
        yield Running(agent, task, handlers)
    finally:
        if not task.done():
            agent.stop()
        await task
