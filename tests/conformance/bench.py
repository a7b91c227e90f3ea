"""A store with one organisation and two groups that a broker owns, and rows to commit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from broker.dispatch.model import NO_AGENT, NO_JOB, AgentNo, GroupNo, JobKey, JobState, Phase, job_key
from broker.dispatch.rows import JobRow, JobUpdate, TransitionRow, Writes
from broker.store.base import CommitOutcome, CommitRequest, CommitStatus, GroupRow, JobRecord, Store

BROKER = "broker-1"
NO_GROUP = GroupNo(0)
START_US = 1_700_000_000_000_000
"""Engine time of the first commit; each takes a second."""


@dataclass
class StoreBench:
    """Commits as a broker does: numbered, with the epochs that it holds."""

    make: Callable[[], Store]
    store: Store
    seq: int = 0
    at_us: int = START_US
    epochs: dict[GroupNo, int] = field(default_factory=dict)
    org_no: int = 0
    group: GroupNo = NO_GROUP
    other_group: GroupNo = NO_GROUP

    async def start(self) -> None:
        """Open a fresh store and fill it."""
        await self.store.open()
        await self.fill()

    async def fill(self) -> None:
        """Make the organisation and its groups and take ownership."""
        self.org_no = (await self.store.insert_organisation("acme", "Acme", START_US)).org_no
        self.group = await self.make_group("east")
        self.other_group = await self.make_group("west")
        await self.own()

    async def make_group(self, slug: str) -> GroupNo:
        """Insert a group; it is not owned yet."""
        row = await self.store.insert_group(
            GroupRow(GroupNo(0), self.org_no, slug, slug.title(), "", "private", True, START_US)
        )
        return row.group_no

    async def own(self, broker_id: str = BROKER) -> None:
        """Take ownership of all groups."""
        taken = await self.store.take_ownership(broker_id, self.at_us)
        self.seq = taken.batch_seq
        self.epochs = dict(taken.epochs)

    async def commit(self, writes: Writes | None = None, **groups: Writes) -> CommitOutcome:
        """Commit writes of `group`, or of several groups by the names `group` and `other_group`."""
        by_group = {getattr(self, name): some for name, some in groups.items()}
        if writes is not None:
            by_group[self.group] = writes
        outcome = await self.store.commit(self.request(by_group))
        if outcome.status is CommitStatus.COMMITTED:
            self.seq += 1
            self.at_us += 1_000_000
        return outcome

    def request(self, writes: dict[GroupNo, Writes]) -> CommitRequest:
        """The next commit as it would be sent."""
        return CommitRequest(self.seq + 1, self.at_us, {group: self.epochs[group] for group in writes}, writes)

    async def insert(self, *rows: JobRow) -> None:
        """Commit new jobs of `group`."""
        outcome = await self.commit(Writes(inserts=list(rows)))
        assert outcome.status is CommitStatus.COMMITTED, outcome

    async def read(self, row: JobRow) -> JobRecord:
        """The stored job whole."""
        record = await self.store.job([row.group_no], row.job_id)
        assert record is not None
        return record

    async def keys(self, group: GroupNo | None = None) -> list[JobKey]:
        """Keys of all live jobs of a group, `group` if none is named."""
        rows = await self.store.live_jobs(group or self.group, NO_JOB, 10_000)
        return [row.job_key for row in rows]

    async def reopen(self) -> None:
        """Stop the broker and start another on the same data."""
        await self.store.close()
        self.store = self.make()
        await self.store.open()

    def job(self, number: int, *, group: GroupNo | None = None, **columns: Any) -> JobRow:
        """A queued job, the `number`-th of its group; `columns` replace what it has."""
        group = group or self.group
        row = JobRow(
            job_key=job_key(group, number),
            job_id=b"id" + group.to_bytes(7, "big") + number.to_bytes(7, "big"),
            group_no=group,
            environment_no=3,
            operation="file.copy",
            policy_no=1,
            labels_no=2,
            level=3,
            fairness="tenant",
            limit_key="erp",
            digest=bytes(range(32)),
            payload_bytes=0,
            accepted_us=START_US + number,
            not_before_us=START_US + 1,
            schedule_by_us=START_US + 2,
            run_timeout_us=4,
            total_by_us=START_US + 5,
            requeued_from=NO_JOB,
            state=JobState.QUEUED,
            phase=Phase.NONE,
            order_us=START_US + number,
            attempt=0,
            agent_no=NO_AGENT,
            assigned_us=0,
            started_us=0,
            finished_us=0,
            code="",
            message="",
            failures=0,
            crashes=0,
            crashes_alone=0,
            bounces=0,
            cancel_requested=0,
            stop_reason="",
        )
        return row._replace(**columns)


def change(row: JobRow, **columns: Any) -> JobUpdate:
    """The update that gives a stored row these columns."""
    changed = row._replace(**columns)
    return JobUpdate._make(getattr(changed, name) for name in JobUpdate._fields)


def succeed(row: JobRow) -> JobUpdate:
    """The update of a good first attempt on agent 7."""
    return change(
        row, state=JobState.SUCCEEDED, attempt=1, agent_no=AgentNo(7), assigned_us=START_US, finished_us=START_US + 9
    )


def lost(row: JobRow, attempt: int = 1) -> TransitionRow:
    """The job went back to the queue because its agent was lost."""
    return TransitionRow(
        row.group_no, row.job_key, attempt, START_US, "running", "queued", "agent_lost", AgentNo(7), "mesh"
    )
