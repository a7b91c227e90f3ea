"""What a dispatcher is rebuilt from, and the look-ups beside it; plain statements, for there may be a million rows."""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, Final, TypeVar

from sqlalchemy import Connection, select

from broker.dispatch.model import GroupNo, JobKey, OnLoss, OperationPolicy
from broker.dispatch.rows import AgentRow, JobRow, LabelSetRow
from broker.store import schema, statements
from broker.store.base import Body, GroupState, KnownSubmission, SubmissionLookup
from broker.store.body import body_of
from broker.store.connection import StoreConnection

T = TypeVar("T")

# Statements of few lengths stay prepared; the last one is within every limit of SQLite's parameters.
_LENGTHS: Final = (1, 8, 64, 256)


def group_state(connection: Connection, group_no: GroupNo) -> GroupState:
    """The policies, label sets, agents and the highest acceptance number of one group."""
    policy, label_set, agent, epoch = schema.operation_policy, schema.label_set, schema.agent, schema.group_epoch
    accepted = connection.scalar(select(epoch.c.acceptance_no).where(epoch.c.group_no == group_no))
    policies = connection.execute(select(policy).where(policy.c.group_no == group_no).order_by(policy.c.no))
    label_sets = connection.execute(
        select(label_set).where(label_set.c.group_no == group_no).order_by(label_set.c.labels_no)
    )
    agents = connection.execute(select(agent).where(agent.c.group_no == group_no).order_by(agent.c.agent_no))
    return GroupState(
        acceptance_no=accepted or 0,
        policies=[_policy(tuple(row)[1:]) for row in policies],
        label_sets=[LabelSetRow._make((*row[:-1], tuple(json.loads(row.labels)))) for row in label_sets],
        agents=[AgentRow._make((*row[:-1], tuple(json.loads(row.labels)))) for row in agents],
    )


def live_jobs(connection: StoreConnection, group_no: GroupNo, after: JobKey, limit: int) -> list[JobRow]:
    """Jobs of the group that are not final, by key, from the one after `after`."""
    rows = connection.driver.execute(statements.LIVE_JOBS, (group_no, after, limit))
    return [JobRow._make(row) for row in rows]


def payloads(connection: StoreConnection, job_keys: Sequence[JobKey]) -> dict[JobKey, Body]:
    """The payloads of those jobs that have one."""
    found: dict[JobKey, Body] = {}
    for key, inline, content_type, metadata, large in _read(connection, statements.bodies, job_keys):
        body = body_of(large if inline is None else inline, content_type, metadata)
        if body is not None:
            found[key] = body
    return found


def checkpoints(connection: StoreConnection, job_keys: Sequence[JobKey]) -> dict[JobKey, bytes]:
    """The latest checkpoints of those jobs that have one."""
    return dict(_read(connection, statements.blobs, job_keys, first=("checkpoint",)))


def find_submissions(
    connection: StoreConnection, lookups: Sequence[SubmissionLookup], now_us: int
) -> list[KnownSubmission | None]:
    """For each look-up the job of its group that has its id, else the one that has its key at `now_us`."""
    # Bytes pass the adapters of the driver, a bytearray is bound at once.
    ids = list(map(bytearray, {lookup.job_id for lookup in lookups}))
    by_id = {
        (group_no, job_id): KnownSubmission(key, digest)
        for job_id, group_no, key, digest in _read(connection, statements.jobs_by_id, ids)
    }
    pairs = list({(lookup.group_no, lookup.key) for lookup in lookups if lookup.key})
    if not by_id and not pairs:
        return [None] * len(lookups)
    by_key = {
        (group_no, name): KnownSubmission(key, digest)
        for group_no, name, key, digest in _read_pairs(connection, pairs, now_us)
    }
    return [
        by_id.get((lookup.group_no, lookup.job_id)) or by_key.get((lookup.group_no, lookup.key)) for lookup in lookups
    ]


def _read(
    connection: StoreConnection,
    statement: Callable[[int], str],
    values: Sequence[object],
    first: tuple[object, ...] = (),
) -> Iterator[Any]:
    for page in _pages(values, None):
        yield from connection.driver.execute(statement(len(page)), (*first, *page))


def _read_pairs(connection: StoreConnection, pairs: Sequence[tuple[GroupNo, str]], now_us: int) -> Iterator[Any]:
    for page in _pages(pairs, (None, None)):
        yield from connection.driver.execute(statements.live_keys(len(page)), (*chain(*page), now_us))


def _pages(values: Sequence[T], filler: T) -> Iterator[Sequence[T]]:
    """The values in pages of a few fixed lengths, filled up with what matches nothing."""
    for start in range(0, len(values), _LENGTHS[-1]):
        page = values[start : start + _LENGTHS[-1]]
        length = next(length for length in _LENGTHS if length >= len(page))
        yield [*page, *[filler] * (length - len(page))]


def _policy(row: tuple[Any, ...]) -> OperationPolicy:
    fields = dict(zip(OperationPolicy.__slots__, row, strict=True))
    return OperationPolicy(**{**fields, "on_loss": OnLoss(fields["on_loss"])})
