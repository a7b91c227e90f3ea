"""A mesh of real processes that all keep histories, with what tests do to it, and a judge in the end.

async with Course(tmp_path) as course:
    await course.start_agent("a1", slots=4)
    async with course.load(rate=100) as load:
        await load.until_acknowledged(50)
        with course.during("kill", "a1"):
            await course.mesh.agents["a1"].kill()
    findings = await course.judge()
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar
from uuid import UUID

from mesh_client import AgentView, JobSpec, MeshClient, NotFoundError
from tests.e2e.counters import GROUP as GROUP_LABEL
from tests.e2e.counters import Page
from tests.e2e.history import Entry, Findings, History, check, read
from tests.e2e.load import Load
from tests.e2e.page import page_of
from tests.e2e.processes import BROKER_PROGRAM, Mesh, Process, store_file
from tests.e2e.stored import StoredJob, read_agents, read_store

T = TypeVar("T")

AGENT_PROGRAM: Final = ("-m", "tests.e2e.agent")
GROUP: Final = "default"
FAST: Final = {"MESH_DISPATCH__PROFILE": "fast"}
WAIT_S: Final = 60.0
POLL_S: Final = 0.02
RETRY_FOR_S: Final = 60.0
SEED: Final = 7


async def until(found: Callable[[], Awaitable[T]], what: str, within_s: float = WAIT_S) -> T:
    """What `found` gives, once that is something. Raises AssertionError if it stays nothing for so long."""
    try:
        async with asyncio.timeout(within_s):
            while True:
                if result := await found():
                    return result
                await asyncio.sleep(POLL_S)
    except TimeoutError:
        raise AssertionError(f"not within {within_s:g} s: {what}") from None


class Course:
    """One broker, agents and a client over the empty `folder`. `settings` are variables of the broker.

    `data` is where the broker keeps its data, if not in `folder`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        settings: Mapping[str, str] = FAST,
        broker_program: Sequence[str] = BROKER_PROGRAM,
        agent_program: Sequence[str] = AGENT_PROGRAM,
        seed: int = SEED,
        data: Path | None = None,
    ) -> None:
        self.agents_file = folder / "agents.jsonl"
        self._own_file = folder / "course.jsonl"
        self.agents_file.touch()
        self.generator = random.Random(seed)
        self.history = History(self._own_file, "course")
        self.mesh = Mesh(
            data or folder / "broker",
            settings=settings,
            broker_program=broker_program,
            agent_program=(*agent_program, str(self.agents_file)),
            agents_data=folder / "broker-agents",
        )
        self.client = MeshClient(self.mesh.addresses.api, retry_for_s=RETRY_FOR_S)
        self.jobs: list[StoredJob] = []
        """What the store holds in the end."""
        self.page: Page | None = None
        """What the broker's metrics page said before it was stopped."""

    async def __aenter__(self) -> Self:
        await self.mesh.start_broker()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()
        await self.mesh.__aexit__(kind, error, trace)
        self.history.close()

    async def start_agent(
        self, name: str, *, slots: int, broker: str = "", prefix: Sequence[str] = (), options: Sequence[str] = ()
    ) -> Process:
        """Start an agent (again); `broker` is where it finds its broker, if not at the broker's own address.

        `prefix` are the words of a program that becomes the agent, `options` more words for the agent itself.
        """
        self.history.add("start", name, "invoke")
        return await self.mesh.start_agent(name, slots=slots, broker=broker, prefix=prefix, options=options)

    # --- what happens to it -----------------------------------------------------------------------------------------

    def load(
        self,
        *,
        rate: float,
        run_s: tuple[float, float] | None = (0.02, 0.2),
        payload_bytes: int = 0,
        batch: int = 1,
    ) -> AbstractAsyncContextManager[Load]:
        """Jobs at this rate while the context is open, `batch` of them in a call."""
        return Load(
            self.client,
            self.history,
            rate=rate,
            run_s=run_s,
            generator=self.generator,
            payload_bytes=payload_bytes,
            batch=batch,
        ).running()

    async def submit(self, seconds: Sequence[float]) -> list[str]:
        """Jobs that take so long, all at once: their ids in the order given."""
        return await self.submit_specs([JobSpec("sleep", json={"seconds": one}) for one in seconds])

    async def submit_specs(self, specs: Sequence[JobSpec]) -> list[str]:
        """Jobs of any kind, all at once: their ids in the order given."""
        ids = [UUID(int=self.generator.getrandbits(128), version=4) for _ in specs]
        for job_id in ids:
            self.history.add("submit", job_id.hex, "invoke")
        named = [replace(spec, job_id=str(job_id)) for spec, job_id in zip(specs, ids, strict=True)]
        for answer in await self.client.submit_many(named):
            answer.accepted()
        for job_id in ids:
            self.history.add("submit", job_id.hex, "ok")
        return [str(job_id) for job_id in ids]

    def during(self, op: str, key: str) -> AbstractContextManager[None]:
        """A fault, or an operator's act, as the checker is to know it."""
        return self.history.during(op, key)

    # --- what can be seen -------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """What has happened until now."""
        return read([self._own_file, self.agents_file])

    async def begun(self, agent: str, number: int) -> list[Entry]:
        """The first `number` runs of an agent, once there are so many."""

        async def found() -> list[Entry]:
            runs = [
                entry for entry in self.entries() if (entry.process, entry.op, entry.phase) == (agent, "run", "invoke")
            ]
            return runs[:number] if len(runs) >= number else []

        return await until(found, f"{agent} begins {number} runs")

    async def running(self, number: int) -> None:
        """Return when so many attempts run at the same time, as far as their agents have said."""

        async def found() -> bool:
            runs = [entry for entry in self.entries() if entry.op == "run"]
            ended = {entry.key for entry in runs if entry.phase != "invoke"}
            return len({entry.key for entry in runs} - ended) >= number

        await until(found, f"{number} attempts run")

    async def agent_is(self, agent: str, status: str) -> AgentView:
        """The agent, once it has this status."""

        async def found() -> AgentView | None:
            with suppress(NotFoundError):  # it has not said Hello yet
                view = await self.client.get_agent(GROUP, agent)
                return view if view.status == status else None
            return None

        view = await until(found, f"{agent} is {status}")
        assert view is not None
        return view

    # --- the end ----------------------------------------------------------------------------------------------------

    async def judge(self, quiet_s: float = WAIT_S) -> Findings:
        """Wait `quiet_s` at most for quiet, end all processes in order, and hold the histories against the store."""
        await self.quiet(quiet_s)
        page = await page_of(self.mesh)
        await self.mesh.stop()
        file = store_file(self.mesh.data)
        self.jobs = read_store(file)
        if page is not None:
            removed = read_agents(file, GROUP_LABEL, are_removed=True)
            self.page = page._replace(agents=read_agents(file, GROUP_LABEL), removed=removed)
        return check(self.entries(), self.jobs, page=self.page)

    async def quiet(self, within_s: float = WAIT_S) -> None:
        """Return when nothing waits and nothing runs. Raises AssertionError if that does not come."""
        await until(self._is_quiet, "nothing waits and nothing runs", within_s)

    async def _is_quiet(self) -> bool:
        group = await self.client.get_group(GROUP)
        return not group.jobs_waiting and not group.jobs_running
