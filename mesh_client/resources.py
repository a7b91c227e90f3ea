"""What operators set up, as plain values: organizations, environments, groups and agents.

Ids are the last parts of resource names; `group` and `organization` say what something belongs to.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, TypedDict


@dataclass(slots=True, frozen=True)
class OrganizationView:
    """Who owns groups, environments and jobs.

    Its plan allows `groups_max` private groups and `agents_max` agents in them; `contact` is whom to ask for more.
    """

    organization: str
    display_name: str
    description: str
    created_at: datetime | None
    etag: str
    groups_total: int = 0
    groups_max: int = 0
    agents_total: int = 0
    agents_max: int = 0
    contact: str = ""


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


class PolicyValues(TypedDict, total=False):
    """How a group is to treat its jobs, as keywords. What is None, or left out, stays as it is.

    `placing` is `least_loaded`, `round_robin`, `random` or `power_of_d` (the least loaded of `placing_choices` that are
    drawn). The word `default` and the number 0 put the broker's setting in their place. `prefetch` is how many jobs
    are given ahead for each slot, 0 to 16; there 0 is a number, and `default` what each agent says itself.
    """

    placing: str | None
    placing_choices: int | None
    attempts_max: int | None
    backoff_first_s: float | None
    backoff_max_s: float | None
    cancel_grace_s: float | None
    queue_jobs_max: int | None
    queue_bytes_max: int | None
    prefetch: float | Literal["default"] | None


@dataclass(slots=True, frozen=True)
class GroupPolicy:
    """How a group treats its jobs: see `PolicyValues`. What is None is the broker's setting, or each agent's own."""

    placing: str | None = None
    placing_choices: int | None = None
    attempts_max: int | None = None
    backoff_first_s: float | None = None
    backoff_max_s: float | None = None
    cancel_grace_s: float | None = None
    queue_jobs_max: int | None = None
    queue_bytes_max: int | None = None
    prefetch: float | None = None


@dataclass(slots=True, frozen=True)
class GroupView:
    """Agents that share one queue. `status` is `active` if at least one of its agents is, else `inactive`.

    `mode` is `balanced`, `ordered` or `spill`; `inactive_jobs` says whether jobs `wait` or are refused (`refuse`) while
    it is inactive. `warnings` are what is unwise about it, as (word, text).
    """

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
    mode: str = "balanced"
    inactive_jobs: str = "wait"
    jobs_waiting: int = 0
    jobs_running: int = 0
    warnings: tuple[tuple[str, str], ...] = ()
    policy: GroupPolicy = field(default_factory=GroupPolicy)


@dataclass(slots=True, frozen=True)
class Removal:
    """What went with something that was removed, or would go: ids (of agents `group/agent`), and live jobs cancelled.

    Of an environment: the groups that none names any more. Of a group: the environments that go on without it.
    """

    groups: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    jobs: int = 0


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

    `drain` is set while it drains or is paused, `disabled_reason` while it is disabled. `rank` is its place where the
    mode of the group goes by rank, `status_synonyms` are what other products call its status. `labels` are what counts:
    `operator_labels`, and what it claims under other keys. `stuck` are handlers that were told to stop and run on.
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
    description: str = ""
    rank: int = 0
    time_zone: str = ""
    status_synonyms: tuple[str, ...] = ()
    operator_labels: Mapping[str, str] = field(default_factory=dict)
    stuck: int = 0
