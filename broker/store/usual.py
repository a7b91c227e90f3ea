"""Jobs as most of them are written: placed or queued as they are accepted, then at work, then ended well.

Two things of Python's driver cost more than SQLite itself does here, and both are spared. Each value that is bound has
its price, that of bytes and of members of an enumeration is high (they pass its adapters; a `bytearray` does not): what
all usual rows have in common stands in the statement. And for each run of a statement the thread lets go of the
interpreter, and waits for it again while the event loop works: here one run writes many rows.

A row that differs in a single column is not usual. It is left to `broker.store.commit`, which binds every column.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, Final

from broker.dispatch.model import JobState, Phase
from broker.dispatch.rows import JobRow, JobUpdate
from broker.store import schema, statements
from broker.store.statements import Constants

ROWS_AT_ONCE: Final = 16
"""Rows that one run of a statement writes; what is left over goes one by one. More save nothing (measured)."""

Row = tuple[Any, ...]
Make = Callable[[tuple[str, ...], Constants, int], str]
"""A statement that writes so many rows with these columns bound."""


class Usual:
    """Rows with the same constants, and how they are written. `apart` are columns that are bound beside a row's own."""

    def __init__(self, fields: tuple[str, ...], constants: Constants, apart: tuple[str, ...], make: Make) -> None:
        shared = [name for name in fields if name in constants]
        own = [name for name in fields if name not in constants and name not in apart]
        self._shared = itemgetter(*map(fields.index, shared))
        self._expected = tuple(constants[name] for name in shared)
        self._one, self._many = (make((*own, *apart), constants, rows) for rows in (1, ROWS_AT_ONCE))
        self.own = itemgetter(*map(fields.index, own))
        """The values of a row that are bound before those of the columns apart."""

    def has(self, row: Row) -> bool:
        """Whether the row has all the constants."""
        return bool(self._shared(row) == self._expected)

    def write(self, driver: sqlite3.Connection, values: Sequence[Row]) -> int:
        """Write rows, each given as what is bound of it; how many were touched."""
        whole = len(values) - len(values) % ROWS_AT_ONCE
        touched = 0
        if whole:
            starts = range(0, whole, ROWS_AT_ONCE)
            runs = [list(chain.from_iterable(values[start : start + ROWS_AT_ONCE])) for start in starts]
            touched += driver.executemany(self._many, runs).rowcount
        if whole < len(values):
            touched += driver.executemany(self._one, values[whole:]).rowcount
        return touched


_NOTHING_YET: Final[Constants] = {
    **dict.fromkeys(("not_before_us", "schedule_by_us", "run_timeout_us", "total_by_us", "requeued_from"), 0),
    **dict.fromkeys(("started_us", "finished_us"), 0),
    **dict.fromkeys(("idempotency_key", "metadata", "result_type"), ""),
    "result": None,
}
_NO_TROUBLE: Final[Constants] = {
    **dict.fromkeys(("failures", "crashes", "crashes_alone", "bounces", "cancel_requested"), 0),
    **dict.fromkeys(("code", "message", "stop_reason"), ""),
}
_NEW: Final = ((JobState.ASSIGNED, Phase.SENT), (JobState.QUEUED, Phase.NONE))
_CHANGED: Final = (
    (JobState.ASSIGNED, Phase.SENT),
    (JobState.RUNNING, Phase.ACCEPTED),
    (JobState.SUCCEEDED, Phase.NONE),
)


def _insert(state: JobState, phase: Phase) -> Usual:
    constants = {**_NOTHING_YET, **_NO_TROUBLE, "state": state, "phase": phase}
    apart = ("job_id", "digest", "payload", "payload_type")

    def make(columns: tuple[str, ...], given: Constants, rows: int) -> str:
        return statements.insert_rows(schema.job, columns, given, rows)

    return Usual(JobRow._fields, constants, apart, make)


def _update(state: JobState, phase: Phase, *results: str) -> Usual:
    constants = {**_NO_TROUBLE, "not_before_us": 0, "state": state, "phase": phase}

    def make(columns: tuple[str, ...], given: Constants, rows: int) -> str:
        return statements.update_rows(schema.job, columns, given, rows)

    return Usual(JobUpdate._fields, constants, results, make)


INSERTS: Final[Mapping[str, Usual]] = {state: _insert(state, phase) for state, phase in _NEW}
"""New jobs by state. Apart: job id, digest, payload and its type."""
UPDATES: Final[Mapping[str, Usual]] = {state: _update(state, phase) for state, phase in _CHANGED}
"""Changed jobs by state."""
FINISHES: Final[Mapping[str, Usual]] = {
    JobState.SUCCEEDED: _update(JobState.SUCCEEDED, Phase.NONE, "result", "result_type")
}
"""Jobs that ended with a result. Apart: the result and its type."""
