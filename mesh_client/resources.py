"""What operators set up, as plain values: organizations, environments, groups and agents.

Ids are the last parts of resource names; `group` and `organization` say what something belongs to.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime


@dataclass(slots=True, frozen=True)
class OrganizationView:
    """Who owns groups, environments and jobs."""

    organization: str
    display_name: str
    description: str
    created_at: datetime | None
    etag: str


@dataclass(slots=True, frozen=True)
class EnvironmentView:
    """Where jobs are sent to without naming a group; `target_group` (empty: none) runs them."""

    environment: str
    display_name: str
    description: str
    target_group: str
    groups: tuple[str, ...]
    created_at: datetime | None
    etag: str


@dataclass(slots=True, frozen=True)
class GroupView:
    """Agents that share one queue. `status` is `active` if at least one of its agents is, else `inactive`."""

    group: str
    display_name: str
    description: str
    kind: str
    central_logging: bool
    status: str
    agents_active: int
    agents_total: int
    environments: tuple[str, ...]
    created_at: datetime | None
    etag: str


@dataclass(slots=True, frozen=True)
class AgentView:
    """A program that runs jobs of one group. What it says of itself is empty before its first connection."""

    agent: str
    group: str
    display_name: str
    status: str
    version: str
    host: str
    pid: int
    user: str
    os: str
    ip: str
    peer: str
    operations: tuple[str, ...]
    labels: Mapping[str, str]
    slots: int
    capacity: int
    live: int
    connected_at: datetime | None
    started_at: datetime | None
    last_heard_at: datetime | None
    created_at: datetime | None
    etag: str
