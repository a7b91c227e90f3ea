"""What an agent process says about itself and its machine: the lasting part of Hello, and the load in a heartbeat."""

from __future__ import annotations

import getpass
import os
import platform
import resource
import socket
import sys
import time
from importlib import metadata
from pathlib import Path

from agent_stub.operations import Operations
from agent_stub.settings import AgentSettings
from protos.mesh.v1 import agent_service_pb2 as pb

DISTRIBUTION = "jobmesh"
STATM = Path("/proc/self/statm")
PAGE_BYTES = resource.getpagesize()


def version() -> str:
    """The version of the agent software."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return "0+unknown"


def about(settings: AgentSettings, operations: Operations, incarnation_id: bytes) -> pb.Hello:
    """A Hello without what changes from one to the next."""
    hello = pb.Hello(
        incarnation_id=incarnation_id,
        operations=operations.names(),
        version=version(),
        labels=settings.labels,
        host=socket.gethostname()[:253],
        pid=os.getpid(),
        user=_user()[:256],
        os=_system()[:256],
        ip=_own_address(settings.broker),
        time_zone=time.strftime("%Z")[:64],
    )
    hello.started_at.GetCurrentTime()
    return hello


class Load:
    """What the process uses: the share of a core since it was last asked, and memory."""

    def __init__(self) -> None:
        self._cpu_s = time.process_time()
        self._at_s = time.monotonic()

    def cpu(self) -> float:
        """Cores used since the last call; 1.0 is one core busy."""
        cpu_s, at_s = time.process_time(), time.monotonic()
        used, passed = cpu_s - self._cpu_s, at_s - self._at_s
        self._cpu_s, self._at_s = cpu_s, at_s
        return used / passed if passed > 0 else 0.0

    def memory_bytes(self) -> int:
        """Resident memory."""
        try:
            return int(STATM.read_text().split()[1]) * PAGE_BYTES
        except (OSError, ValueError, IndexError):
            # Elsewhere than on Linux: the peak, which macOS gives in bytes and others in KiB.
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            return peak if sys.platform == "darwin" else peak * 1024


def _system() -> str:
    """What the machine runs, as people call it: `Debian GNU/Linux 12 (bookworm)`."""
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        return f"{platform.system()} {platform.release()}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _own_address(broker: str) -> str:
    """The address that packets to the broker leave from; a datagram socket sends nothing to find it."""
    host, _, port = broker.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((host, int(port)))
            return str(probe.getsockname()[0])
    except OSError:
        return ""
