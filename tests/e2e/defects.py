"""A broker with a deliberate defect: what the checker must catch, or it is worth nothing.

    python -m tests.e2e.defects ack-before-commit serve --dev ...

The process is `mesh` itself with one function replaced from outside. Besides those of this module, every defect of the
dispatcher, or of its timers, that the simulator's seeds must find (`tests.mutants`) can be put in by its name.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

import pytest

from broker import engine
from broker.cli import main
from broker.clock import EngineClock
from broker.dispatch import liveness, reports, retry
from broker.dispatch.batch import Batch
from broker.dispatch.dispatcher import Dispatcher
from broker.dispatch.ledger import Ledger
from broker.dispatch.messages import (
    AcceptOutcome,
    AttemptFinished,
    AttemptId,
    JobAccepted,
    JobSubmitted,
    Notice,
    RequestRefused,
)
from broker.dispatch.model import Agent, Job
from broker.engine import Engine
from broker.errors import MeshError, StoreFailedError
from broker.observe.metrics import Metrics
from broker.store import file
from broker.store.base import Body, CommitOutcome, CommitRequest, CommitStatus
from broker.store.connection import StoreConnection
from broker.store.lane import FailStop
from broker.store.sqlite import SqliteStore

LATE_S: Final = 1.0
SOON_S: Final = 0.3
TURN_S: Final = 0.02
NEVER_US: Final = 1 << 62
REPLACED: Final = pytest.MonkeyPatch()
MUTANTS: Final = ExitStack()
"""Holds what was put in for as long as the process lives."""


def ack_before_commit() -> None:
    """Answers leave at once; what they promise is written later, in order."""
    waiting: list[asyncio.Task[None]] = []
    really = SqliteStore.commit

    async def write(store: SqliteStore, request: CommitRequest, before: asyncio.Task[None] | None) -> None:
        await asyncio.sleep(LATE_S)
        if before is not None:
            await before
        await really(store, request)

    async def commit(self: SqliteStore, request: CommitRequest) -> CommitOutcome:
        waiting[:] = [asyncio.create_task(write(self, request, waiting[0] if waiting else None))]
        await asyncio.sleep(TURN_S)  # else there were a commit for each event, and the disk would be the bottleneck
        return CommitOutcome(CommitStatus.COMMITTED)

    REPLACED.setattr(SqliteStore, "commit", commit)


def dispatch_before_commit() -> None:
    """Agents get their work at once; that they have it is written a little later."""
    really = Engine._commit

    async def commit(self: Engine, batch: Batch, events: int) -> None:
        for writes in batch.writes.values():
            for key, body in writes.payloads.items():
                assert isinstance(body, Body)
                self.payloads.put(key, body)
        await self._send(list(batch.sends()))
        for effects in batch.effects.values():
            effects.sends.clear()
        await asyncio.sleep(SOON_S)
        await really(self, batch, events)

    REPLACED.setattr(Engine, "_commit", commit)


def unaware_of_lag() -> None:
    """Whoever could not be heard while the broker stood still has been silent."""
    REPLACED.setattr(engine, "LAG_US", NEVER_US)


def wall_clock() -> None:
    """Deadlines follow the clock on the wall, whoever sets it."""
    REPLACED.setattr(EngineClock, "now_us", lambda self: time.time_ns() // 1_000)


def capacity_drifts() -> None:
    """The slot of work that came from a lost agent is never free again."""
    really = Ledger.release

    def release(self: Ledger, job: Job, agent: Agent) -> None:
        really(self, job, agent)
        if job.attempt > 1:
            agent.detached[job.key, job.attempt] = None
            self.slot_freed(agent)

    REPLACED.setattr(Ledger, "release", release)


def full_is_fine() -> None:
    """What the store rolled back for want of room counts as written."""
    really = SqliteStore.commit

    async def commit(self: SqliteStore, request: CommitRequest) -> CommitOutcome:
        outcome = await really(self, request)
        is_back = outcome.status is CommitStatus.ROLLED_BACK
        return CommitOutcome(CommitStatus.COMMITTED) if is_back else outcome

    REPLACED.setattr(SqliteStore, "commit", commit)


def errors_are_fine() -> None:
    """What the disk has not taken counts as written, and nothing ends by it."""
    really = SqliteStore.commit

    async def commit(self: SqliteStore, request: CommitRequest) -> CommitOutcome:
        try:
            return await really(self, request)
        except StoreFailedError:
            return CommitOutcome(CommitStatus.COMMITTED)

    REPLACED.setattr(SqliteStore, "commit", commit)
    REPLACED.setattr(FailStop, "record", lambda self, failure: None)


def begins_anew() -> None:
    """A file that cannot be read is as good as none."""
    create, refuse, check = file.create, file.refuse_foreign, file.check

    def begin(path: Path) -> None:
        for one in path.parent.glob(f"{path.name}*"):
            if one.suffix != ".lock":
                one.unlink()
        create(path)

    def create_anyway(path: Path) -> None:
        try:
            create(path)
            refuse(path)
            with closing(StoreConnection(path, is_writer=True)) as connection:
                check(connection, path)
        except MeshError:
            begin(path)

    REPLACED.setattr(file, "create", create_anyway)


def failures_are_final() -> None:
    """What failed once is not tried again."""

    def after_failure(ledger: Ledger, job: Job, *, retryable: bool, reason: str) -> None:
        retry.after_failure(ledger, job, retryable=False, reason=reason)

    REPLACED.setattr(reports, "after_failure", after_failure)


def slow_is_deaf() -> None:
    """A large payload must have arrived as soon as a small one."""
    REPLACED.setattr(Ledger, "_there_us", lambda self, job: self.now_us)


def any_content() -> None:
    """Other content under a name that is taken is the same job again."""
    really = Dispatcher._known

    def known(self: Dispatcher, event: JobSubmitted) -> JobAccepted | RequestRefused | None:
        answer = really(self, event)
        if isinstance(answer, RequestRefused):
            return JobAccepted(event.ticket, answer.job_key, duplicate=True)
        return answer

    REPLACED.setattr(Dispatcher, "_known", known)


def no_fencing() -> None:
    """What comes too late is accepted like everything else."""

    def accept(ledger: Ledger, agent: Agent, job: Job | None, event: AttemptFinished) -> None:
        ledger.effects.sends.append(AcceptOutcome(event.session, event.job_key, event.attempt))

    REPLACED.setattr(reports, "_refuse", accept)


def no_reconciliation() -> None:
    """What a returning agent says that it holds counts for nothing."""

    def forget(ledger: Ledger, agent: Agent, held: AttemptId, *, is_finished: bool) -> bool:
        return False

    REPLACED.setattr(liveness, "_keeps", forget)


def counts_most() -> None:
    """The last thing that a batch did to a job is not counted."""
    really = Metrics.on_batch

    def on_batch(self: Metrics, notices: Sequence[Notice], commit_seq: int) -> None:
        really(self, notices[:-1], commit_seq)

    REPLACED.setattr(Metrics, "on_batch", on_batch)


DEFECTS: Final[dict[str, Callable[[], None]]] = {
    "ack-before-commit": ack_before_commit,
    "dispatch-before-commit": dispatch_before_commit,
    "unaware-of-lag": unaware_of_lag,
    "wall-clock": wall_clock,
    "capacity-drifts": capacity_drifts,
    "full-is-fine": full_is_fine,
    "errors-are-fine": errors_are_fine,
    "begins-anew": begins_anew,
    "failures-are-final": failures_are_final,
    "slow-is-deaf": slow_is_deaf,
    "any-content": any_content,
    "no-fencing": no_fencing,
    "no-reconciliation": no_reconciliation,
    "counts-most": counts_most,
}


def plant(name: str) -> None:
    """Put a defect into this process, for good. Raises KeyError."""
    if name in DEFECTS:
        DEFECTS[name]()
        return
    from tests.mutants import all_mutants  # it costs a moment

    MUTANTS.enter_context(all_mutants()[name].applied())


if __name__ == "__main__":
    plant(sys.argv[1])
    sys.exit(main(sys.argv[2:]))
