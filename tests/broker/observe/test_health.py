from __future__ import annotations

import json
import socket
from collections.abc import Iterator

import pytest

from broker.observe.health import HealthServer, Readiness
from tests.broker.running import http


@pytest.fixture
def readiness() -> Readiness:
    return Readiness()


@pytest.fixture
def server(readiness: Readiness) -> Iterator[HealthServer]:
    running = HealthServer("127.0.0.1", 0, readiness, lambda: b"mesh_sessions 3\n")
    running.start()
    yield running
    running.stop()


async def test_metrics_are_what_prometheus_reads(server: HealthServer) -> None:
    assert await http(server.address, "/metrics?x=1") == (
        200,
        "text/plain; version=0.0.4; charset=utf-8",
        "mesh_sessions 3\n",
    )


async def test_process_is_healthy_also_when_it_is_not_ready(server: HealthServer, readiness: Readiness) -> None:
    readiness.expect("store")
    status, content_type, words = await http(server.address, "/healthz")
    assert (status, content_type, json.loads(words)) == (200, "application/json", {"status": "ok"})


async def test_readiness_says_what_is_missing_in_words(server: HealthServer, readiness: Readiness) -> None:
    assert (await http(server.address, "/readyz"))[0] == 200
    stalled = True
    readiness.expect("api")
    readiness.set("mesh")
    readiness.ask("store", lambda: "the store refuses commits" if stalled else "ok")

    status, _, words = await http(server.address, "/readyz")
    assert (status, readiness.is_ready) == (503, False)
    checks = {"api": "not yet", "mesh": "ok", "store": "the store refuses commits"}
    assert json.loads(words) == {"status": "not ready", "checks": checks}

    stalled = False
    readiness.set("api")
    status, _, words = await http(server.address, "/readyz")
    assert (status, readiness.is_ready) == (200, True)
    assert json.loads(words)["checks"] == dict.fromkeys(("api", "mesh", "store"), "ok")


async def test_any_other_path_names_those_there_are(server: HealthServer) -> None:
    status, _, words = await http(server.address, "/")
    assert status == 404
    assert "/metrics, /healthz and /readyz" in words


async def test_port_is_free_after_stop(readiness: Readiness) -> None:
    server = HealthServer("127.0.0.1", 0, readiness, lambda: b"")
    server.start()
    host, _, port = server.address.rpartition(":")
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)), timeout=5)


def test_server_that_never_started_can_be_stopped(readiness: Readiness) -> None:
    HealthServer("127.0.0.1", 0, readiness, lambda: b"").stop()
