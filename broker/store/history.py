"""Jobs for people and tools: what `broker.rpc` and the console read, with the history of each."""

import heapq
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import Connection, Row, Select, Table, select

from broker.dispatch.model import ACCEPTANCE_BITS, GroupNo, JobKey
from broker.dispatch.rows import AttemptRow, JobRow, TransitionRow
from broker.store import schema, statements
from broker.store.base import JobQuery, JobRecord
from broker.store.body import body_of
from broker.store.connection import StoreConnection

_JOB = schema.job.c
_ROW_COLUMNS = [_JOB[name] for name in JobRow._fields]
_SET = schema.label_set.c
_LABELS = (
    select(_SET.labels)
    .where(_SET.group_no == _JOB.group_no, _SET.labels_no == _JOB.labels_no)
    .scalar_subquery()
    .label("labels")
)
_KEYS_MAX: Final = 500


def find_job(connection: Connection, group_nos: Sequence[GroupNo], job_id: bytes) -> JobRecord | None:
    """The job with this id in one of the groups, with its bytes and history; the newest if several have it."""
    wanted = select(schema.job, _LABELS).where(_JOB.job_id == job_id, _JOB.group_no.in_(group_nos))
    row = connection.execute(wanted.order_by(_JOB.accepted_us.desc()).limit(1)).first()
    if row is None:
        return None
    blobs = _blobs(connection, row.job_key)
    return JobRecord(
        row=JobRow._make(row[: len(JobRow._fields)]),
        idempotency_key=row.idempotency_key,
        labels=_labels_of(row.labels),
        payload=body_of(_content(row.payload, blobs, "payload"), row.payload_type, row.metadata),
        result=body_of(_content(row.result, blobs, "result"), row.result_type),
        checkpoint=blobs.get("checkpoint", b""),
        attempts=tuple(AttemptRow._make(item) for item in _attempts(connection, row.job_key)),
        transitions=tuple(TransitionRow._make(item) for item in _transitions(connection, row.job_key)),
    )


def list_jobs(connection: Connection, query: JobQuery) -> list[JobRecord]:
    """A page of jobs, newest acceptance first over all groups of the query, without bytes and history."""
    pages = (_page(connection, query, group_no) for group_no in query.groups)
    newest_first = heapq.merge(*pages, key=lambda record: (-record.row.accepted_us, -record.row.job_key))
    return list(itertools.islice(newest_first, query.limit))


def records(connection: StoreConnection, job_keys: Sequence[JobKey]) -> list[JobRecord]:
    """These jobs by key, as far as they are kept, without bytes and history.

    Plain statements, for watchers ask often.
    """
    found: list[JobRecord] = []
    keys = sorted(job_keys)
    for start in range(0, len(keys), _KEYS_MAX):
        page = keys[start : start + _KEYS_MAX]
        rows = connection.driver.execute(statements.jobs_by_key(len(page)), page)
        found += map(_record, rows)
    return found


def _page(connection: Connection, query: JobQuery, group_no: GroupNo) -> Iterator[JobRecord]:
    return map(_record, connection.execute(_jobs_of(query, group_no)))


def _record(row: Sequence[Any]) -> JobRecord:
    return JobRecord(JobRow._make(row[:-2]), row[-2], _labels_of(row[-1]))


def _labels_of(labels: str | None) -> tuple[str, ...]:
    return tuple(json.loads(labels)) if labels else ()


def _jobs_of(query: JobQuery, group_no: GroupNo) -> Select[*tuple[object, ...]]:
    # A range of keys is a group in the order of acceptance: no index is needed, nor one of its own for each filter.
    before = query.before_key.get(group_no) or (group_no + 1) << ACCEPTANCE_BITS
    wanted = select(*_ROW_COLUMNS, _JOB.idempotency_key, _LABELS)
    wanted = wanted.where(_JOB.job_key >= group_no << ACCEPTANCE_BITS, _JOB.job_key < before)
    if query.states:
        wanted = wanted.where(_JOB.state.in_(query.states))
    if query.operation:
        wanted = wanted.where(_JOB.operation == query.operation)
    if query.agent_no is not None:
        wanted = wanted.where(_JOB.agent_no == query.agent_no)
    return wanted.order_by(_JOB.job_key.desc()).limit(query.limit)


def _blobs(connection: Connection, job_key: JobKey) -> dict[str, bytes]:
    blob = schema.blob.c
    rows = connection.execute(select(blob.kind, blob.content).where(blob.job_key == job_key))
    return {row.kind: row.content for row in rows}


def _content(inline: bytes | None, blobs: dict[str, bytes], kind: str) -> bytes | None:
    return blobs.get(kind) if inline is None else inline


def _attempts(connection: Connection, job_key: JobKey) -> Sequence[Row[*tuple[object, ...]]]:
    return _rows_of(connection, schema.attempt, AttemptRow._fields, job_key, "attempt")


def _transitions(connection: Connection, job_key: JobKey) -> Sequence[Row[*tuple[object, ...]]]:
    return _rows_of(connection, schema.transition, TransitionRow._fields, job_key, "transition_no")


def _rows_of(
    connection: Connection, table: Table, columns: Sequence[str], job_key: JobKey, order: str
) -> Sequence[Row[*tuple[object, ...]]]:
    wanted = select(*(table.c[name] for name in columns)).where(table.c.job_key == job_key).order_by(table.c[order])
    return connection.execute(wanted).all()
