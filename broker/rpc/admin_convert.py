"""Organisations, groups, environments and agents as protobuf says them."""

from hashlib import blake2b
from typing import Any, Final

from broker.control.directory import Directory
from broker.control.resources import AgentView, GroupView
from broker.dispatch.model import Agent
from broker.store.base import EnvironmentRow, OrganisationRow
from protos.mesh.v1 import admin_service_pb2 as pb

ETAG_BYTES: Final = 8
_KINDS: Final = {"private": pb.GROUP_KIND_PRIVATE, "managed": pb.GROUP_KIND_MANAGED}
KIND_WORDS: Final = {
    pb.GROUP_KIND_UNSPECIFIED: "private",
    pb.GROUP_KIND_PRIVATE: "private",
    pb.GROUP_KIND_MANAGED: "managed",
}


def organisation_of(row: OrganisationRow) -> pb.Organization:
    """An organisation."""
    organization = pb.Organization(
        name=f"organizations/{row.slug}", display_name=row.display_name, etag=_etag(row.slug, row.display_name)
    )
    organization.created_at.FromMicroseconds(row.created_us)
    return organization


def group_of(view: GroupView, organisation: str) -> pb.Group:
    """A group with its status."""
    row = view.row
    prefix = f"organizations/{organisation}"
    group = pb.Group(
        name=f"{prefix}/groups/{row.slug}",
        display_name=row.display_name,
        description=row.description,
        kind=_KINDS[row.kind],
        central_logging=row.central_logging,
        status=pb.GROUP_STATUS_ACTIVE if view.agents_active else pb.GROUP_STATUS_INACTIVE,
        agents_active=view.agents_active,
        agents_total=view.agents_total,
        inactive_jobs=pb.INACTIVE_JOBS_WAIT,
        environments=[f"{prefix}/environments/{environment.slug}" for environment in view.environments],
        etag=_etag(row.slug, row.display_name, row.description, row.kind, str(row.central_logging)),
    )
    group.created_at.FromMicroseconds(row.created_us)
    return group


def environment_of(row: EnvironmentRow, organisation: str, directory: Directory) -> pb.Environment:
    """An environment with the names of its groups."""
    groups = [directory.group_name(group_no) for group_no in row.group_nos]
    target = directory.group_name(row.target_group_no) if row.target_group_no else ""
    environment = pb.Environment(
        name=f"organizations/{organisation}/environments/{row.slug}",
        display_name=row.display_name,
        description=row.description,
        target_group=target,
        groups=groups,
        etag=_etag(row.slug, row.display_name, row.description, target, *groups),
    )
    environment.created_at.FromMicroseconds(row.created_us)
    return environment


def agent_of(view: AgentView, group_name: str) -> pb.Agent:
    """An agent as it was last heard. What it said of its machine is not kept in this version, so it stays empty."""
    agent = view.agent
    message = pb.Agent(
        name=f"{group_name}/agents/{view.name.agent_id}",
        display_name=view.name.agent_id,
        status=pb.AgentStatus.Value(f"AGENT_STATUS_{view.status.upper()}"),
        operations=sorted(agent.operations),
        labels=dict(label.split("=", 1) for label in agent.labels),
        etag=_etag(view.name.agent_id, agent.admin),
    )
    if agent.is_present:
        message.slots, message.capacity, message.live = agent.slots, agent.capacity, agent.held
    _put_times(message, agent)
    return message


def _put_times(message: pb.Agent, agent: Agent) -> None:
    times: list[tuple[Any, int]] = [(message.created_at, agent.created_us), (message.last_heard_at, agent.heard_us)]
    if agent.is_present:
        times.append((message.connected_at, agent.connected_us))
    for moment, at_us in times:
        if at_us:
            moment.FromMicroseconds(at_us)


def _etag(*values: str) -> str:
    return blake2b("\0".join(values).encode(), digest_size=ETAG_BYTES).hexdigest()
