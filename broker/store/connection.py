"""A connection to a SQLite file: the driver's for hot statements, SQLAlchemy's over the same one for the rest.

Transactions are always explicit. What an error of SQLite means is decided here and nowhere else
(`docs/architecture.md`, "Commit outcomes").
"""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import StaticPool

from broker.errors import StoreBusyError, StoreError, StoreFailedError

BUSY_TIMEOUT_S: Final = 2.0
"""How long a statement waits for a lock that somebody's command line holds."""
CACHE_KIB: Final = 64 * 1024
WAL_BYTES_KEPT: Final = 64 << 20
"""The write-ahead log is cut to this size when it starts from the beginning again."""

# Rolled back for certain, also when COMMIT itself says so: SQLite gives FULL while it writes frames, so before the
# frame that marks the commit is whole, and rolls back by itself. An error of fsync is another code (IOERR).
_ROLLED_BACK: Final = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL})


class StoreConnection:
    """One connection, used by one thread. `is_writer` decides how transactions begin and whether they may write."""

    def __init__(self, path: Path, *, is_writer: bool, synchronous: str = "FULL") -> None:
        self.driver = _connect(path, "rw" if is_writer else "ro")
        self._engine = _engine(self.driver, "BEGIN IMMEDIATE" if is_writer else "BEGIN")
        if is_writer:
            self.driver.execute("PRAGMA journal_mode = WAL")
            self.driver.execute(f"PRAGMA synchronous = {synchronous}")
            self.driver.execute("PRAGMA wal_autocheckpoint = 0")
            self.driver.execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT}")
            self.driver.execute("PRAGMA foreign_keys = ON")

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction for Core expressions, rolled back when the block raises."""
        with self._engine.begin() as connection:
            yield connection

    def pragma(self, name: str) -> object:
        """The present value of a pragma."""
        return self.driver.execute(f"PRAGMA {name}").fetchone()[0]

    def close(self) -> None:
        """Close it; the last one to close takes the write-ahead log into the file."""
        self._engine.dispose()
        self.driver.close()


def store_error(error: sqlite3.Error, path: Path) -> StoreError:
    """What the error means: StoreBusyError if all is as it was before, else StoreFailedError."""
    # The driver raises errors of its own, without a code of SQLite, for values that it cannot bind.
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    facts = {"path": str(path), "code": name}
    if code in _ROLLED_BACK:
        return StoreBusyError(f"{path}: {error} ({name}); nothing was changed, try again", **facts)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return damaged(path, str(error))
    if code in (sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISUSE):
        text = f"{path}: {error} ({name}); the rows contradict what is on disk: start again from the file"
        return StoreFailedError(text, **facts)
    text = f"{path}: {error} ({name}); what is on disk is not known: look at the disk, then start again from the file"
    return StoreFailedError(text, **facts)


def damaged(path: Path, finding: str) -> StoreFailedError:
    """The error for a file that must not be used any more, with what can be done about it."""
    text = (
        f"{path} is damaged ({finding}): put a copy of it there, or save what `sqlite3 {path.name} .recover` can read"
    )
    return StoreFailedError(text, path=str(path))


def retry_after_s(error: StoreBusyError) -> float:
    """When it is worth trying again: a lock is gone soon, a full disk is not."""
    return 1.0 if error.details["code"] == "SQLITE_FULL" else 0.1


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    driver = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        # One thread uses it, but the interpreter may collect it in another.
        check_same_thread=False,
    )
    driver.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    driver.execute("PRAGMA temp_store = MEMORY")
    return driver


def _engine(driver: sqlite3.Connection, begin: str) -> Engine:
    engine = create_engine("sqlite://", creator=lambda: driver, poolclass=StaticPool)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine
