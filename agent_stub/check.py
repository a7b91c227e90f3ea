"""`mesh-agent check`: whether this machine and this configuration can run the agent, one finding a need."""

from __future__ import annotations

import os
import resource
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent_stub.cleanup import Cleanup, is_inside_own
from agent_stub.command_run import NAME as COMMAND_RUN
from agent_stub.command_run import Policy
from agent_stub.configuration import Configuration
from agent_stub.operations import OperationLoadError, Operations
from agent_stub.settings import API_PORT

PYTHON_MIN: Final = (3, 11)
CLOCK_MIN_S: Final = 1_767_225_600
"""The start of 2026: a clock before that was never set."""
CLOCK_SLACK_S: Final = 60.0
CONNECT_TIMEOUT_S: Final = 3.0
FILES_BASE: Final = 64
FILES_A_SLOT: Final = 8
LOG_BYTES: Final = 64 << 20
RESULT_BYTES: Final = 2 << 20


@dataclass(frozen=True, slots=True)
class Finding:
    """One need: what was found, and, if it is not met, what to do."""

    need: str
    is_met: bool
    found: str
    remedy: str = ""


class _UnmetError(Exception):
    """A need is not met: what was found, and what to do."""

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found)
        self.found = found
        self.remedy = remedy


def check(configuration: Configuration, load: Callable[[], Operations]) -> list[Finding]:
    """All needs, in the order in which they matter. `load` loads the agent's operations."""
    return [_finding(need, probe) for need, probe in _probes(configuration, load)]


def _probes(configuration: Configuration, load: Callable[[], Operations]) -> Iterator[tuple[str, Callable[[], str]]]:
    folders, settings = configuration.folders, configuration.settings
    yield "python", _python
    yield "clock", lambda: _clock(folders.state)
    yield "open files", lambda: _files(settings.slots)
    held = settings.slots * (1 + settings.prefetch)
    yield "spool", lambda: _folder(folders.spool, min(held * RESULT_BYTES, settings.spool_bytes_max))
    yield "temporary files", lambda: _folder(folders.jobs, LOG_BYTES)
    if configuration.log_folder is not None:
        yield "logs", lambda: _folder(folders.logs, LOG_BYTES)
    if configuration.cleanup.rules:
        yield "file cleanup", lambda: _cleanup(configuration.cleanup)
    yield "operations", lambda: _operations(load)
    if configuration.is_enabled(COMMAND_RUN, default=False):
        yield "commands", lambda: _commands(Policy.of(settings.options[COMMAND_RUN]))
    yield "broker", lambda: _broker(settings.broker)


def _finding(need: str, probe: Callable[[], str]) -> Finding:
    try:
        return Finding(need, True, probe())
    except _UnmetError as unmet:
        return Finding(need, False, unmet.found, unmet.remedy)


def _python() -> str:
    found = sys.version.split()[0]
    if sys.version_info < PYTHON_MIN:
        raise _UnmetError(found, "install Python 3.11 or newer")
    return found


def _clock(state: Path) -> str:
    now_s = time.time()
    found = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s))
    if now_s < CLOCK_MIN_S:
        raise _UnmetError(found, "set the clock, and have it kept right by NTP")
    newest_s = max((path.stat().st_mtime for path in state.glob("*")), default=0.0)
    if newest_s > now_s + CLOCK_SLACK_S:
        raise _UnmetError(f"{found}, and files of {state} are from later", "have the clock kept right by NTP")
    return found


def _files(slots: int) -> str:
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = FILES_BASE + FILES_A_SLOT * slots
    if limit != resource.RLIM_INFINITY and limit < needed:
        raise _UnmetError(f"at most {limit}", f"{slots} slots need {needed}: raise `ulimit -n`, or take fewer slots")
    return "no limit" if limit == resource.RLIM_INFINITY else f"at most {limit}"


def _folder(folder: Path, needed_bytes: int) -> str:
    """Whether files can be written there; folders that were missing are left as they were."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".mesh-check-", dir=existing) as probe:
            file = Path(probe) / "probe"
            file.write_bytes(b"mesh")
            with file.open("rb") as written:
                os.fsync(written.fileno())
        room = os.statvfs(existing)
    except OSError as error:
        text = f"let the user {os.getuid()} write to {existing}, or name another in [folders]"
        raise _UnmetError(f"{folder}: {error.strerror}", text) from error
    free_bytes = room.f_bavail * room.f_frsize
    if free_bytes < needed_bytes:
        text = f"free {_mib(needed_bytes - free_bytes)} there, or name another in [folders]"
        raise _UnmetError(f"{folder}: {_mib(free_bytes)} free, {_mib(needed_bytes)} needed", text)
    return f"{folder}, {_mib(free_bytes)} free"


def _cleanup(cleanup: Cleanup) -> str:
    """Whether every rule is applied: one inside the agent's own folders would take what it needs, and is left out."""
    left_out = [rule for rule in cleanup.rules if is_inside_own(cleanup, rule.directory)]
    if left_out:
        found = ", ".join(f"{rule.name} is never applied: {rule.directory}" for rule in left_out)
        remedy = f"name a `directory` outside of the agent's own folders: {', '.join(map(str, cleanup.own))}"
        raise _UnmetError(found, remedy)
    return f"{len(cleanup.rules)} rules"


def _operations(load: Callable[[], Operations]) -> str:
    try:
        operations = load()
        for one in operations:
            if one.is_exclusive or one.is_process:
                _ = one.reference
    except (OperationLoadError, ValueError) as error:
        raise _UnmetError(str(error), "correct `modules` in [agent], or the module") from error
    return ", ".join(operations.names())


def _commands(policy: Policy) -> str:
    missing = [command for command in policy.commands if not os.access(command, os.X_OK)]
    if missing or not policy.commands:
        found = f"{', '.join(missing)} cannot be run" if missing else "none is allowed"
        raise _UnmetError(found, f'correct `commands` in [operations."{COMMAND_RUN}"]')
    return ", ".join(policy.commands)


def _broker(address: str) -> str:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        text = "start the broker, or correct `broker` in [agent]; nothing between may block the port"
        raise _UnmetError(f"{address}: {error.strerror or error}", text) from error
    return _agents_port(address)


def _agents_port(address: str) -> str:
    """Whether what answers there is a broker's port for agents: one refuses a stream on which nobody says who he is."""
    import grpc

    from protos.mesh.v1.agent_service_pb2_grpc import AgentServiceStub

    with grpc.insecure_channel(address, options=(("grpc.enable_http_proxy", 0),)) as channel:
        call = AgentServiceStub(channel).Connect(iter(()), timeout=CONNECT_TIMEOUT_S)
        code = call.code()
    if code is grpc.StatusCode.UNIMPLEMENTED:
        raise _UnmetError(f"{address}: {API_PORT}", "correct `broker` in [agent]")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        raise _UnmetError(f"{address}: what answers there is no broker", "correct `broker` in [agent]")
    return f"{address} answers"


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
