"""`mesh demo`: a broker and three agents as real processes, a real load, real faults, and a judge.

Orders go from a CSV file into a SQL table, fifty rows a job. At a quarter of the outcomes an agent that holds attempts
is killed (SIGKILL), at 45 % it returns, at 60 % another one is drained and leaves, at 80 % the broker is killed and
started again on the same data. In the end every order must be in the table exactly once with the right content, and
every acknowledged job must have succeeded; the exit code is 0 only then. A fault that interrupted nothing is a failure
too: it would have shown nothing.

Faults come by progress and not by time, so a slow machine sees the same run. With `Rig` a test harness makes the
demonstration fail on purpose, to see that it can.
"""

import asyncio
import json as json_module
import signal
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
from broker.cli._demo_report import AgentKill, AgentStory, AttemptCounts, BrokerKill, Drain, JobCounts, Report
from broker.cli._demo_store import JobRecord, count_held, read_jobs, store_file
from broker.cli.exits import EXIT_FAILED, EXIT_OK, EXIT_USAGE
from mesh_client import FINAL_STATES, JobSpec, JobState, JobView, MeshClient, MeshClientError
from mesh_client.loopback import Mesh, ProcessError

ORDERS: Final = 20_000
ORDERS_A_JOB: Final = 50
SEED: Final = 20_261_121
AGENTS: Final = ("a1", "a2", "a3")
VICTIM: Final = "a2"
LEAVER: Final = "a3"
SLOTS: Final = 4
PAUSE_MS: Final = 150
"""How long each job takes at least: real transfers take a while, and the faults need something to interrupt."""
WAVE_JOBS: Final = 24
OPEN_JOBS_MAX: Final = 48
AGENT_KILL_AT: Final = 0.25
AGENT_RETURN_AT: Final = 0.45
DRAIN_AT: Final = 0.60
BROKER_KILL_AT: Final = 0.80
TIME_LIMIT_S: Final = 180.0
DRAIN_LIMIT_S: Final = 30.0
SYNCHRONOUS: Final = "FULL"


WHAT_NEXT: Final = """
The mesh runs again on the same data. In another terminal:

  export MESH_API={api}
  mesh agents list                       who is there, and what they hold
  mesh jobs list                         what ran, newest first
  mesh jobs submit echo --payload hello --wait
  mesh agents drain a1 --mode pause      nothing new for a1; then: mesh agents resume a1
  mesh agents explain a1                 why it is given work or not
  curl http://{metrics}/metrics          what Prometheus reads

Ctrl-C ends it."""


@dataclass(frozen=True, slots=True)
class Rig:
    """What a test harness changes to see the demonstration fail."""

    with_kills: bool = True
    before_judging: Callable[[Path], None] = lambda target: None
    console: Console | None = None


def main(*, json: bool = False, keep: bool = False, files: Path | None = None, rig: Rig | None = None) -> int:
    """Run the demonstration; the exit code.

    `keep` leaves the mesh running afterwards, until Ctrl-C. Its files stay in `files`, which must be empty; without it
    none is left.
    """
    rig = rig or Rig()
    console = rig.console or Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        if files is not None:
            files.mkdir(parents=True, exist_ok=True)
            if any(files.iterdir()):
                console.print(f"{files} is not empty: name a directory that is new or empty")
                return EXIT_USAGE
    except OSError as error:
        console.print(f"{files}: {error.strerror}. Name a directory that is new or empty")
        return EXIT_USAGE
    with _folder(files) as folder:
        demo = Demo(folder, console, rig)

        async def show() -> None:
            _leave_when_told()
            report = await demo.run()
            report.show(console)
            if files is not None:
                console.print(f"Files: {folder}")
            if json:
                print(json_module.dumps(report.as_json()), flush=True)
            if keep:
                await demo.stay()

        try:
            asyncio.run(show())
        except (ProcessError, MeshClientError, TimeoutError) as error:
            console.print(f"[bold red]The demonstration failed:[/] {str(error) or 'it took too long'}")
            return EXIT_FAILED
        except (KeyboardInterrupt, asyncio.CancelledError):
            if demo.report is None:
                raise KeyboardInterrupt from None
    return EXIT_OK if demo.report is not None and demo.report.is_ok else EXIT_FAILED


def _leave_when_told() -> None:
    """Have SIGTERM, and the end of the terminal, end this task as Ctrl-C does: with all that it started."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # `nohup`
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)


@contextmanager
def _folder(files: Path | None) -> Iterator[Path]:
    if files is not None:
        yield files.absolute()
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
        self._drain: Drain | None = None
        self.report: Report | None = None
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
            await self._start_agents()
            self._say(f"one broker, agents {', '.join(AGENTS)} with {SLOTS} slots each; {self._plan()}")
            self._began_s = time.monotonic()
            self._progress.start_task(self._bar)
            with self._progress:
                await self._work()
            elapsed_s = time.monotonic() - self._began_s
            await self._mesh.stop()
        self._rig.before_judging(self._target)
        self.report = self._report(elapsed_s, read_jobs(store_file(self._mesh.data)))
        return self.report

    async def stay(self) -> None:
        """Start the mesh again on the same data, and keep it until this is cancelled."""
        async with self._mesh:
            await self._mesh.start_broker()
            await self._start_agents()
            addresses = self._mesh.addresses
            self._console.print(WHAT_NEXT.format(api=addresses.api, metrics=addresses.metrics))
            await asyncio.get_running_loop().create_future()

    async def _start_agents(self) -> None:
        for name in AGENTS:
            await self._mesh.start_agent(name, slots=SLOTS, on_line=self._hear)

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
                        tasks.create_task(self._break_things(client), name="faults")
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

    async def _break_things(self, client: MeshClient) -> None:
        await self._until(AGENT_KILL_AT, holder=VICTIM)
        kill = await self._kill_agent()
        await self._until(AGENT_RETURN_AT)
        await self._bring_back(kill)
        await self._until(DRAIN_AT, holder=LEAVER)
        await self._drain_agent(client)
        await self._until(BROKER_KILL_AT)
        await self._kill_broker()

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

    async def _kill_agent(self) -> AgentKill:
        kill = self._agent_kill = AgentKill(self._at_s(), VICTIM)
        await self._mesh.agents[VICTIM].kill()
        others = " and ".join(name for name in AGENTS if name != VICTIM)
        self._say(f"[bold]agent {VICTIM} is killed[/] with work in its hands; {others} go on")
        return kill

    async def _bring_back(self, kill: AgentKill) -> None:
        kill.returned_at_s = self._at_s()
        kill.finished_before = sum(view.agent == VICTIM and view.is_final for view in self._views.values())
        await self._mesh.start_agent(VICTIM, slots=SLOTS, on_line=self._hear)
        self._say(f"agent {VICTIM} is back and takes its share")

    async def _drain_agent(self, client: MeshClient) -> None:
        """An operator has the agent finish what it holds, take nothing new, and leave."""
        held = sum(view.agent == LEAVER and not view.is_final for view in self._views.values())
        self._drain = Drain(self._at_s(), LEAVER, held)
        await client.drain_agent("default", LEAVER, reason="the demonstration")
        self._say(f"[bold]agent {LEAVER} is drained[/]: it finishes {held} jobs and takes nothing new")
        self._drain.exit_code = await self._mesh.agents[LEAVER].ended(DRAIN_LIMIT_S)
        self._drain.took_s = round(self._at_s() - self._drain.at_s, 3)
        self._say(f"agent {LEAVER} has left after {self._drain.took_s:.1f} s")

    def _at_s(self) -> float:
        return round(time.monotonic() - self._began_s, 3)

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
            self._agent_kill.rerun = sum(record.attempt > 1 for record in cut)
            done = sum(record.agent == VICTIM and record.state == JobState.SUCCEEDED for record in known)
            self._agent_kill.finished_after = done - self._agent_kill.finished_before
        if self._drain is not None:
            self._drain.cut_off = sum(LEAVER in record.lost_agents for record in known)
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
            drain=self._drain,
        )

    def _story(self, name: str, records: Sequence[JobRecord]) -> AgentStory:
        is_killed = self._agent_kill is not None and name == VICTIM
        return AgentStory(
            name,
            assigned=sum(record.assigned_to[name] for record in records),
            succeeded=sum(record.state == JobState.SUCCEEDED and record.agent == name for record in records),
            killed=is_killed,
            returned=is_killed and self._agent_kill is not None and self._agent_kill.finished_after > 0,
            drained=self._drain is not None and name == LEAVER and self._drain.exit_code == 0,
            held_when_killed=self._agent_kill.held if is_killed and self._agent_kill is not None else None,
        )


def _jain(counts: Sequence[int]) -> float:
    """Jain's index: 1 if all have the same, 1 / n if one has all."""
    squares = len(counts) * sum(count * count for count in counts)
    return sum(counts) ** 2 / squares if squares else 0.0


if __name__ == "__main__":
    sys.exit(main(json="--json" in sys.argv[1:]))
