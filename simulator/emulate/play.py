"""One real run of a scenario: the arrivals and durations of a seed, submitted in open loop, read back as history.

Nothing is watched while the run goes on: all that is known of a job comes from the broker's history afterwards. What
is late here (a busy machine) is counted against the run: a job's latency begins when it was due.
"""

import asyncio
import gc
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final
from uuid import UUID

from broker.dispatch.model import GroupNo
from mesh_client import FINAL_STATES, AttemptView, JobSpec, JobView, MeshClient
from simulator.courses import Attempt, JobCourse
from simulator.emulate.faults import RealFaults
from simulator.emulate.machine import Processors
from simulator.emulate.playable import OPERATION
from simulator.emulate.stage import Loss, Stage, Starts
from simulator.scenario import Scenario
from simulator.streams import SECOND_US, Streams
from simulator.workload import SimJob, Workload, arrivals_us

LEAD_S: Final = 1.0
"""Between the last agent's start and the first arrival."""
POLL_S: Final = 0.5
READS_AT_ONCE: Final = 16
CLOCK_SLACK: Final = timedelta(seconds=5)

Tell = Callable[[str], None]


class EmulationError(Exception):
    """A real run that came to nothing: what happened."""


@dataclass(slots=True)
class Played:
    """What came of a real run. `late_s`: how much later than due each submission left; `began_s` since the epoch."""

    began_s: float = 0.0
    jobs: list[JobCourse] = field(default_factory=list)
    refused: int = 0
    late_s: list[float] = field(default_factory=list)
    losses: list[Loss] = field(default_factory=list)
    busy: float = 0.0
    """Share of the machine's processors that worked meanwhile, for whomever."""


@dataclass(slots=True, frozen=True)
class Due:
    """A job that is to be submitted then."""

    at_us: int
    group: str
    job: SimJob

    @property
    def job_id(self) -> str:
        """The same in every run of the scenario."""
        return str(UUID(int=self.job.work.number << 96 | self.job.number, version=4))

    def spec(self) -> JobSpec:
        """What is submitted."""
        job, work = self.job, self.job.work.work
        return JobSpec(
            OPERATION,
            json={"seconds": job.duration_us / SECOND_US},
            priority=work.level,
            fairness_key=f"customer-{job.number % work.customers}" if work.customers > 1 else "",
            schedule_to_start_s=job.start_within_us / SECOND_US or None,
            run_timeout_s=work.run_timeout or None,
            total_timeout_s=work.deadline or None,
            job_id=self.job_id,
        )


def dues_of(scenario: Scenario, seed: int, replication: int = 0) -> list[Due]:
    """All jobs of the run in the order of arrival: those that the simulation of this seed has."""
    streams = Streams(seed, replication)
    end_us = round(scenario.end_s * SECOND_US)
    number_of = {name: GroupNo(no) for no, name in enumerate(scenario.groups, 1)}
    found: list[Due] = []
    for number, (name, work) in enumerate(scenario.work.items(), 1):
        load = Workload.of(number, name, work, number_of[work.group], streams)
        times = arrivals_us(work.arrivals, streams, number, end_us)
        found += [Due(at_us, work.group, load.draw(at_us)) for at_us in times]
    return sorted(found, key=lambda due: due.at_us)


async def play(scenario: Scenario, seed: int, folder: Path, starts: Starts, tell: Tell) -> Played:
    """Play the scenario. Raises ProcessError, MeshClientError, EmulationError."""
    async with Stage(folder, scenario, starts) as stage:
        await stage.start()
        played = Played()
        await load(stage, seed, played, tell)
        tell("all is submitted; waiting for what is under way")
        await read_back(stage, seed, played)
        return played


async def load(stage: Stage, seed: int, played: Played, tell: Tell) -> None:
    """Submit all jobs of the scenario to its stage, each when it is due, while its faults happen.

    Raises ProcessError, MeshClientError.
    """
    dues = dues_of(stage.scenario, seed)
    tell(f"{len(stage.agents)} agents run; {len(dues)} jobs in {stage.scenario.end_s:g} s")
    loop = asyncio.get_running_loop()
    began_s = loop.time() + LEAD_S
    played.began_s = time.time() + LEAD_S
    processors = Processors()
    gc.collect()
    gc.freeze()
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(RealFaults(stage, began_s).run(), name="faults")
            tasks.create_task(_submit_all(stage, dues, began_s, played), name="submissions")
    except ExceptionGroup as group:
        raise _first(group) from None
    finally:
        gc.unfreeze()
    played.losses, played.busy = stage.losses, processors.busy()


async def read_back(stage: Stage, seed: int, played: Played) -> None:
    """Wait until all is final, and read what the broker remembers. Raises MeshClientError, EmulationError."""
    played.jobs = await _history(stage, dues_of(stage.scenario, seed), played)


def _first(error: Exception) -> Exception:
    """What went wrong first, out of groups in groups."""
    return _first(error.exceptions[0]) if isinstance(error, ExceptionGroup) else error


async def _submit_all(stage: Stage, dues: Iterable[Due], began_s: float, played: Played) -> None:
    """Open loop: a job is submitted when it is due, whatever has become of those before."""
    loop = asyncio.get_running_loop()
    async with asyncio.TaskGroup() as submissions:
        for due in dues:
            wait_s = began_s + due.at_us / SECOND_US - loop.time()
            if wait_s > 0:
                await asyncio.sleep(wait_s)
            played.late_s.append(loop.time() - began_s - due.at_us / SECOND_US)
            submissions.create_task(_submit(stage.clients[due.group], due, played))


async def _submit(client: MeshClient, due: Due, played: Played) -> None:
    [answer] = await client.submit_many([due.spec()])
    if answer.error is not None:
        played.refused += 1


async def _history(stage: Stage, dues: list[Due], played: Played) -> list[JobCourse]:
    """What the broker remembers, once all is final. Raises EmulationError: it does not become so in time."""
    client = next(iter(stage.clients.values()))
    loop = asyncio.get_running_loop()
    give_up_s = loop.time() + stage.scenario.horizon.finish + stage.scenario.broker.recovery_grace
    since = datetime.fromtimestamp(played.began_s, UTC) - CLOCK_SLACK
    while True:
        await asyncio.sleep(POLL_S)
        views = {view.job_id: view async for view in client.list(accepted_since=since)}
        live = sum(view.state not in FINAL_STATES for view in views.values())
        if not live:
            break
        if loop.time() > give_up_s:
            raise EmulationError(f"{live} jobs are not final after horizon.finish")
    missing = [due.job_id for due in dues if due.job_id not in views]
    attempts = await _attempts(client, [view for view in views.values() if view.attempt > 1])
    if len(missing) != played.refused:
        raise EmulationError(
            f"of {len(dues)} jobs {played.refused} were refused, but {len(missing)} are not in the history"
        )
    return [
        _played(due, views[due.job_id], attempts.get(due.job_id, ()), played.began_s)
        for due in dues
        if due.job_id in views
    ]


async def _attempts(client: MeshClient, views: list[JobView]) -> dict[str, tuple[AttemptView, ...]]:
    may_read = asyncio.Semaphore(READS_AT_ONCE)

    async def read(job_id: str) -> tuple[str, tuple[AttemptView, ...]]:
        async with may_read:
            return job_id, (await client.get(job_id)).attempts

    return dict(await asyncio.gather(*(read(view.job_id) for view in views)))


def _played(due: Due, view: JobView, attempts: Iterable[AttemptView], began_s: float) -> JobCourse:
    of_first = [Attempt(view.agent, since(view.assigned_at, began_s), since(view.started_at, began_s))]
    return JobCourse(
        due.job.work.name,
        due.at_us / SECOND_US,
        due.job.duration_us / SECOND_US,
        since(view.accepted_at, began_s),
        since(view.finished_at, began_s),
        view.state.value,
        [_attempt(one, began_s) for one in attempts] or (of_first if view.attempt else []),
    )


def _attempt(view: AttemptView, began_s: float) -> Attempt:
    steps = (view.assigned_at, view.started_at, view.finished_at)
    return Attempt(view.agent, *(since(at, began_s) for at in steps))


def since(at: datetime | None, began_s: float) -> float:
    """Seconds from the beginning of the run; -1: it never was."""
    return at.timestamp() - began_s if at is not None else -1.0
