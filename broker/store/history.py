"""Single jobs for people and tools: what `broker.rpc` and the console read, with the history of each."""

import json
from collections.abc import Sequence
from typing import Any, Final

from sqlalchemy import Connection, select, text

from broker.dispatch.model import GroupNo, JobKey
from broker.dispatch.rows import AttemptRow, JobRow, TransitionRow
from broker.store import schema, statements
from broker.store.base import JobRecord
from broker.store.body import body_of
from broker.store.connection import StoreConnection

_JOB = schema.job.c
_SET = schema.label_set.c
_LABELS = (
    select(_SET.labels)
    .where(_SET.group_no == _JOB.group_no, _SET.labels_no == _JOB.labels_no)
    .scalar_subquery()
    .label("labels")
)
LISTED: Final = [*(_JOB[name] for name in JobRow._fields), _JOB.idempotency_key, _LABELS]
"""The columns of `record_of`."""
_KEYS_MAX: Final = 500
_WIDTH: Final = len(JobRow._fields)


def find_job(connection: StoreConnection, group_nos: Sequence[GroupNo], job_id: bytes) -> JobRecord | None:
    """The job with this id in one of the groups, with its bytes and history; the newest if several have it.

    Plain statements in one transaction: whoever waits for a job reads it so when it has ended.
    """
    connection.driver.execute("BEGIN")
    try:
        rows = connection.driver.execute(statements.JOBS_WITH_ID, (job_id,)).fetchall()
        keys = [(accepted_us, job_key) for job_key, group_no, accepted_us in rows if group_no in group_nos]
        return _whole(connection, max(keys)[1]) if keys else None
    finally:
        connection.driver.execute("COMMIT")


def _whole(connection: StoreConnection, job_key: JobKey) -> JobRecord:
    def rows(statement: str) -> list[Any]:
        return connection.driver.execute(statement, (job_key,)).fetchall()

    (found,) = rows(statements.WHOLE_JOB)
    row, (key, payload, payload_type, metadata, result, result_type, labels) = found[:_WIDTH], found[_WIDTH:]
    large: dict[str, bytes] = dict(rows(statements.BLOBS_OF))
    repeats = rows(statements.REPEAT_OF)
    return JobRecord(
        row=JobRow._make(row),
        idempotency_key=key,
        labels=_labels_of(labels),
        payload=body_of(large.get("payload") if payload is None else payload, payload_type, metadata),
        result=body_of(large.get("result") if result is None else result, result_type),
        checkpoint=large.get("checkpoint", b""),
        attempts=tuple(map(AttemptRow._make, rows(statements.ATTEMPTS_OF))),
        transitions=tuple(map(TransitionRow._make, rows(statements.TRANSITIONS_OF))),
        requeued_as=repeats[0][0] if repeats else b"",
    )


def records(connection: StoreConnection, job_keys: Sequence[JobKey]) -> list[JobRecord]:
    """These jobs by key, as far as they are kept, without bytes and history.

    Plain statements, for watchers ask often.
    """
    found: list[JobRecord] = []
    keys = sorted(job_keys)
    for start in range(0, len(keys), _KEYS_MAX):
        page = keys[start : start + _KEYS_MAX]
        rows = connection.driver.execute(statements.jobs_by_key(len(page)), page)
        found += map(record_of, rows)
    return found


def record_of(row: Sequence[Any]) -> JobRecord:
    """The record of a job from the columns of `LISTED`."""
    return JobRecord(JobRow._make(row[:-2]), row[-2], _labels_of(row[-1]))


def repeated(connection: Connection, job_keys: Sequence[JobKey]) -> set[JobKey]:
    """Those of the jobs that another job repeats."""
    found: set[JobKey] = set()
    for start in range(0, len(job_keys), _KEYS_MAX):
        is_one = _JOB.requeued_from.in_(job_keys[start : start + _KEYS_MAX])
        found.update(connection.scalars(select(_JOB.requeued_from).where(is_one, text(schema.IS_REPEAT))))
    return found


def _labels_of(labels: str | None) -> tuple[str, ...]:
    return tuple(json.loads(labels)) if labels else ()
