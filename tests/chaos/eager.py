"""A broker that takes its write-ahead log into the file after every few pages, so that faults meet it doing that.

    python -m tests.chaos.eager serve --dev ...

By default that comes every 16 MiB: seldom within a short run.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import Final

import pytest

from broker import app
from broker.cli import main
from broker.store.sqlite import SqliteStore

WAL_PAGES_MAX: Final = 16
REPLACED: Final = pytest.MonkeyPatch()
EAGER: Final = ("-m", "tests.chaos.eager")

if __name__ == "__main__":
    REPLACED.setattr(app, "SqliteStore", partial(SqliteStore, wal_pages_max=WAL_PAGES_MAX))
    sys.exit(main(sys.argv[1:]))
