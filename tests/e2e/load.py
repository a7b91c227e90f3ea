"""A submitter that keeps a history: jobs at a steady rate, whether the broker answers or not (open loop)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Self
from uuid import UUID

from mesh_client import JobSpec, MeshClient, MeshClientError, MeshTimeoutError, UnavailableError
from tests.e2e.history import History

ANSWER_S = 60.0


class Load:
    """Sleeps of `run_s` seconds (from, to; None: `echo`), `rate` a second; job ids and times by `generator`.

    `batch` of them go together in one call. Raises MeshClientError, unless no broker answers in time.
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
        batch: int = 1,
    ) -> None:
        self._client = client
        self._history = history
        self._rate = rate
        self._run_s = run_s
        self._generator = generator
        self._padding = "x" * payload_bytes
        self._batch = batch
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
        """Wait until so many more jobs are acknowledged than now. Raises TimeoutError a minute after they were due."""
        began = len(self.acknowledged)
        goal = began + max(1, more)
        try:
            async with asyncio.timeout(ANSWER_S + more / self._rate):
                while len(self.acknowledged) < goal:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError:
            text = f"only {len(self.acknowledged) - began} of the next {more} jobs were acknowledged"
            raise TimeoutError(text) from None

    async def _run(self) -> None:
        """Late ones go at once: a broker that is away makes nobody wait."""
        loop = asyncio.get_running_loop()
        due_s = loop.time()
        async with asyncio.TaskGroup() as submissions:
            while not self._is_over:
                due_s += self._batch / self._rate
                await asyncio.sleep(due_s - loop.time())
                submissions.create_task(self._submit())

    async def _submit(self) -> None:
        specs = [self._spec() for _ in range(self._batch)]
        ids = [UUID(str(spec.job_id)) for spec in specs]
        self._tell(ids, "invoke")
        try:
            for answer in await self._client.submit_many(specs):
                answer.accepted()
        except (UnavailableError, MeshTimeoutError):
            self._tell(ids, "info")
        except MeshClientError:
            self._tell(ids, "fail")
            raise
        else:
            self._tell(ids, "ok")
            self.acknowledged += map(str, ids)
            self._moved.set()

    def _spec(self) -> JobSpec:
        job_id = UUID(int=self._generator.getrandbits(128), version=4)
        wish: dict[str, object] = {"padding": self._padding}
        if self._run_s is None:
            return JobSpec("echo", json=wish, job_id=str(job_id))
        wish["seconds"] = round(self._generator.uniform(*self._run_s), 3)
        return JobSpec("sleep", json=wish, job_id=str(job_id))

    def _tell(self, ids: Iterable[UUID], phase: str) -> None:
        for job_id in ids:
            self._history.add("submit", job_id.hex, phase)
