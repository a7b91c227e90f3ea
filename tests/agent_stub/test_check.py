"""What `mesh-agent check` finds, with real folders and real ports."""

from __future__ import annotations

import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import grpc
import pytest

from agent_stub import check as module
from agent_stub.builtins import builtin_operations
from agent_stub.check import Finding, check
from agent_stub.configuration import Configuration, load
from agent_stub.operations import OperationLoadError, Operations
from protos.mesh.v1 import agent_service_pb2_grpc

pytestmark = pytest.mark.req("R91")


class Agents(agent_service_pb2_grpc.AgentServiceServicer):
    """The port for agents of a broker, which lets nobody in that does not say who he is."""

    def Connect(self, request_iterator: Iterator[object], context: grpc.ServicerContext) -> NoReturn:  # noqa: N802
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "say who you are")


@contextmanager
def listening(agents: Agents | None = None) -> Iterator[str]:
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        if agents is not None:
            agent_service_pb2_grpc.add_AgentServiceServicer_to_server(agents, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


@pytest.fixture
def broker() -> Iterator[str]:
    with listening(Agents()) as address:
        yield address


def configured(folder: Path, broker: str, more: str = "") -> Configuration:
    file = folder / "mesh-agent.toml"
    file.write_text(f'[agent]\ndev = true\nbroker = "{broker}"\n[folders]\nstate = "s"\ntemporary = "t"\n{more}')
    return load(file, environment={})


def unmet(configuration: Configuration) -> list[Finding]:
    found = check(configuration, builtin_operations)
    assert all(finding.remedy for finding in found if not finding.is_met)
    return [finding for finding in found if not finding.is_met]


def test_check_finds_nothing_to_do_on_a_machine_that_can_run_the_agent(tmp_path: Path, broker: str) -> None:
    found = check(configured(tmp_path, broker, "[log]\nfiles = true\n"), builtin_operations)
    needs = ["python", "clock", "open files", "spool", "temporary files", "logs", "operations", "broker"]
    assert [finding.need for finding in found] == needs
    assert [finding.need for finding in found if not finding.is_met] == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mesh-agent.toml"]


def test_check_names_a_python_that_is_too_old(tmp_path: Path, broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PYTHON_MIN", (sys.version_info[0], sys.version_info[1] + 1))
    assert [finding.need for finding in unmet(configured(tmp_path, broker))] == ["python"]


def test_check_names_a_clock_that_was_never_set(tmp_path: Path, broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(time=lambda: 86_400.0, gmtime=time.gmtime, strftime=time.strftime)
    monkeypatch.setattr(module, "time", clock)
    assert [finding.need for finding in unmet(configured(tmp_path, broker))] == ["clock"]


def test_check_names_a_clock_that_was_set_back(tmp_path: Path, broker: str) -> None:
    configuration = configured(tmp_path, broker)
    configuration.folders.spool.mkdir(parents=True)
    later_s = time.time() + 3_600
    os.utime(configuration.folders.spool, (later_s, later_s))
    assert ["from later" in finding.found for finding in unmet(configuration)] == [True]


def test_check_names_a_limit_of_open_files_that_is_too_low(
    tmp_path: Path, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (80, 80))
    found = unmet(configured(tmp_path, broker))
    assert [(finding.need, finding.found) for finding in found] == [("open files", "at most 80")]
    assert "4 slots need 96" in found[0].remedy


def test_check_names_a_disk_that_is_too_full(tmp_path: Path, broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESULT_BYTES", 1 << 60)
    found = unmet(configured(tmp_path, broker, f"[spool]\nbytes_max = {1 << 62}\n"))
    assert [finding.need for finding in found] == ["spool"]
    assert "needed" in found[0].found


def test_check_names_a_folder_that_cannot_be_written_to(tmp_path: Path, broker: str) -> None:
    (tmp_path / "s").touch()
    found = unmet(configured(tmp_path, broker))
    assert [finding.need for finding in found] == ["spool"]
    assert "name another in [folders]" in found[0].remedy


def test_check_names_a_cleanup_rule_inside_the_agents_own_folders(tmp_path: Path, broker: str) -> None:
    rules = "[file_cleanup.{}]\ndirectory = '{}'\nolder_than_days = 1\n"
    fine = rules.format("exchange", tmp_path)
    assert unmet(configured(tmp_path, broker, fine)) == []
    spool = configured(tmp_path, broker).folders.spool
    (found,) = unmet(configured(tmp_path, broker, fine + rules.format("mine", spool)))
    assert (found.need, found.found) == ("file cleanup", f"file_cleanup.mine is never applied: {spool}")
    assert f"outside of the agent's own folders: {spool.parent}" in found.remedy


def test_check_names_modules_that_cannot_be_loaded(tmp_path: Path, broker: str) -> None:
    def load_them() -> Operations:
        raise OperationLoadError("mine cannot be imported")

    found = check(configured(tmp_path, broker), load_them)
    assert [finding.found for finding in found if not finding.is_met] == ["mine cannot be imported"]


def test_check_names_programs_that_are_not_there(tmp_path: Path, broker: str) -> None:
    more = '[operations."command.run"]\nenabled = true\ncommands = ["/bin/sh", "/no/such/program"]\n'
    found = unmet(configured(tmp_path, broker, more))
    assert [(finding.need, finding.found) for finding in found] == [("commands", "/no/such/program cannot be run")]


def test_check_names_a_port_that_is_not_for_agents(tmp_path: Path) -> None:
    with listening() as address:
        (found,) = unmet(configured(tmp_path, address))
    assert (found.need, "the API (7402); agents use the mesh port (7401)" in found.found) == ("broker", True)


def test_check_names_a_port_of_something_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as server:
        (found,) = unmet(configured(tmp_path, f"127.0.0.1:{server.getsockname()[1]}"))
    assert "is no broker" in found.found


def test_check_names_a_broker_that_does_not_answer(tmp_path: Path, broker: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        gone = f"127.0.0.1:{server.getsockname()[1]}"
    found = unmet(configured(tmp_path, gone))
    assert [finding.need for finding in found] == ["broker"]
    assert gone in found[0].found
