"""What both sides of a connection must agree on, written in three packages of which none imports another."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from agent_stub import client as agent
from broker.rpc import server
from broker.settings import LimitSettings
from mesh_client import connection as submitter

SLOW_WAY_BYTES_PER_S = 64 * 1024
PAYLOAD_BYTES_MAX = 1 << 20

SIDES = {
    "agent": agent.CHANNEL_OPTIONS,
    "broker": server.options_of(LimitSettings(), streams_max=1),
    "submitter": submitter.CHANNEL_OPTIONS,
}


def _value(options: Iterable[tuple[str, object]], name: str) -> int:
    value = dict(options)[name]
    assert isinstance(value, int)
    return value


@pytest.mark.parametrize("side", SIDES)
def test_ping_may_wait_behind_the_largest_payload_on_a_slow_way(side: str) -> None:
    for name in ("grpc.keepalive_timeout_ms", "grpc.http2.ping_timeout_ms"):
        assert _value(SIDES[side], name) > 1_000 * PAYLOAD_BYTES_MAX / SLOW_WAY_BYTES_PER_S


@pytest.mark.parametrize("side", ["agent", "submitter"])
def test_pings_are_rare_enough_for_the_broker(side: str) -> None:
    allowed_ms = _value(SIDES["broker"], "grpc.http2.min_recv_ping_interval_without_data_ms")
    assert _value(SIDES[side], "grpc.keepalive_time_ms") > allowed_ms
