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
class DrainView:
    """A drain, or the pause it has led to: where it ends, who wants it and why, and how far it is.

    `then` is what happens at the deadline (None: there is none) to what still runs; `remaining` are attempts held.
    """

    mode: str
    then: str
    deadline: datetime | None
    reason: str
    operator: str
    started_at: datetime | None
    remaining: int


@dataclass(slots=True, frozen=True)
class AgentExplanation:
    """Whether an agent is given work (`placeable`), what would change that, and what is in its way as (word, text)."""

    summary: str
    next_step: str
    placeable: bool
    obstacles: tuple[tuple[str, str], ...]


@dataclass(slots=True, frozen=True)
class AgentView:
    """A program that runs jobs of one group. What it says of itself is empty before its first connection.

    `drain` is set while it drains or is paused, `disabled_reason` while it is disabled.
    """

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
    drain: DrainView | None
    disabled_reason: str
    etag: str
