"""A thread with a connection of its own: what is asked of it runs there, one after the other, and never on the loop."""

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import DBAPIError

from broker.errors import StoreError, StoreFailedError
from broker.store.connection import StoreConnection, store_error

T = TypeVar("T")


class FailStop:
    """The first failure after which nothing that the store says can be trusted; shared by all its lanes."""

    def __init__(self) -> None:
        self._failure: StoreFailedError | None = None

    def check(self) -> None:
        """Raise that failure again, if there was one."""
        if self._failure is not None:
            raise self._failure

    def record(self, failure: StoreError) -> None:
        """Remember a failure if it is one that ends the process."""
        if self._failure is None and isinstance(failure, StoreFailedError):
            self._failure = failure


class Lane:
    """One thread, one connection. `open` starts both, `close` ends them after all that was asked before."""

    def __init__(self, name: str, path: Path, fail_stop: FailStop) -> None:
        self._name = name
        self._path = path
        self._fail_stop = fail_stop
        self._executor: ThreadPoolExecutor | None = None
        self._connection: StoreConnection | None = None

    async def open(self, connect: Callable[[], StoreConnection]) -> None:
        """Start the thread and make the connection in it; raises what `connect` raises, as errors of the store."""
        assert self._executor is None, f"{self._name} is open"
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=self._name)
        self._connection = await self._call(connect)

    async def run(self, work: Callable[[StoreConnection], T]) -> T:
        """Do `work` in the thread and return what it returns.

        Raises:
            StoreBusyError: nothing was changed.
            StoreFailedError: now or before; every later call raises it too.
        """
        return await self._call(lambda: work(self._opened()))

    def post(self, work: Callable[[StoreConnection], object]) -> None:
        """Do `work` some time, from any thread; a busy file is nobody's concern, nor is a lane that is closed."""
        if self._executor is not None:
            self._executor.submit(self._quietly, work)

    async def close(self) -> None:
        """Close the connection in its thread and end the thread; does nothing on a closed lane."""
        if self._executor is None:
            return
        executor, self._executor = self._executor, None
        try:
            await asyncio.get_running_loop().run_in_executor(executor, self._disconnect)
        finally:
            executor.shutdown()

    async def _call(self, work: Callable[[], T]) -> T:
        if self._executor is None:
            raise StoreFailedError(f"{self._path} is not open: open the store first", path=str(self._path))
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._guarded, work)

    def _guarded(self, work: Callable[[], T]) -> T:
        self._fail_stop.check()
        try:
            return work()
        except StoreError as error:
            self._fail_stop.record(error)
            raise
        except (sqlite3.Error, DBAPIError) as error:
            failure = store_error(_of_driver(error), self._path)
            self._fail_stop.record(failure)
            raise failure from error

    def _quietly(self, work: Callable[[StoreConnection], object]) -> None:
        try:
            self._guarded(lambda: work(self._opened()))
        except StoreError:
            # A failure is kept for the next caller, who can end the process; here is nobody to tell.
            return

    def _opened(self) -> StoreConnection:
        assert self._connection is not None
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _of_driver(error: sqlite3.Error | DBAPIError) -> sqlite3.Error:
    if isinstance(error, DBAPIError):
        assert isinstance(error.orig, sqlite3.Error)
        return error.orig
    return error
