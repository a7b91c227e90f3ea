"""The bench, judged as a whole when the test is over."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.broker.dispatch.bench import GroupBench


@pytest.fixture
def group() -> Iterator[GroupBench]:
    """A group on its bench; at the end recovery and replay must give the same again (invariants 10 and 9)."""
    bench = GroupBench()
    yield bench
    bench.check_run()
