"""Takes the write-ahead log into the file while commits go on, and keeps the log from growing for ever.

The log starts from its beginning only when all of it has been taken over at a moment without a commit. Under steady
load such a moment never comes by itself. So the bulk is taken over by a thread of its own, beside the commits, and the
few pages that came meanwhile by the writer's thread, between two of them.
"""

from typing import Final

from broker.store.connection import StoreConnection
from broker.store.lane import Lane

PAGES_MAX: Final = 4_096
"""Pages of 4 KiB in the log after which it is taken over."""
_FORCED: Final = 4
"""At this many times the bound the writer does it all by itself: disk space is bounded, latency gives way."""


class Checkpointer:
    """Decides when; `wrote` is called in the writer's thread after each commit with an estimate of its pages."""

    def __init__(self, own: Lane, writer: Lane, pages_max: int = PAGES_MAX) -> None:
        self._own = own
        self._writer = writer
        self._pages_max = pages_max
        self._pages = 0
        self._is_running = False

    def wrote(self, pages: int, connection: StoreConnection) -> None:
        """Count a commit; begin to take over, or do it here and now when that has not helped."""
        self._pages += pages
        if self._pages >= self._pages_max * _FORCED:
            self._take_rest(connection)
        elif self._pages >= self._pages_max:
            self.begin()

    def begin(self) -> None:
        """Take the log over now, whatever its size: a full disk may get room from it. For the writer's thread."""
        if not self._is_running:
            self._is_running = True
            self._own.post(self._take_bulk)

    def _take_bulk(self, connection: StoreConnection) -> None:
        try:
            _take_over(connection)
        finally:
            self._writer.post(self._take_rest)

    def _take_rest(self, connection: StoreConnection) -> None:
        # In the writer's thread, as all that touches the two attributes.
        self._is_running = False
        self._pages = _take_over(connection)


def _take_over(connection: StoreConnection) -> int:
    """Take over what can be without waiting for anyone; returns the pages that are left."""
    _, pages, taken = connection.driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    left: int = pages - taken
    return left
