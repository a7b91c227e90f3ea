"""`mesh demo`: a broker and two agents as real processes, a real load, real faults, and a judge.

Orders go from a CSV file into a SQL table, fifty rows a job. When two fifths of the outcomes are there the broker is
killed (SIGKILL) and started again on the same data; at seven tenths an agent that holds attempts is killed, and the
other one goes on. In the end every order must be in the table exactly once with the right content, and every
acknowledged job must have succeeded; the exit code is 0 only then. A fault that interrupted nothing is a failure too:
it would have shown nothing.

Faults come by progress and not by time, so a slow machine sees the same run. With `Rig` a test harness makes the
demonstration fail on purpose, to see that it can.
"""

import asyncio
import json as json_module
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles
from typing import Final
from uuid import UUID

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from broker.cli._demo_orders import MAPPING, Source, judge, make_target, write_source
from broker.cli._demo_processes import Mesh, ProcessError
from broker.cli._demo_report import AgentKill, AgentStory, AttemptCounts, BrokerKill, JobCounts, Report
from broker.cli._demo_store import JobRecord, count_held, read_jobs, store_file
from broker.cli.exits import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from mesh_client import FINAL_STATES, JobSpec, JobState, JobView, MeshClient, MeshClientError

ORDERS: Final = 20_000
ORDERS_A_JOB: Final = 50
SEED: Final = 20_261_121
AGENTS: Final = ("a1", "a2")
VICTIM: Final = "a2"
SLOTS: Final = 4
PAUSE_MS: Final = 150
"""How long each job takes at least: real transfers take a while, and the faults need something to interrupt."""
WAVE_JOBS: Final = 16
OPEN_JOBS_MAX: Final = 32
BROKER_KILL_AT: Final = 0.40
AGENT_KILL_AT: Final = 0.70
TIME_LIMIT_S: Final = 180.0
SYNCHRONOUS: Final = "FULL"


@dataclass(frozen=True, slots=True)
class Rig:
    """What a test harness changes to see the demonstration fail."""

    with_kills: bool = True
    before_judging: Callable[[Path], None] = lambda target: None


def main(*, json: bool = False, keep: Path | None = None, rig: Rig | None = None) -> int:
    """Run the demonstration; the exit code. Files stay in `keep`, which must be empty; without it none is left."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if keep is not None and keep.exists() and any(keep.iterdir()):
        console.print(f"{keep} is not empty: name a directory that is new or empty")
        return EXIT_USAGE
    with _folder(keep) as folder:
        try:
            report = asyncio.run(Demo(folder, console, rig or Rig()).run())
        except (ProcessError, MeshClientError, TimeoutError) as error:
            console.print(f"[bold red]The demonstration failed:[/] {str(error) or 'it took too long'}")
            return EXIT_FAILED
        report.show(console)
        if keep is not None:
            console.print(f"Files: {folder}")
    if json:
        print(json_module.dumps(report.as_json()))
    return EXIT_OK if report.is_ok else EXIT_FAILED


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="mesh-demo-") as name:
        yield Path(name)


class Demo:
    """One run in `folder`, which must be empty."""

    def __init__(self, folder: Path, console: Console, rig: Rig) -> None:
        self._console = console
        self._rig = rig
        self._target = folder / "erp.sqlite"
        self._source: Source = write_source(folder / "orders.csv", ORDERS, ORDERS_A_JOB, SEED)
        make_target(self._target)
        self._mesh = Mesh(folder / "broker", settings={"MESH_STORE__SYNCHRONOUS": SYNCHRONOUS})
        self._acknowledged: list[str] = []
        self._views: dict[str, JobView] = {}
        self._finished = 0
        self._stale_refused = 0
        self._even: Counter[str] = Counter(dict.fromkeys(AGENTS, 0))
        self._moved = asyncio.Condition()
        self._began_s = 0.0
        self._broker_kill: BrokerKill | None = None
        self._agent_kill: AgentKill | None = None
        self._progress = Progress(
            TextColumn("orders to ERP"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("jobs"),
            TimeElapsedColumn(),
            console=console,
        )
        self._bar = self._progress.add_task("jobs", total=len(self._source.parts), start=False)

    async def run(self) -> Report:
        """All of it. Raises ProcessError, MeshClientError, TimeoutError."""
        async with asyncio.timeout(TIME_LIMIT_S), self._mesh:
            await self._mesh.start_broker()
            for name in AGENTS:
                await self._mesh.start_agent(name, slots=SLOTS, on_line=self._hear)
            self._say(f"one broker, agents {' and '.join(AGENTS)} with {SLOTS} slots each; {self._plan()}")
            self._began_s = time.monotonic()
            self._progress.start_task(self._bar)
            with self._progress:
                await self._work()
            elapsed_s = time.monotonic() - self._began_s
            await self._mesh.stop()
        self._rig.before_judging(self._target)
        return self._report(elapsed_s, read_jobs(store_file(self._mesh.data)))

    def _plan(self) -> str:
        return f"{ORDERS:,} orders in {len(self._source.parts)} jobs"

    def _say(self, text: str) -> None:
        at_s = time.monotonic() - self._began_s if self._began_s else 0.0
        self._console.print(f"{at_s:5.1f} s  {text}")

    def _hear(self, line: str) -> None:
        if "outcome.refused" in line:
            self._stale_refused += 1

    # --- the load ---------------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        async with MeshClient(self._mesh.addresses.api, retry_for_s=60.0) as client:
            try:
                async with asyncio.TaskGroup() as tasks:
                    if self._rig.with_kills:
                        tasks.create_task(self._break_things(), name="faults")
                    await self._submit_all(client, tasks)
            except ExceptionGroup as group:
                raise group.exceptions[0] from None

    async def _submit_all(self, client: MeshClient, tasks: asyncio.TaskGroup) -> None:
        """Submit in waves, so that some jobs always wait and the last ones do not wait for all."""
        specs = [self._spec(part) for part in self._source.parts]
        for first in range(0, len(specs), WAVE_JOBS):
            wave = specs[first : first + WAVE_JOBS]
            async with self._moved:
                await self._moved.wait_for(lambda: len(self._acknowledged) - self._finished < OPEN_JOBS_MAX)
            answers = [answer.accepted() for answer in await client.submit_many(wave)]
            job_ids = [answer.job_id for answer in answers]
            self._acknowledged += job_ids
            tasks.create_task(self._follow(client, job_ids), name="follow")

    def _spec(self, part: tuple[int, int]) -> JobSpec:
        payload = {
            "source": str(self._source.path),
            "byte_range": part,
            "target": str(self._target),
            "table": "orders",
            "key": ["order_no"],
            "mapping": MAPPING,
            "pause_ms": PAUSE_MS,
        }
        return JobSpec("files.csv_to_sql", json=payload)

    async def _follow(self, client: MeshClient, job_ids: list[str]) -> None:
        async for view in client.follow(job_ids):
            async with self._moved:
                self._views[view.job_id] = view
                if view.is_final:
                    self._count(view)
                self._moved.notify_all()

    def _count(self, view: JobView) -> None:
        self._finished += 1
        self._progress.advance(self._bar)
        if self._agent_kill is None:
            self._even[view.agent] += 1

    # --- the faults -------------------------------------------------------------------------------------------------

    async def _break_things(self) -> None:
        await self._until(BROKER_KILL_AT)
        await self._kill_broker()
        await self._until(AGENT_KILL_AT, holder=VICTIM)
        await self._kill_agent()

    async def _until(self, share: float, holder: str = "") -> None:
        """Wait until that share of the outcomes is there (and the agent `holder` has something in hand)."""

        def is_reached() -> bool:
            is_held = not holder or any(view.agent == holder and not view.is_final for view in self._views.values())
            return is_held and self._finished >= share * len(self._source.parts)

        async with self._moved:
            await self._moved.wait_for(is_reached)

    async def _kill_broker(self) -> None:
        at_s = time.monotonic()
        await self._mesh.broker.kill()
        held = count_held(store_file(self._mesh.data))
        self._say(f"[bold]the broker is killed[/] while agents hold {held} attempts, and started again")
        await self._mesh.start_broker()
        down_s = time.monotonic() - at_s
        self._broker_kill = BrokerKill(round(at_s - self._began_s, 3), held, round(down_s, 3))
        self._say(f"the broker is back after {down_s:.1f} s, on the same data")

    async def _kill_agent(self) -> None:
        self._agent_kill = AgentKill(round(time.monotonic() - self._began_s, 3), VICTIM)
        await self._mesh.agents[VICTIM].kill()
        others = ", ".join(name for name in AGENTS if name != VICTIM)
        self._say(f"[bold]agent {VICTIM} is killed[/] with work in its hands; {others} goes on alone")

    # --- what it came to --------------------------------------------------------------------------------------------

    def _report(self, elapsed_s: float, records: Sequence[JobRecord]) -> Report:
        by_id = {record.job_id: record for record in records}
        mine = [by_id.get(UUID(job_id).bytes) for job_id in self._acknowledged]
        known = [record for record in mine if record is not None]
        states = Counter(record.state for record in known)
        latencies_ms = sorted((job.finished_us - job.accepted_us) / 1_000 for job in known if job.finished_us)
        cut = [record for record in known if VICTIM in record.lost_agents]
        if self._agent_kill is not None:
            self._agent_kill.held = len(cut)
            self._agent_kill.rerun = sum(record.attempt > 1 and record.agent != VICTIM for record in cut)
        percentiles = quantiles(latencies_ms, n=100) if len(latencies_ms) > 1 else [0.0] * 99
        return Report(
            elapsed_s=elapsed_s,
            arrived=judge(self._source, self._target),
            jobs=JobCounts(
                submitted=len(self._acknowledged),
                succeeded=states[JobState.SUCCEEDED],
                failed=states[JobState.FAILED],
                dead=states[JobState.DEAD],
                lost=len(mine) - sum(states[state] for state in FINAL_STATES),
            ),
            agents=[self._story(name, known) for name in AGENTS],
            attempts=AttemptCounts(
                total=sum(record.attempt for record in known),
                interrupted=sum(len(record.lost_agents) + record.undelivered for record in known),
                rerun=sum(record.attempt > 1 for record in known),
                stale_refused=self._stale_refused,
            ),
            p50_ms=percentiles[49],
            p99_ms=percentiles[98],
            jain=_jain(list(self._even.values())),
            store_kind="sqlite",
            synchronous=SYNCHRONOUS,
            broker_kill=self._broker_kill,
            agent_kill=self._agent_kill,
        )

    def _story(self, name: str, records: Sequence[JobRecord]) -> AgentStory:
        is_killed = self._agent_kill is not None and name == VICTIM
        return AgentStory(
            name,
            assigned=sum(record.assigned_to[name] for record in records),
            succeeded=sum(record.state == JobState.SUCCEEDED and record.agent == name for record in records),
            killed=is_killed,
            held_when_killed=self._agent_kill.held if is_killed and self._agent_kill is not None else None,
        )


def _jain(counts: Sequence[int]) -> float:
    """Jain's index: 1 if all have the same, 1 / n if one has all."""
    squares = len(counts) * sum(count * count for count in counts)
    return sum(counts) ** 2 / squares if squares else 0.0


if __name__ == "__main__":
    sys.exit(main(json="--json" in sys.argv[1:]))
