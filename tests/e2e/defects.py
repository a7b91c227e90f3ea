"""A broker with a deliberate defect: what the checker must catch, or it is worth nothing.

    python -m tests.e2e.defects ack-before-commit serve --dev ...

The process is `mesh` itself with one function replaced from outside.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final

import pytest

from broker.cli import main
from broker.dispatch import liveness, reports
from broker.dispatch.ledger import Ledger
from broker.dispatch.messages import AcceptOutcome, AttemptFinished, AttemptId
from broker.dispatch.model import Agent, Job
from broker.store.base import CommitOutcome, CommitRequest, CommitStatus
from broker.store.sqlite import SqliteStore

LATE_S: Final = 1.0
REPLACED: Final = pytest.MonkeyPatch()


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
        return CommitOutcome(CommitStatus.COMMITTED)

    REPLACED.setattr(SqliteStore, "commit", commit)


def no_fencing() -> None:
    """What comes too late is accepted like everything else."""

    def accept(ledger: Ledger, agent: Agent, job: Job | None, event: AttemptFinished) -> None:
        ledger.effects.sends.append(AcceptOutcome(event.session, event.job_key, event.attempt))

    REPLACED.setattr(reports, "_refuse", accept)


def no_reconciliation() -> None:
    """What a returning agent says that it holds counts for nothing."""

    def forget(ledger: Ledger, agent: Agent, held: AttemptId) -> bool:
        return False

    REPLACED.setattr(liveness, "_keeps", forget)


DEFECTS: Final[dict[str, Callable[[], None]]] = {
    "ack-before-commit": ack_before_commit,
    "no-fencing": no_fencing,
    "no-reconciliation": no_reconciliation,
}


if __name__ == "__main__":
    DEFECTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))
