"""One batch as one transaction: the fence first, then every row of every group, at the speed of the driver."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from broker.dispatch.model import ACCEPTANCE_BITS, GroupNo, JobKey
from broker.dispatch.rows import JobUpdate, KeyRow, Writes
from broker.errors import StoreFailedError
from broker.store import statements
from broker.store.base import Body, CommitRequest
from broker.store.body import metadata_text

_ACCEPTANCE_MASK: Final = (1 << ACCEPTANCE_BITS) - 1
_PAGE_BYTES: Final = 4_096
_NO_BODY: Final = ("", None, "", "", None, "")

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
    updates: Sequence[Row] = writes.updates
    if writes.inserts:
        driver.executemany(statements.INSERT_JOB, _job_rows(writes, inline_bytes_max))
        _write_blobs(driver, "payload", writes.payloads, inline_bytes_max)
    if writes.results:
        _write_blobs(driver, "result", writes.results, inline_bytes_max)
        finished = [row for row in writes.updates if row.job_key in writes.results]
        updates = [row for row in writes.updates if row.job_key not in writes.results]
        _update(driver, statements.FINISH_JOB, [_finish_row(row, writes.results, inline_bytes_max) for row in finished])
        inserted = sum(row.job_key in writes.results for row in writes.inserts)
        assert len(finished) + inserted == len(writes.results), "a result of a job that the batch does not write"
    _update(driver, statements.UPDATE_JOB, updates)


def _job_rows(writes: Writes, inline_bytes_max: int) -> Iterable[Row]:
    if not writes.payloads and not writes.keys and not writes.results:
        return [row + _NO_BODY for row in writes.inserts]
    keys = {row.job_key: row.key for row in writes.keys}
    return [
        (
            *row,
            keys.get(row.job_key, ""),
            *_payload_columns(writes.payloads.get(row.job_key), inline_bytes_max),
            *_result_columns(writes.results.get(row.job_key), inline_bytes_max),
        )
        for row in writes.inserts
    ]


def _finish_row(row: JobUpdate, results: Mapping[JobKey, object], inline_bytes_max: int) -> Row:
    return (*row[:-1], *_result_columns(results[row.job_key], inline_bytes_max), row.job_key)


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
    driver.executemany(statements.PUT_AGENT, writes.agents)
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
    _must_touch(driver, statements.PUT_KEY, rows, "idempotency keys that another job still has")


def _write_blobs(driver: sqlite3.Connection, kind: str, bodies: Mapping[JobKey, object], inline_bytes_max: int) -> None:
    contents = ((key, _body(body).content) for key, body in bodies.items())
    large = [(key, kind, content) for key, content in contents if len(content) > inline_bytes_max]
    if large:
        driver.executemany(statements.PUT_BLOB, large)


def _update(driver: sqlite3.Connection, statement: str, rows: Sequence[Row]) -> None:
    _must_touch(driver, statement, rows, "updates of jobs that are not there")


def _must_touch(driver: sqlite3.Connection, statement: str, rows: Sequence[Row], what: str) -> None:
    if rows and driver.executemany(statement, rows).rowcount != len(rows):
        # Memory and disk disagree: going on would make it worse, and starting again from the disk mends it.
        raise StoreFailedError(f"the batch has {what}; it was rolled back: start again from the store")


def _inline(body: Body, inline_bytes_max: int) -> bytes | None:
    return body.content if len(body.content) <= inline_bytes_max else None


def _body(value: object) -> Body:
    # The dispatcher carries bodies without knowing them, so the type is found again here.
    assert isinstance(value, Body)
    return value
