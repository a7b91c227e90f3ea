"""Searching and retention on a large store while a broker commits: `python -m bench.history [--jobs 1000000]`.

A store is filled with finished jobs of thirty-odd days. Then a broker's batches are committed one after the other, each
accepts jobs, assigns and finishes those of the batches before, while in turns nobody, a reader, or retention works
beside it. Printed as JSON: what each question costs, and what that does to the commits' times.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.machine import machine
from broker.dispatch.model import ACCEPTANCE_BITS, NO_AGENT, NO_JOB, AgentNo, GroupNo, JobKey, JobState, Phase, job_key
from broker.dispatch.rows import JobRow, JobUpdate, Writes
from broker.store.base import Body, CommitRequest, CommitStatus, GroupRow, JobQuery, Place, Span
from broker.store.retention import Retention, RetentionPolicy
from broker.store.sqlite import SqliteStore

DAY_US: Final = 86_400_000_000
START_US: Final = 1_750_000_000_000_000
BATCH: Final = 128
FILLED: Final = 5_000
PAYLOAD: Final = Body(b"x" * 200)
QUESTIONS: Final = 40


class Mesh:
    """A store and the broker that writes to it: one group, jobs of equal shape."""

    def __init__(self, store: SqliteStore, jobs: int) -> None:
        self.store = store
        self.step_us = 40 * DAY_US // jobs
        self.group = GroupNo(0)
        self.seq = self.accepted = 0
        self.epochs: dict[GroupNo, int] = {}
        self.waits_s: list[float] = []
        self._live: list[JobRow] = []

    async def start(self) -> None:
        """An organisation, a group, ownership."""
        org = await self.store.insert_organisation("bench", "Bench", START_US)
        group = await self.store.insert_group(
            GroupRow(GroupNo(0), org.org_no, "bench", "Bench", "", "private", True, START_US)
        )
        self.group = group.group_no
        taken = await self.store.take_ownership("bench", START_US)
        self.seq, self.epochs = taken.batch_seq, dict(taken.epochs)

    @property
    def now_us(self) -> int:
        """Engine time: each job comes a step after the one before."""
        return START_US + self.accepted * self.step_us

    async def fill(self, jobs: int) -> None:
        """Finished jobs: most succeeded, each hundredth failed, each thousandth dead."""
        for first in range(1, jobs + 1, FILLED):
            rows = [self.row(number, "succeeded") for number in range(first, min(jobs, first + FILLED - 1) + 1)]
            self.accepted = rows[-1].job_key & (1 << ACCEPTANCE_BITS) - 1
            await self._commit(Writes(inserts=rows, payloads={row.job_key: PAYLOAD for row in rows}))

    def row(self, number: int, state: str) -> JobRow:
        """The `number`-th job as it was accepted, or after its end."""
        at_us = START_US + number * self.step_us
        if state == JobState.SUCCEEDED and number % 100 == 0:
            state = JobState.DEAD if number % 1_000 == 0 else JobState.FAILED
        is_over = state != JobState.QUEUED
        return JobRow(
            job_key=job_key(self.group, number),
            job_id=at_us.to_bytes(8, "big") + number.to_bytes(8, "big"),
            group_no=self.group,
            environment_no=0,
            operation="files.copy" if number % 10_000 else "files.rare",
            policy_no=0,
            labels_no=0,
            level=3,
            fairness="",
            limit_key="",
            digest=bytes(16),
            payload_bytes=len(PAYLOAD.content),
            accepted_us=at_us,
            not_before_us=0,
            schedule_by_us=0,
            run_timeout_us=0,
            total_by_us=0,
            requeued_from=NO_JOB,
            state=state,
            phase=Phase.NONE,
            order_us=at_us,
            attempt=int(is_over),
            agent_no=AgentNo(number % 20 + 1) if is_over else NO_AGENT,
            assigned_us=at_us if is_over else 0,
            started_us=at_us if is_over else 0,
            finished_us=at_us + 1_000 if is_over else 0,
            code="" if state in ("succeeded", "queued") else "csv.bad_row",
            message="",
            failures=0,
            crashes=0,
            crashes_alone=0,
            bounces=0,
            cancel_requested=0,
            stop_reason="",
        )

    async def batch(self) -> None:
        """What a broker under load commits: new jobs, and the end of those of the batch before."""
        rows = [self.row(self.accepted + number, "queued") for number in range(1, BATCH + 1)]
        self.accepted += BATCH
        ended = [_ended(row, self.now_us) for row in self._live]
        self._live = rows
        began_s = time.perf_counter()
        results: dict[JobKey, object] = {row.job_key: PAYLOAD for row in ended}
        await self._commit(
            Writes(inserts=rows, updates=ended, payloads={row.job_key: PAYLOAD for row in rows}, results=results)
        )
        self.waits_s.append(time.perf_counter() - began_s)

    async def _commit(self, writes: Writes) -> None:
        self.seq += 1
        outcome = await self.store.commit(CommitRequest(self.seq, self.now_us, self.epochs, {self.group: writes}))
        assert outcome.status is CommitStatus.COMMITTED, outcome


def _ended(row: JobRow, at_us: int) -> JobUpdate:
    changed = row._replace(
        state="succeeded", attempt=1, agent_no=AgentNo(3), assigned_us=at_us, started_us=at_us, finished_us=at_us
    )
    return JobUpdate._make(getattr(changed, name) for name in JobUpdate._fields)


def figures(seconds: list[float]) -> dict[str, float]:
    """In milliseconds."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1_000, 2)

    return {"n": len(ordered), "p50_ms": at(0.5), "p99_ms": at(0.99), "max_ms": at(1.0)}


async def beside(mesh: Mesh, commits: int, work: Callable[[], Awaitable[Any]] | None) -> dict[str, Any]:
    """The commits' times while `work` goes on, over and over."""
    mesh.waits_s = []
    turned = asyncio.Event()

    async def works() -> None:
        while work is not None:
            await work()
            turned.set()

    working = asyncio.create_task(works())
    began_s = time.perf_counter()
    for _ in range(commits):
        await mesh.batch()
    spent_s = time.perf_counter() - began_s
    if work is not None:
        await turned.wait()
    working.cancel()
    await asyncio.wait((working,))
    return {"commits": figures(mesh.waits_s), "jobs_per_s": round(commits * BATCH / spent_s)}


async def asked(ask: Callable[[], Awaitable[Any]], times: int = QUESTIONS) -> dict[str, float]:
    """The times of one question."""
    spent = []
    for _ in range(times):
        began_s = time.perf_counter()
        await ask()
        spent.append(time.perf_counter() - began_s)
    return figures(spent)


def questions(mesh: Mesh, jobs: int) -> dict[str, Callable[[], Awaitable[Any]]]:
    """What people ask of a large history."""
    store, group = mesh.store, mesh.group
    middle_us = START_US + 20 * DAY_US
    plain = JobQuery((group,))
    old = mesh.row(jobs // 2, "succeeded")
    return {
        "newest 50": lambda: store.jobs(plain),
        "page in the middle": lambda: store.jobs(replace(plain, start=Place(old.accepted_us, old.job_key))),
        "50 dead": lambda: store.jobs(replace(plain, states=("dead",))),
        "failed on one day": lambda: store.jobs(
            replace(plain, states=("failed",), accepted=Span(middle_us, middle_us + DAY_US))
        ),
        "finished on one day": lambda: store.jobs(
            replace(plain, finished=Span(middle_us, middle_us + DAY_US), is_by_finish=True)
        ),
        "one agent, one day": lambda: store.jobs(
            replace(plain, agents={group: (AgentNo(5),)}, accepted=Span(middle_us, middle_us + DAY_US))
        ),
        "rare operation, one slice": lambda: store.jobs(replace(plain, operation="files.none")),
        "count of one slice": lambda: store.count_jobs(plain),
        "get one": lambda: store.job((group,), old.job_id),
    }


async def measure(folder: Path, jobs: int, commits: int) -> dict[str, Any]:
    """All figures."""
    store = SqliteStore(folder / "mesh.db")
    await store.open()
    mesh = Mesh(store, jobs)
    await mesh.start()
    began_s = time.perf_counter()
    await mesh.fill(jobs)
    filled_s = time.perf_counter() - began_s
    asks = questions(mesh, jobs)
    idle = {name: await asked(ask) for name, ask in asks.items()}
    alone = await beside(mesh, commits, None)
    searched: dict[str, list[float]] = {}

    async def read() -> None:
        for name, ask in asks.items():
            began_s = time.perf_counter()
            await ask()
            searched.setdefault(name, []).append(time.perf_counter() - began_s)

    read_beside = await beside(mesh, commits, read)
    policy = RetentionPolicy(history_us=30 * DAY_US)
    retention = Retention(store, policy, lambda: mesh.now_us, lambda: mesh.seq)

    async def retire() -> None:
        await retention.run_once()
        await asyncio.sleep(1.0)

    retired_beside = await beside(mesh, commits, retire)
    retired = retention.jobs_total
    again = await beside(mesh, commits, None)
    before = await store.file_state()
    rest = await retention.run_once()
    after = await store.file_state()
    for _ in range(commits):
        await mesh.batch()
    reused = await store.file_state()
    await store.close()
    return {
        "machine": machine(),
        "jobs": jobs,
        "fill_us_per_job": round(filled_s / jobs * 1e6, 1),
        "questions_idle": idle,
        "questions_beside_commits": {name: figures(seen) for name, seen in searched.items()},
        "commits_alone": alone,
        "commits_beside_reader": read_beside,
        "commits_beside_retention": {**retired_beside, "retired_jobs": retired},
        "commits_alone_again": again,
        "retention_rest": {**rest._asdict(), "file": rest.file._asdict()},
        "file": {"full": before._asdict(), "after_retention": after._asdict(), "after_more_jobs": reused._asdict()},
    }


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m bench.history", description="Searching and retention, measured.")
    parser.add_argument("--jobs", type=int, default=1_000_000)
    parser.add_argument("--commits", type=int, default=1_000)
    asked_for = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(asyncio.run(measure(Path(folder), asked_for.jobs, asked_for.commits)), indent=2))


if __name__ == "__main__":
    main()
