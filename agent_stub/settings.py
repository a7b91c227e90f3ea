"""What an agent is told at its start. Plain: the agent alone needs grpcio and protobuf only."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent_stub.cleanup import Cleanup
from agent_stub.session.session import CAPACITY_MAX

DEFAULT_BROKER = "127.0.0.1:7401"
API_PORT = "nothing is there for agents: perhaps it is the port of the API (7402); agents use the mesh port (7401)"
"""What to say when something answers that does not know agents."""
SLUG = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL_KEY = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
LABELS_MAX = 32
SPOOL_BYTES_MIN = 16 << 20
LABEL_VALUE_CHARACTERS_MAX = 63


class SettingsError(Exception):
    """A setting is wrong: the text names it, the reason and the next step."""


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """Who the agent is, where its broker is, and how much it runs.

    Attributes:
        broker: `host:port` of the broker's mesh port.
        slots: attempts that run at the same time.
        prefetch: attempts that wait at the agent, per slot. They start without a round trip, and are what a lost
            agent delays.
        dev: no certificates: plain text, loopback only, and the identity is what this says it is.
        labels: what the agent says of itself; of the same key what operators gave it wins.
        spool: folder of outcomes that no broker has acknowledged; None: they do not outlive the process.
        spool_bytes_max: what they may take.
        spool_leave_s: how long an agent that leaves, and has nothing but spooled outcomes, waits for its broker.
        job_folders: where attempts get folders of their own.
        variables: what operations read with `job.variable`.
        options: for each operation its table of the configuration.
        cleanup: which files are removed when they are old.

    Raises:
        SettingsError: at construction, for the first setting that is wrong.
    """

    organization: str = "default"
    group: str = "default"
    agent: str = "agent"
    broker: str = DEFAULT_BROKER
    slots: int = 4
    prefetch: int = 0
    dev: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    spool: Path | None = None
    spool_bytes_max: int = 1 << 30
    spool_leave_s: float = 10.0
    job_folders: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    cleanup: Cleanup = field(default_factory=Cleanup)

    def __post_init__(self) -> None:
        for what in ("organization", "group", "agent"):
            if not SLUG.fullmatch(getattr(self, what)):
                raise SettingsError(
                    f"{what} {getattr(self, what)!r}: lower-case letters, digits and '-', a letter first, at most 63"
                )
        if self.slots < 1 or self.prefetch < 0 or self.slots * (1 + self.prefetch) > CAPACITY_MAX:
            raise SettingsError(
                f"slots {self.slots}, prefetch {self.prefetch}: at least one slot, no negative prefetch, and at most "
                f"{CAPACITY_MAX} attempts, slots x (1 + prefetch)"
            )
        if len(self.labels) > LABELS_MAX:
            raise SettingsError(f"{len(self.labels)} labels: at most {LABELS_MAX}")
        for key, value in self.labels.items():
            if not LABEL_KEY.fullmatch(key) or len(value) > LABEL_VALUE_CHARACTERS_MAX:
                raise SettingsError(f"label {key}={value}: not a label (`zone=a1`, value at most 63 characters)")
        if self.spool_bytes_max < SPOOL_BYTES_MIN:
            raise SettingsError(f"spool bytes_max {self.spool_bytes_max}: at least {SPOOL_BYTES_MIN}, a few results")
        check_address(self.broker, self.dev)

    @property
    def dev_identity(self) -> str:
        """Who the agent says it is, with `dev`."""
        return f"{self.organization}/{self.group}/{self.agent}"


def check_address(address: str, dev: bool) -> None:
    """Whether the agent may dial `address`.

    Raises:
        SettingsError: it is no `host:port`, or plain text would leave the machine.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise SettingsError(f"broker {address!r}: not of the form host:port")
    if not dev:
        raise SettingsError("certificates are not supported yet: use --dev with a broker on this machine")
    if not is_loopback(host):
        raise SettingsError(f"broker {address}: --dev sends plain text and is for loopback addresses only")


def is_loopback(host: str) -> bool:
    """Whether what is sent to `host` stays on this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
