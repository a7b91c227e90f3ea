"""The command line in this process, against a broker in a thread of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from broker.app import Broker
from broker.cli import main
from tests.broker.cli.live import live_broker
from tests.mesh_client.broker import BrokerThread, MemoryBroker, broker_thread


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    words: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Mesh = Callable[..., Ended]


@pytest.fixture
def threaded() -> Iterator[BrokerThread]:
    with broker_thread() as running:
        yield running


@pytest.fixture
def broker(threaded: BrokerThread) -> MemoryBroker:
    return threaded.broker


@pytest.fixture
def mesh(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mesh:
    """`mesh` with these arguments, and MESH_API set to the broker."""
    monkeypatch.setenv("MESH_API", broker.address)

    def run(*arguments: str) -> Ended:
        code = main(arguments)
        written = capsys.readouterr()
        return Ended(code, written.out, written.err)

    return run


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Broker]:
    """A whole broker, for commands that need more of it than the one in memory has."""
    with live_broker(tmp_path, plan={"contact": "ops@example.org"}) as running:
        yield running


@pytest.fixture
def live_mesh(live: Broker, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Mesh:
    """`mesh` with these arguments, and MESH_API set to the whole broker."""
    monkeypatch.setenv("MESH_API", live.api_address)

    def run(*arguments: str) -> Ended:
        code = main(arguments)
        written = capsys.readouterr()
        return Ended(code, written.out, written.err)

    return run
