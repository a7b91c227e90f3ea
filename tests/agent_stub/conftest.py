"""Sessions for the tests of their rules."""

from __future__ import annotations

import pytest

from tests.agent_stub.sessions import Bench


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def live(bench: Bench) -> Bench:
    bench.connect()
    return bench
