"""One batch as one transaction: the fence first, then every row of every group, at the speed of the driver."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from broker.dispatch.model import ACCEPTANCE_BITS, GroupNo, JobKey, JobState
from broker.dispatch.rows import JobRow, JobUpdate, KeyRow, Writes
from broker.errors import StoreFailedError
from broker.store import requests, statements
from broker.store.base import Body, CommitRequest
from broker.store.body import metadata_text
from broker.store.usual import FINISHES, INSERTS, UPDATES

_ACCEPTANCE_MASK: Final = (1 << ACCEPTANCE_BITS) - 1
_PAGE_BYTES: Final = 4_096

Row = tuple[object, ...]


class StaleError(Exception):
    """These groups have another owner by now; nothing was written."""

    def __init__(self, groups: tuple[GroupNo, ...]) -> None:
        super().__init__(groups)
        self.groups = groups


def write_batch(driver: sqlite3.Connection, broker_id: str, request: CommitRequest, inline_bytes_max: int) -> None:
    """Write the batch and commit it; when anything is raised, all of it is rolled back.

    Raises:
        StaleError: an epoch, or the number of the batch, is not the next one.
        StoreFailedError: the batch contradicts what is on disk.
        sqlite3.Error: see `broker.store.connection.store_error`.
    """
    driver.execute("BEGIN IMMEDIATE")
    try:
        _fence(driver, broker_id, request)
        for group_no, writes in request.writes.items():
            _write_jobs(driver, writes, inline_bytes_max)
            if _has_more(writes):
                _write_rest(driver, group_no, writes, request)
        driver.execute("COMMIT")
    except BaseException:
        # After some errors, a full disk is one, SQLite has rolled back by itself.
        if driver.in_transaction:
            driver.execute("ROLLBACK")
        raise


def pages_of(request: CommitRequest) -> int:
    """About how many pages of the write-ahead log the batch takes."""
    pages = 8
    for writes in request.writes.values():
        rows = len(writes.inserts) + len(writes.updates) + len(writes.transitions) + len(writes.keys)
        size = sum(row.payload_bytes for row in writes.inserts)
        size += sum(len(_body(result).content) for result in writes.results.values())
        pages += rows // 6 + size // _PAGE_BYTES + 16 * len(writes.checkpoints)
    return pages


def _fence(driver: sqlite3.Connection, broker_id: str, request: CommitRequest) -> None:
    values = (request.seq, request.at_us, broker_id, request.seq - 1)
    if driver.execute(statements.NEXT_BATCH, values).rowcount != 1:
        raise StaleError(tuple(request.epochs))
    without = request.writes.keys() - request.epochs.keys()
    assert not without, f"writes of groups {sorted(without)} without an epoch"
    held = [(_newest(request.writes.get(group)), group, epoch) for group, epoch in request.epochs.items()]
    if driver.executemany(statements.HOLD_GROUP, held).rowcount != len(held) and held:
        raise StaleError(tuple(_stale(driver, request.epochs)))


def _stale(driver: sqlite3.Connection, epochs: Mapping[GroupNo, int]) -> Iterator[GroupNo]:
    for group_no, epoch in epochs.items():
        if driver.execute(statements.GROUP_EPOCH, (group_no,)).fetchone() != (epoch,):
            yield group_no


def _newest(writes: Writes | None) -> int:
    if writes is None or not writes.inserts:
        return 0
    return max(row.job_key for row in writes.inserts) & _ACCEPTANCE_MASK


def _write_jobs(driver: sqlite3.Connection, writes: Writes, inline_bytes_max: int) -> None:
    updates: Sequence[JobUpdate] = writes.updates
    if writes.inserts:
        _insert_jobs(driver, writes, inline_bytes_max)
    if writes.results:
        finished = [row for row in updates if row.job_key in writes.results]
        updates = [row for row in updates if row.job_key not in writes.results]
        _finish_jobs(driver, finished, writes.results, inline_bytes_max)
        inserted = sum([row.job_key in writes.results for row in writes.inserts])
        assert len(finished) + inserted == len(writes.results), "a result of a job that the batch does not write"
    _update_jobs(driver, updates)


def _insert_jobs(driver: sqlite3.Connection, writes: Writes, inline_bytes_max: int) -> None:
    """Insert the new jobs, the usual ones many at a time."""
    keys = {row.job_key: row.key for row in writes.keys}
    results = writes.results
    usual: dict[str, list[Row]] = {state: [] for state in INSERTS}
    others: list[JobRow] = []
    for row in writes.inserts:
        kind, body = INSERTS.get(row.state), writes.payloads.get(row.job_key)
        if (
            kind is not None
            and kind.has(row)
            and type(body) is Body
            and not body.metadata
            and len(body.content) <= inline_bytes_max
            and row.job_key not in keys
            and row.job_key not in results
        ):
            # Bytes pass the adapters of the driver, a bytearray is bound at once.
            job_id, digest, content = bytearray(row.job_id), bytearray(row.digest), bytearray(body.content)
            usual[row.state].append((*kind.own(row), job_id, digest, content, body.content_type))
        else:
            others.append(row)
    for state, rows in usual.items():
        INSERTS[state].write(driver, rows)
    if others:
        _insert_others(driver, others, keys, writes, inline_bytes_max)


def _insert_others(
    driver: sqlite3.Connection,
    rows: Sequence[JobRow],
    keys: Mapping[JobKey, str],
    writes: Writes,
    inline_bytes_max: int,
) -> None:
    payloads, results = writes.payloads, writes.results
    values = (
        (
            *row,
            keys.get(row.job_key, ""),
            *_payload_columns(payloads.get(row.job_key), inline_bytes_max),
            *_result_columns(results.get(row.job_key), inline_bytes_max),
        )
        for row in rows
    )
    driver.executemany(statements.INSERT_JOB, values)
    _write_blobs(driver, "payload", rows, payloads, inline_bytes_max)
    _write_blobs(driver, "result", rows, results, inline_bytes_max)


def _finish_jobs(
    driver: sqlite3.Connection, finished: Sequence[JobUpdate], results: Mapping[JobKey, object], inline_bytes_max: int
) -> None:
    """Write the changes of jobs that have a result, the usual ones many at a time."""
    kind = FINISHES[JobState.SUCCEEDED]
    usual: list[Row] = []
    others: list[JobUpdate] = []
    for row in finished:
        body = results[row.job_key]
        if type(body) is Body and len(body.content) <= inline_bytes_max and kind.has(row):
            usual.append((*kind.own(row), bytearray(body.content), body.content_type))
        else:
            others.append(row)
    _must_touch(kind.write(driver, usual), usual)
    if others:
        values = [(*row[:-1], *_result_columns(results[row[-1]], inline_bytes_max), row[-1]) for row in others]
        _update(driver, statements.FINISH_JOB, values)
        _write_blobs(driver, "result", others, results, inline_bytes_max)


def _update_jobs(driver: sqlite3.Connection, updates: Sequence[JobUpdate]) -> None:
    """Write the changes of jobs without a result, the usual ones many at a time."""
    usual: dict[str, list[Row]] = {state: [] for state in UPDATES}
    others: list[Row] = []
    for row in updates:
        kind = UPDATES.get(row.state)
        if kind is not None and kind.has(row):
            usual[row.state].append(kind.own(row))
        else:
            others.append(row)
    for state, rows in usual.items():
        _must_touch(UPDATES[state].write(driver, rows), rows)
    _update(driver, statements.UPDATE_JOB, others)


def _payload_columns(value: object, inline_bytes_max: int) -> tuple[bytes | None, str, str]:
    if value is None:
        return None, "", ""
    body = _body(value)
    return _inline(body, inline_bytes_max), body.content_type, metadata_text(body)


def _result_columns(value: object, inline_bytes_max: int) -> tuple[bytes | None, str]:
    if value is None:
        return None, ""
    body = _body(value)
    return _inline(body, inline_bytes_max), body.content_type


def _has_more(writes: Writes) -> bool:
    return bool(
        writes.attempts
        or writes.transitions
        or writes.keys
        or writes.agents
        or writes.checkpoints
        or writes.label_sets
        or writes.policies
    )


def _write_rest(driver: sqlite3.Connection, group_no: GroupNo, writes: Writes, request: CommitRequest) -> None:
    driver.executemany(statements.PUT_AGENT, ((*row[:-1], json.dumps(row.labels)) for row in writes.agents))
    for made in writes.requests:
        requests.put(driver.execute, made, request.at_us)
    driver.executemany(statements.INSERT_LABEL_SET, ((*row[:3], json.dumps(row.labels)) for row in writes.label_sets))
    driver.executemany(statements.INSERT_POLICY, _policy_rows(group_no, writes))
    driver.executemany(statements.PUT_ATTEMPT, writes.attempts)
    driver.executemany(statements.INSERT_TRANSITION, ((request.seq, *row) for row in writes.transitions))
    driver.executemany(
        statements.PUT_BLOB, ((key, "checkpoint", content) for key, content in writes.checkpoints.items())
    )
    _write_keys(driver, writes.keys, request.at_us)


def _policy_rows(group_no: GroupNo, writes: Writes) -> Iterator[Row]:
    for policy in writes.policies:
        yield (group_no, *(getattr(policy, name) for name in policy.__slots__))


def _write_keys(driver: sqlite3.Connection, keys: list[KeyRow], at_us: int) -> None:
    rows = [(*row, at_us) for row in keys]
    if rows:
        touched = driver.executemany(statements.PUT_KEY, rows).rowcount
        _must_touch(touched, rows, "idempotency keys that another job still has")


def _write_blobs(
    driver: sqlite3.Connection,
    kind: str,
    rows: Iterable[JobRow | JobUpdate],
    bodies: Mapping[JobKey, object],
    inline_bytes_max: int,
) -> None:
    """Write what is too large for the rows of these jobs beside them."""
    contents = ((row.job_key, _body(bodies[row.job_key]).content) for row in rows if row.job_key in bodies)
    large = [(key, kind, content) for key, content in contents if len(content) > inline_bytes_max]
    if large:
        driver.executemany(statements.PUT_BLOB, large)


def _update(driver: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    if rows:
        _must_touch(driver.executemany(statement, rows).rowcount, rows)


def _must_touch(touched: int, rows: Sequence[Row], what: str = "updates of jobs that are not there") -> None:
    if touched != len(rows):
        # Memory and disk disagree: going on would make it worse, and starting again from the disk mends it.
        raise StoreFailedError(f"the batch has {what}; it was rolled back: start again from the store")


def _inline(body: Body, inline_bytes_max: int) -> bytes | None:
    return body.content if len(body.content) <= inline_bytes_max else None


def _body(value: object) -> Body:
    # The dispatcher carries bodies without knowing them, so the type is found again here.
    assert isinstance(value, Body)
    return value
