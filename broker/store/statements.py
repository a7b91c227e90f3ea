"""The statements of the hot path, in SQLite's words: built from the tables and the rows that are bound to them.

Each binds a row as it is, without a dictionary between: at a batch of 256 jobs Python's share decides. Values of peers
are always bound; what is put into the text are names of tables and columns, marks, and constants of this program.
"""

from collections.abc import Mapping
from typing import Final

from sqlalchemy import Table

from broker.dispatch.rows import AgentRow, AttemptRow, JobRow, JobUpdate, KeyRow, RequestRow, TransitionRow
from broker.store import schema

Constants = Mapping[str, int | str | None]
"""Columns that have the same value in all rows that a statement writes."""


def _insert(table: Table, columns: tuple[str, ...]) -> str:
    unknown = set(columns) - set(table.c.keys())
    assert not unknown, f"{table.name} has no {unknown}"
    return f'INSERT INTO "{table.name}" ({_names(columns)}) VALUES ({", ".join("?" * len(columns))})'


def _update(table: Table, columns: tuple[str, ...]) -> str:
    (key,) = (column.name for column in table.primary_key)
    changes = ", ".join(f'"{name}" = ?' for name in columns)
    return f'UPDATE "{table.name}" SET {changes} WHERE "{key}" = ?'


def _upsert(table: Table, columns: tuple[str, ...]) -> str:
    keys = tuple(column.name for column in table.primary_key)
    changes = ", ".join(f'"{name}" = excluded."{name}"' for name in columns if name not in keys)
    return f"{_insert(table, columns)} ON CONFLICT ({_names(keys)}) DO UPDATE SET {changes}"


def _once(table: Table, columns: tuple[str, ...]) -> str:
    return f"{_insert(table, columns)} ON CONFLICT DO NOTHING"


def _names(columns: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


_BESIDE: Final = (schema.blob, schema.attempt, schema.transition)
JOB_COLUMNS: Final = _names(JobRow._fields)
BODY_COLUMNS: Final = ("idempotency_key", "payload", "payload_type", "metadata", "result", "result_type")

INSERT_JOB: Final = _insert(schema.job, JobRow._fields + BODY_COLUMNS)
UPDATE_JOB: Final = _update(schema.job, JobUpdate._fields[:-1])
FINISH_JOB: Final = _update(schema.job, (*JobUpdate._fields[:-1], "result", "result_type"))
PUT_BLOB: Final = _upsert(schema.blob, ("job_key", "kind", "content"))
# An attempt that was lost and comes back with its outcome ends twice; the last word counts.
PUT_ATTEMPT: Final = _upsert(schema.attempt, AttemptRow._fields)
INSERT_TRANSITION: Final = _insert(schema.transition, ("commit_seq", *TransitionRow._fields))
PUT_AGENT: Final = _upsert(schema.agent, AgentRow._fields)
INSERT_LABEL_SET: Final = _once(schema.label_set, ("group_no", "labels_no", "operation", "labels"))
INSERT_POLICY: Final = _once(schema.operation_policy, tuple(schema.operation_policy.c.keys()))
# Takes the place of an expired key only; the last value is the time that expiry is measured against.
PUT_KEY: Final = f"{_upsert(schema.submission_key, KeyRow._fields)} WHERE submission_key.expires_us <= ?"

# What was made by a request is remembered for a while; of one organisation only the newest, so that it stays small.
PUT_REQUEST: Final = _insert(schema.request, RequestRow._fields)
PAST_REQUESTS: Final = "DELETE FROM request WHERE expires_us <= ?"
OLD_REQUESTS: Final = (
    "DELETE FROM request WHERE org_no = ? AND request_no <= "
    "(SELECT request_no FROM request WHERE org_no = ? ORDER BY request_no DESC LIMIT 1 OFFSET ?)"
)

NEXT_BATCH: Final = "UPDATE broker_batch SET seq = ?, at_us = max(at_us, ?) WHERE broker_id = ? AND seq = ?"
# One statement fences the group and counts its acceptances: it touches no row if the epoch is stale.
HOLD_GROUP: Final = "UPDATE group_epoch SET acceptance_no = max(acceptance_no, ?) WHERE group_no = ? AND epoch = ?"
GROUP_EPOCH: Final = "SELECT epoch FROM group_epoch WHERE group_no = ?"

LIVE_JOBS: Final = (
    f"SELECT {JOB_COLUMNS} FROM job WHERE group_no = ? AND job_key > ? AND {schema.IS_LIVE} ORDER BY job_key LIMIT ?"
)

# Where a time of acceptance lies among the keys of a range; the last key is not in it.
FIRST_ACCEPTED: Final = (
    "SELECT job_key, accepted_us FROM job WHERE job_key >= ? AND job_key < ? ORDER BY job_key LIMIT 1"
)
LAST_ACCEPTED: Final = FIRST_ACCEPTED.replace("ORDER BY job_key", "ORDER BY job_key DESC")

# What retention removes: the oldest first, so that the pages of the table become free as a whole.
PAST_JOBS: Final = (
    f"SELECT job_key FROM job WHERE group_no = ? AND {schema.IS_FINISHED} AND finished_us < ? "
    f"AND NOT ({schema.IS_LIVE}) ORDER BY finished_us LIMIT ?"
)
PAST_KEYS: Final = (
    "DELETE FROM submission_key WHERE rowid IN "
    "(SELECT rowid FROM submission_key WHERE expires_us <= ? ORDER BY expires_us LIMIT ?)"
)
GROUPS_WITH_JOBS: Final = "SELECT group_no FROM group_epoch ORDER BY group_no"
DELETE_JOB: Final = "DELETE FROM job WHERE job_key = ?"
DELETE_BESIDE: Final = tuple(f"DELETE FROM {table.name} WHERE job_key = ?" for table in _BESIDE)


def insert_rows(table: Table, columns: tuple[str, ...], constants: Constants, rows: int) -> str:
    """Inserts so many rows; bound are `columns`, row after row."""
    values = ", ".join([*"?" * len(columns), *map(_literal, constants.values())])
    names = _names((*columns, *constants))
    assert set(columns) | set(constants) == set(table.c.keys()), f"all columns of {table.name} are written"
    return f'INSERT INTO "{table.name}" ({names}) VALUES {", ".join([f"({values})"] * rows)}'


def update_rows(table: Table, columns: tuple[str, ...], constants: Constants, rows: int) -> str:
    """Changes so many rows, each found by its primary key, which is among `columns`; bound as in `insert_rows`."""
    (key,) = (column.name for column in table.primary_key)
    changes = [f'"{name}" = new."{name}"' for name in columns if name != key]
    changes += [f'"{name}" = {_literal(value)}' for name, value in constants.items()]
    first = ", ".join(f'? AS "{name}"' for name in columns)
    more = f" UNION ALL VALUES {', '.join([f'({_marks(columns)})'] * (rows - 1))}" if rows > 1 else ""
    source = f"(SELECT {first}{more}) AS new"
    return f'UPDATE "{table.name}" SET {", ".join(changes)} FROM {source} WHERE "{table.name}"."{key}" = new."{key}"'


def _literal(value: int | str | None) -> str:
    if value is None:
        return "NULL"
    assert isinstance(value, int) or value.replace("_", "").isalnum() or not value, "a constant, not what a peer said"
    return str(value) if isinstance(value, int) else f"'{value}'"


def _marks(columns: tuple[str, ...]) -> str:
    return ", ".join("?" * len(columns))


def jobs_by_id(count: int) -> str:
    """(job_id, group_no, job_key, digest) of the jobs that have one of `count` ids."""
    marks = ", ".join("?" * count)
    return f"SELECT job_id, group_no, job_key, digest FROM job WHERE job_id IN ({marks})"


def live_keys(count: int) -> str:
    """(group_no, key, job_key, digest) of `count` (group, key) pairs, then the time that expiry is measured against."""
    marks = ", ".join(["(?, ?)"] * count)
    # CROSS keeps SQLite from reading the whole table once it holds few keys.
    return (
        f'WITH wanted(group_no, "key") AS (VALUES {marks}) '
        'SELECT group_no, "key", job_key, digest FROM wanted CROSS JOIN submission_key USING (group_no, "key") '
        "WHERE expires_us > ?"
    )


def bodies(count: int) -> str:
    """(job_key, payload, payload_type, metadata, large payload) of `count` jobs that have a payload."""
    marks = ", ".join("?" * count)
    return (
        "SELECT job.job_key, payload, payload_type, metadata, content "
        "FROM job LEFT JOIN blob ON blob.job_key = job.job_key AND blob.kind = 'payload' "
        f"WHERE job.job_key IN ({marks})"
    )


def blobs(count: int) -> str:
    """(job_key, content) of the blobs of one kind (the first value) of `count` jobs."""
    marks = ", ".join("?" * count)
    return f"SELECT job_key, content FROM blob WHERE kind = ? AND job_key IN ({marks})"


LABELS: Final = (
    "(SELECT labels FROM label_set WHERE label_set.group_no = job.group_no AND label_set.labels_no = job.labels_no)"
)


def jobs_by_key(count: int) -> str:
    """`JobRow`, idempotency key and labels (JSON, or NULL) of `count` jobs, by key."""
    marks = ", ".join("?" * count)
    return f"SELECT {JOB_COLUMNS}, idempotency_key, {LABELS} FROM job WHERE job_key IN ({marks}) ORDER BY job_key"


# One job whole: where its id is, and the rows that tell of it.
JOBS_WITH_ID: Final = "SELECT job_key, group_no, accepted_us FROM job WHERE job_id = ?"
WHOLE_JOB: Final = f"SELECT {JOB_COLUMNS}, {_names(BODY_COLUMNS)}, {LABELS} FROM job WHERE job_key = ?"
BLOBS_OF: Final = "SELECT kind, content FROM blob WHERE job_key = ?"
ATTEMPTS_OF: Final = f"SELECT {_names(AttemptRow._fields)} FROM attempt WHERE job_key = ? ORDER BY attempt"
TRANSITIONS_OF: Final = (
    f'SELECT {_names(TransitionRow._fields)} FROM "transition" WHERE job_key = ? ORDER BY transition_no'
)
REPEAT_OF: Final = (
    f"SELECT job_id FROM job WHERE requeued_from = ? AND {schema.IS_REPEAT} ORDER BY job_key DESC LIMIT 1"
)
