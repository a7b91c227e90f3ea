"""`files.csv_to_sql`: part of a CSV file, transformed, into a table, in one transaction.

The payload is a JSON object:

    {"source": "/data/orders.csv",         the file; its first line names the columns
     "offset": 2000, "limit": 1000,        rows after the first line; limit may be left out (to the end)
     "byte_range": [65536, 131072],        instead: the rows that start at these bytes (end not included)
     "target": "/data/erp.sqlite",         a SQLite database
     "table": "orders", "key": ["id"],     the table must have a unique index on the key columns
     "mapping": {"id": {"column": "order_no", "type": "integer"},
                 "cents": {"column": "amount", "type": "integer", "multiply": "100"},
                 "name": {"column": "customer", "strip": true, "upper": true}}}

`type` is `text` (default), `integer`, `real`, or `decimal` (exact, stored as text). `strip` and `upper` change the
text before it is read as a number; `multiply` is exact (28 digits) for all but `real`; an empty field is NULL with
`"nullable": true`, else a bad row unless the type is `text`. More keys: `"create": true` makes the table if it is
missing, `delimiter`, and `pause_ms`, which waits that long before the transaction and is pacing for demonstrations.

A part can be run again, also beside another run of the same part: rows are written by `INSERT ... ON CONFLICT (key) DO
UPDATE`, so running twice leaves what running once leaves, and the transaction is all or nothing. The result is
`{"rows": n, "sums": {column: sum}}` over the numeric columns (a decimal's sum is text).

`byte_range` reads only its part of the file, so it is the one for large files; it needs a line break at each row's end
and nowhere else (no line breaks inside quotes). Row ranges read, but do not transform, all rows before them.
"""

from __future__ import annotations

import csv
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

from agent_stub.operations import JobContext, OperationError, operation

BUSY_TIMEOUT_S = 30.0
ROWS_BETWEEN_CHECKS = 1_000
INTEGER_LIMIT = 1 << 63
SQL_TYPES = {"integer": "INTEGER", "real": "REAL", "text": "TEXT", "decimal": "TEXT"}

Value = int | float | str | None
Row = tuple[int, list[str]]
"""(line number or byte position, fields)."""


@operation("files.csv_to_sql")
def csv_to_sql(job: JobContext) -> dict[str, Any]:
    """Copy a part of a CSV file into a SQL table; see the module."""
    copy = _Copy.parsed(job.json())
    try:
        rows = copy.read(job)
    except FileNotFoundError as error:
        raise OperationError("files.not_found", f"{copy.source} does not exist on this agent") from error
    except PermissionError as error:
        raise OperationError("files.denied", f"{copy.source} may not be read by this agent") from error
    except UnicodeDecodeError as error:
        raise OperationError("csv.not_utf8", f"{copy.source} is not UTF-8: {error.reason}") from error
    if copy.pause_ms:
        job.sleep(copy.pause_ms / 1_000)
    job.raise_if_cancelled()
    copy.write(rows)
    return {"rows": len(rows), "sums": copy.sums(rows)}


@dataclass(frozen=True, slots=True)
class _Column:
    """How one column of the target is made."""

    target: str
    source: str
    type: str
    multiply: Decimal | None
    is_stripped: bool
    is_upper: bool
    is_nullable: bool

    @staticmethod
    def parsed(target: str, wish: object) -> _Column:
        if not isinstance(wish, dict) or not isinstance(wish.get("column"), str):
            raise _bad_payload(f"mapping.{target} must be an object with `column`")
        unknown = set(wish) - {"column", "type", "multiply", "strip", "upper", "nullable"}
        kind = wish.get("type", "text")
        if unknown or kind not in SQL_TYPES:
            raise _bad_payload(f"mapping.{target}: unknown {', '.join(sorted(unknown)) or f'type {kind!r}'}")
        multiply = wish.get("multiply")
        try:
            factor = None if multiply is None else Decimal(str(multiply))
        except InvalidOperation as error:
            raise _bad_payload(f"mapping.{target}.multiply is no number") from error
        if factor is not None and (kind == "text" or not factor.is_finite()):
            raise _bad_payload(f"mapping.{target}.multiply needs a number and a numeric type")
        flags = (bool(wish.get("strip")), bool(wish.get("upper")), bool(wish.get("nullable")))
        return _Column(target, wish["column"], kind, factor, *flags)

    def transform(self, text: str) -> Value:
        """The value for the table.

        Raises:
            ValueError, ArithmeticError: the text is not of the column's type.
        """
        if self.is_stripped:
            text = text.strip()
        if self.is_upper:
            text = text.upper()
        if not text and self.is_nullable:
            return None
        if self.type == "text":
            return text
        if "_" in text:
            raise ValueError("is no number to anybody but Python")
        if self.type == "integer":
            return self._integer(text)
        if self.type == "real":
            return self._real(text)
        return format(self._exact(text), "f")

    def _integer(self, text: str) -> int:
        value = int(text) if self.multiply is None else self._whole(self._exact(text))
        if not -INTEGER_LIMIT <= value < INTEGER_LIMIT:
            raise ValueError("does not fit into 64 bits")
        return value

    def _whole(self, value: Decimal) -> int:
        if value != value.to_integral_value():
            raise ValueError("is not whole")
        return int(value)

    def _real(self, text: str) -> float:
        value = float(text) if self.multiply is None else float(text) * float(self.multiply)
        if not math.isfinite(value):
            raise ValueError("is not finite")
        return value

    def _exact(self, text: str) -> Decimal:
        value = Decimal(text)
        if not value.is_finite():
            raise ValueError("is not finite")
        return value if self.multiply is None else value * self.multiply


@dataclass(frozen=True, slots=True)
class _Copy:
    """A checked payload."""

    source: Path
    target: Path
    table: str
    key: tuple[str, ...]
    columns: tuple[_Column, ...]
    offset: int
    limit: int | None
    byte_range: tuple[int, int] | None
    delimiter: str
    is_created: bool
    pause_ms: float

    @staticmethod
    def parsed(wish: object) -> _Copy:
        if not isinstance(wish, dict):
            raise _bad_payload("the payload must be an object")
        for name in ("source", "target", "table"):
            if not isinstance(wish.get(name), str) or not wish[name] or "\0" in wish[name]:
                raise _bad_payload(f"{name} must be a text")
        mapping = wish.get("mapping")
        if not isinstance(mapping, dict) or not mapping:
            raise _bad_payload("mapping must name at least one column")
        columns = tuple(_Column.parsed(target, column) for target, column in mapping.items())
        key = wish.get("key")
        if not isinstance(key, list) or not key or not set(key) <= set(mapping):
            raise _bad_payload("key must list columns of mapping")
        delimiter = wish.get("delimiter", ",")
        if not isinstance(delimiter, str) or len(delimiter) != 1:
            raise _bad_payload("delimiter must be one character")
        return _Copy(
            source=Path(wish["source"]),
            target=Path(wish["target"]),
            table=wish["table"],
            key=tuple(key),
            columns=columns,
            offset=_count(wish, "offset") or 0,
            limit=_count(wish, "limit"),
            byte_range=_byte_range(wish),
            delimiter=delimiter,
            is_created=bool(wish.get("create")),
            pause_ms=_count(wish, "pause_ms") or 0,
        )

    def read(self, job: JobContext) -> list[tuple[Value, ...]]:
        """The part's rows as they go into the table."""
        if self.byte_range is not None:
            with self.source.open("rb") as binary:
                header = _fields(binary.readline().decode("utf-8-sig"), self.delimiter)
                lines = _lines_between(binary, *self.byte_range)
                rows = ((at, _fields(line.decode(), self.delimiter)) for at, line in lines)
                return self._transformed(job, header, rows, lambda at: _line_number(self.source, at))
        with self.source.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=self.delimiter)
            header = next(reader, [])
            part = islice(reader, self.offset, None if self.limit is None else self.offset + self.limit)
            numbered = ((reader.line_num, fields) for fields in part)
            return self._transformed(job, header, numbered, lambda line: line)

    def _transformed(
        self, job: JobContext, header: Sequence[str], rows: Iterable[Row], line_of: Callable[[int], int]
    ) -> list[tuple[Value, ...]]:
        places = self._places(header)
        done: list[tuple[Value, ...]] = []
        for at, fields in rows:
            if not fields:
                continue  # an empty line is no row
            if len(done) % ROWS_BETWEEN_CHECKS == 0:
                job.raise_if_cancelled()
            if len(fields) != len(header):
                raise self._bad_row(line_of(at), f"has {len(fields)} fields, the first line {len(header)}")
            values: list[Value] = []
            for column, place in places:
                try:
                    values.append(column.transform(fields[place]))
                except (ValueError, ArithmeticError) as error:
                    # The value itself stays here: failure texts travel to the submitter.
                    text = f"column {column.source!r} is not {column.type} as {column.target!r} needs it"
                    raise self._bad_row(line_of(at), text) from error
            done.append(tuple(values))
        return done

    def _places(self, header: Sequence[str]) -> list[tuple[_Column, int]]:
        names = {name: place for place, name in reversed(list(enumerate(header)))}
        missing = sorted({column.source for column in self.columns} - set(names))
        if missing:
            raise OperationError("csv.no_column", f"{self.source} has no column {', '.join(missing)}")
        return [(column, names[column.source]) for column in self.columns]

    def _bad_row(self, line: int, text: str) -> OperationError:
        return OperationError("csv.bad_row", f"{self.source} line {line}: {text}")

    def write(self, rows: Sequence[tuple[Value, ...]]) -> None:
        """Insert or update all rows in one transaction."""
        try:
            with closing(sqlite3.connect(self.target, timeout=BUSY_TIMEOUT_S, isolation_level=None)) as database:
                database.execute("BEGIN IMMEDIATE")
                if self.is_created:
                    database.execute(self._create_statement())
                database.executemany(self._upsert_statement(), rows)
                database.execute("COMMIT")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorname.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
            raise OperationError("sql.busy" if is_busy else "sql.error", f"{self.target}: {error}", is_busy) from error
        except sqlite3.DatabaseError as error:
            raise OperationError("sql.refused", f"{self.target}: {error}") from error

    def _upsert_statement(self) -> str:
        names = [_quoted(column.target) for column in self.columns]
        keys = [_quoted(name) for name in self.key]
        updates = ", ".join(f"{name} = excluded.{name}" for name in names if name not in keys)
        holes = ", ".join("?" * len(names))
        action = f"UPDATE SET {updates}" if updates else "NOTHING"
        return (
            f"INSERT INTO {_quoted(self.table)} ({', '.join(names)}) VALUES ({holes}) "  # noqa: S608 - names are quoted
            f"ON CONFLICT ({', '.join(keys)}) DO {action}"
        )

    def _create_statement(self) -> str:
        columns = [f"{_quoted(column.target)} {SQL_TYPES[column.type]}" for column in self.columns]
        keys = ", ".join(_quoted(name) for name in self.key)
        return f"CREATE TABLE IF NOT EXISTS {_quoted(self.table)} ({', '.join(columns)}, PRIMARY KEY ({keys}))"

    def sums(self, rows: Sequence[tuple[Value, ...]]) -> dict[str, int | float | str]:
        """The sum of each numeric column, for whoever compares source and target."""
        sums: dict[str, int | float | str] = {}
        for place, column in enumerate(self.columns):
            values = [row[place] for row in rows if row[place] is not None]
            if column.type == "integer":
                sums[column.target] = sum(value for value in values if isinstance(value, int))
            elif column.type == "real":
                sums[column.target] = math.fsum(value for value in values if isinstance(value, float))
            elif column.type == "decimal":
                sums[column.target] = format(sum((Decimal(str(value)) for value in values), Decimal(0)), "f")
        return sums


def _bad_payload(text: str) -> OperationError:
    return OperationError("csv.bad_payload", text)


def _count(wish: dict[str, Any], name: str) -> int | None:
    value = wish.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _bad_payload(f"{name} must be a whole number >= 0")
    return value


def _byte_range(wish: dict[str, Any]) -> tuple[int, int] | None:
    value = wish.get("byte_range")
    if value is None:
        return None
    if wish.get("offset") is not None or wish.get("limit") is not None:
        raise _bad_payload("byte_range and offset or limit exclude each other")
    is_pair = isinstance(value, list) and len(value) == 2 and all(type(edge) is int for edge in value)
    if not is_pair or not 0 <= value[0] <= value[1]:
        raise _bad_payload("byte_range must be [start, end] with 0 <= start <= end")
    return value[0], value[1]


def _fields(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _lines_between(binary: Any, start: int, end: int) -> Iterator[tuple[int, bytes]]:
    """(position, line) of each line that starts in [start, end), the first line of the file left out.

    `binary` stands behind the first line. A line belongs to the range that holds its first byte, so ranges that touch
    share none and miss none.
    """
    at = binary.tell()
    if start > at:
        binary.seek(start - 1)
        binary.readline()  # up to the end of the line that began before
        at = binary.tell()
    while at < end and (line := binary.readline()):
        yield at, line
        at += len(line)


def _line_number(source: Path, at: int) -> int:
    """The number of the line that starts at byte `at`; only looked for when it has to be told."""
    breaks = 0
    with source.open("rb") as binary:
        while at > 0 and (block := binary.read(min(at, 1 << 20))):
            breaks += block.count(b"\n")
            at -= len(block)
    return breaks + 1


def _quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'
