from __future__ import annotations

from typing import Any

import pytest

from agent_stub.settings import AgentSettings, SettingsError, is_loopback


def test_settings_make_the_identity_of_development() -> None:
    assert AgentSettings("acme", "plant", "a1", dev=True).dev_identity == "acme/plant/a1"


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"agent": "A 1"}, "agent 'A 1'"),
        ({"group": ""}, "group ''"),
        ({"organization": "acme-"}, "organization 'acme-'"),
        ({"agent": "a" * 64}, "at most 63"),
        ({"slots": 0}, "at least one slot"),
        ({"prefetch": -1}, "no negative prefetch"),
        ({"slots": 40_000, "prefetch": 1}, "at most 4096 attempts"),
        ({"labels": {"Zone": "a"}}, "label Zone=a"),
        ({"labels": {"zone": "a" * 64}}, "at most 63 characters"),
        ({"labels": {f"l{number}": "" for number in range(33)}}, "at most 32"),
        ({"broker": "localhost"}, "host:port"),
        ({"broker": "localhost:0"}, "host:port"),
        ({"broker": "localhost:70000"}, "host:port"),
        ({"broker": "mesh.example:7401"}, "loopback addresses only"),
        ({"broker": "0.0.0.0:7401"}, "loopback addresses only"),
        ({"dev": False}, "use --dev"),
    ],
)
def test_settings_name_what_is_wrong_with_them(wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        AgentSettings(**({"dev": True} | wrong))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("[::1]", True),
        ("::", False),
        ("10.0.0.1", False),
        ("localhost.example", False),
    ],
)
def test_loopback_is_what_does_not_leave_the_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
