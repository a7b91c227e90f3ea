"""A submitter that keeps a history: jobs at a steady rate, whether the broker answers or not (open loop)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self
from uuid import UUID

from mesh_client import MeshClient, MeshClientError, UnavailableError
from tests.e2e.history import History

ANSWER_S = 60.0


class Load:
    """Sleeps of `run_s` seconds (from, to; None: `echo`), `rate` a second; job ids and times by `generator`.

    Raises MeshClientError, unless no broker answers.
    """

    def __init__(
        self,
        client: MeshClient,
        history: History,
        *,
        rate: float,
        run_s: tuple[float, float] | None,
        generator: random.Random,
        payload_bytes: int = 0,
    ) -> None:
        self._client = client
        self._history = history
        self._rate = rate
        self._run_s = run_s
        self._generator = generator
        self._padding = "x" * payload_bytes
        self._moved = asyncio.Event()
        self._is_over = False
        self.acknowledged: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Self]:
        """Submit meanwhile; in the end every submission has been answered."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._run(), name="load")
            yield self
            self._is_over = True

    async def until_acknowledged(self, more: int) -> None:
        """Wait until so many more jobs are acknowledged than now. Raises TimeoutError."""
        goal = len(self.acknowledged) + max(1, more)
        async with asyncio.timeout(ANSWER_S):
            while len(self.acknowledged) < goal:
                self._moved.clear()
                await self._moved.wait()

    async def _run(self) -> None:
        """Late ones go at once: a broker that is away makes nobody wait."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        async with asyncio.TaskGroup() as submissions:
            while not self._is_over:
                due_s += 1 / self._rate
                await asyncio.sleep(due_s - loop.time())
                submissions.create_task(self._submit())

    async def _submit(self) -> None:
        job_id = UUID(int=self._generator.getrandbits(128), version=4)
        operation = "echo"
        wish: dict[str, object] = {"padding": self._padding}
        if self._run_s is not None:
            operation, wish["seconds"] = "sleep", round(self._generator.uniform(*self._run_s), 3)
        self._history.add("submit", job_id.hex, "invoke")
        try:
            await self._client.submit(operation, json=wish, job_id=str(job_id))
        except UnavailableError:
            self._history.add("submit", job_id.hex, "info")
        except MeshClientError:
            self._history.add("submit", job_id.hex, "fail")
            raise
        else:
            self._history.add("submit", job_id.hex, "ok")
            self.acknowledged.append(str(job_id))
            self._moved.set()
