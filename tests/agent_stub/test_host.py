from __future__ import annotations

import os
import platform
import time

import pytest

from agent_stub import host
from agent_stub.builtins import builtin_operations
from agent_stub.host import Load, about, version
from agent_stub.settings import AgentSettings
from protos.mesh.v1 import agent_service_pb2 as pb


def test_about_is_a_hello_that_says_who_and_where() -> None:
    hello = about(AgentSettings(dev=True, labels={"zone": "a"}), builtin_operations(), b"i" * 16)
    assert isinstance(hello, pb.Hello)
    assert list(hello.operations) == ["echo", "files.csv_to_sql", "sleep"]
    assert (hello.pid, hello.version, hello.incarnation_id) == (os.getpid(), version(), b"i" * 16)
    assert abs(hello.started_at.ToSeconds() - time.time()) < 60
    assert hello.user
    assert hello.os
    assert not hello.HasField("capacity")


def test_load_is_the_share_of_a_core_since_it_was_last_asked() -> None:
    load = Load()
    end_s = time.process_time() + 0.05
    while time.process_time() < end_s:
        pass
    assert 0.0 < load.cpu() <= 1.5
    assert load.memory_bytes() > 1_000_000


def test_system_is_named_as_people_call_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"})
    assert host._system() == "Debian GNU/Linux 12 (bookworm)"
    monkeypatch.setattr(platform, "freedesktop_os_release", dict)
    assert host._system() == f"{platform.system()} {platform.release()}"
