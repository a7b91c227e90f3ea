"""Organisations, groups, environments and agents as protobuf says them."""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final

from broker.control.directory import Directory
from broker.control.names import split_parent
from broker.control.presence import Machine
from broker.control.resources import REFUSE, WAIT, AgentView, GroupView
from broker.control.status import SYNONYMS
from broker.dispatch.explain import AgentExplanation
from broker.dispatch.model import OWN_PREFETCH, Admin, Agent, DrainEnd, DrainThen, Phase, Placing, Spread
from broker.errors import NotFoundError
from broker.rpc.job_convert import uuid_text
from broker.store.base import PLAIN_RULES, EnvironmentRow, GroupRules, OrganisationRow
from protos.mesh.v1 import admin_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2 as agent_pb

ETAG_BYTES: Final = 8
_ATTEMPT_STATES: Final = {
    Phase.SENT: pb.ATTEMPT_STATE_SENT,
    Phase.ACCEPTED: pb.ATTEMPT_STATE_ACCEPTED,
    Phase.AWAY: pb.ATTEMPT_STATE_AWAY,
    Phase.STOPPING: pb.ATTEMPT_STATE_STOPPING,
}
_KINDS: Final = {"private": pb.GROUP_KIND_PRIVATE, "managed": pb.GROUP_KIND_MANAGED}
KIND_WORDS: Final = {
    pb.GROUP_KIND_UNSPECIFIED: "private",
    pb.GROUP_KIND_PRIVATE: "private",
    pb.GROUP_KIND_MANAGED: "managed",
}
MODE_WORDS: Final = {
    pb.GROUP_MODE_UNSPECIFIED: "",
    pb.GROUP_MODE_BALANCED: Spread.BALANCED.value,
    pb.GROUP_MODE_ORDERED: Spread.ORDERED.value,
    pb.GROUP_MODE_SPILL: Spread.SPILL.value,
}
INACTIVE_WORDS: Final = {
    pb.INACTIVE_JOBS_UNSPECIFIED: WAIT,
    pb.INACTIVE_JOBS_WAIT: WAIT,
    pb.INACTIVE_JOBS_REFUSE: REFUSE,
}
PLACING_WORDS: Final = {
    pb.GROUP_PLACING_UNSPECIFIED: "",
    pb.GROUP_PLACING_LEAST_LOADED: Placing.LEAST_LOADED.value,
    pb.GROUP_PLACING_ROUND_ROBIN: Placing.ROUND_ROBIN.value,
    pb.GROUP_PLACING_RANDOM: Placing.RANDOM.value,
    pb.GROUP_PLACING_POWER_OF_D: Placing.POWER_OF_D.value,
}
POLICY_FIELDS: Final = {
    "attempts_max": "attempts_max",
    "backoff_first": "backoff_first_us",
    "backoff_max": "backoff_max_us",
    "queue_jobs_max": "queue_jobs_max",
    "queue_bytes_max": "queue_bytes_max",
    "prefetch": "prefetch",
    "cancel_grace": "cancel_grace_us",
    "placing": "placing",
    "placing_choices": "placing_choices",
}
"""Fields of a group's policy, by the names of the contract, and what they are called inside."""
DRAIN_ENDS: Final = {agent_pb.DRAIN_MODE_STOP: DrainEnd.STOP, agent_pb.DRAIN_MODE_PAUSE: DrainEnd.PAUSE}
DRAIN_THENS: Final = {
    agent_pb.DRAIN_THEN_UNSPECIFIED: DrainThen.FINISH,
    agent_pb.DRAIN_THEN_FINISH: DrainThen.FINISH,
    agent_pb.DRAIN_THEN_REQUEUE: DrainThen.REQUEUE,
    agent_pb.DRAIN_THEN_KILL: DrainThen.KILL,
}


def group_in(organisation: str, name: str) -> str:
    """The id of a group that must be of this organisation: any other is answered like one that does not exist."""
    owner, _, group = split_parent(name)
    if owner != organisation:
        raise NotFoundError(f"there is no {name}", resource=name)
    return group


def logs_centrally(group: pb.Group) -> bool:
    """What a request says of central logging: on unless it is switched off."""
    return group.central_logging or not group.HasField("central_logging")


def labels_in(labels: Mapping[str, str]) -> tuple[str, ...]:
    """Labels as a dispatcher has them."""
    return tuple(sorted(f"{key}={value}" for key, value in labels.items()))


def policy_values(policy: pb.GroupPolicy) -> dict[str, Any]:
    """What a policy says, by the names of `GroupRules`: where it says nothing, what those hold for that."""
    return {
        "placing": PLACING_WORDS[policy.placing],
        "placing_choices": policy.placing_choices,
        "attempts_max": policy.attempts_max,
        "backoff_first_us": policy.backoff_first.ToMicroseconds(),
        "backoff_max_us": policy.backoff_max.ToMicroseconds(),
        "cancel_grace_us": policy.cancel_grace.ToMicroseconds(),
        "queue_jobs_max": policy.queue_jobs_max,
        "queue_bytes_max": policy.queue_bytes_max,
        "prefetch": policy.prefetch if policy.HasField("prefetch") else OWN_PREFETCH,
    }


def _policy_of(rules: GroupRules) -> pb.GroupPolicy:
    """What the group says itself; what the broker's settings say is not set."""
    policy = pb.GroupPolicy()
    if rules.placing:
        policy.placing = pb.GroupPlacing.Value(f"GROUP_PLACING_{rules.placing.upper()}")
    for name in ("placing_choices", "attempts_max", "queue_jobs_max", "queue_bytes_max"):
        if getattr(rules, name):
            setattr(policy, name, getattr(rules, name))
    for name in ("backoff_first", "backoff_max", "cancel_grace"):
        if getattr(rules, f"{name}_us"):
            getattr(policy, name).FromMicroseconds(getattr(rules, f"{name}_us"))
    if rules.prefetch >= 0:
        policy.prefetch = rules.prefetch
    return policy


def organisation_of(row: OrganisationRow, directory: Directory) -> pb.Organization:
    """An organisation with what its plan allows and what it has."""
    plan = directory.plan(row.slug)
    is_there = bool(row.org_no)  # one that was only checked has nothing
    organization = pb.Organization(
        name=f"organizations/{row.slug}",
        display_name=row.display_name,
        description=row.description,
        etag=_etag(row.created_us, row.slug, row.display_name, row.description),
        limits=pb.OrganizationLimits(groups_max=plan.groups_max, agents_max=plan.agents_max, contact=plan.contact),
        groups_total=directory.private_groups(row.slug) if is_there else 0,
        agents_total=directory.private_agents(row.slug) if is_there else 0,
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
        status=pb.GroupStatus.Value(f"GROUP_STATUS_{view.status.upper()}"),
        agents_active=view.agents_active,
        agents_total=view.agents_total,
        inactive_jobs=pb.InactiveJobs.Value(f"INACTIVE_JOBS_{row.inactive_jobs.upper()}"),
        mode=pb.GroupMode.Value(f"GROUP_MODE_{row.mode.upper()}"),
        policy=_policy_of(row.rules) if row.rules[2:] != PLAIN_RULES[2:] else None,
        jobs_waiting=view.jobs_waiting,
        jobs_running=view.jobs_running,
        warnings=[pb.GroupWarning(code=warning.code, message=warning.text) for warning in view.warnings],
        environments=[f"{prefix}/environments/{environment.slug}" for environment in view.environments],
        etag=_etag(
            row.created_us,
            row.slug,
            row.display_name,
            row.description,
            row.kind,
            str(row.central_logging),
            *map(str, row.rules),
        ),
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
        etag=_etag(row.created_us, row.slug, row.display_name, row.description, target, *groups),
    )
    environment.created_at.FromMicroseconds(row.created_us)
    return environment


def agent_of(view: AgentView, group_name: str) -> pb.Agent:
    """An agent as it was last heard, on the machine that it told of since this broker started (else empty)."""
    agent, machine = view.agent, view.machine
    message = pb.Agent(
        name=f"{group_name}/agents/{view.name.agent_id}",
        display_name=view.words.display_name,
        description=view.words.description,
        rank=agent.rank,
        status_synonyms=SYNONYMS[view.status],
        status=pb.AgentStatus.Value(f"AGENT_STATUS_{view.status.upper()}"),
        operations=sorted(agent.operations),
        labels=_pairs(agent.labels),
        operator_labels=_pairs(agent.operator_labels),
        etag=_etag(
            agent.created_us,
            view.name.agent_id,
            agent.admin,
            view.words.display_name,
            view.words.description,
            str(agent.rank),
            *sorted(agent.operator_labels),
        ),
        version=machine.version,
        host=machine.host,
        pid=machine.pid,
        user=machine.user,
        os=machine.os,
        ip=machine.ip,
        peer=machine.peer,
        time_zone=machine.time_zone,
        disabled_reason=agent.admin_reason if agent.admin is Admin.DISABLED else "",
    )
    if agent.is_present:
        message.slots, message.capacity, message.live = agent.slots, agent.capacity, agent.held
        message.stuck = len(view.stuck)
    if agent.admin in (Admin.DRAINING, Admin.PAUSED):
        message.drain.CopyFrom(_drain_of(agent))
    _put_times(message, agent, machine)
    return message


def _pairs(labels: Iterable[str]) -> dict[str, str]:
    return dict(label.split("=", 1) for label in labels)


def _drain_of(agent: Agent) -> pb.AgentDrain:
    """Who drains it and why, and how far that is. A pause is a drain that is over and keeps its author."""
    drain = pb.AgentDrain(
        mode=agent_pb.DrainMode.Value(f"DRAIN_MODE_{agent.drain_ends.upper()}"),
        then=agent_pb.DrainThen.Value(f"DRAIN_THEN_{agent.drain_then.upper()}"),
        reason=agent.admin_reason,
        operator=agent.admin_actor,
        remaining=agent.held,
    )
    drain.started_at.FromMicroseconds(agent.admin_us)
    if agent.admin_due_us:
        drain.deadline.FromMicroseconds(agent.admin_due_us)
    return drain


def _put_times(message: pb.Agent, agent: Agent, machine: Machine) -> None:
    times: list[tuple[Any, int]] = [
        (message.created_at, agent.created_us),
        (message.last_heard_at, agent.heard_us),
        (message.started_at, machine.started_us),
    ]
    if agent.is_present:
        times.append((message.connected_at, agent.connected_us))
    for moment, at_us in times:
        if at_us:
            moment.FromMicroseconds(at_us)


def explanation_of(said: AgentExplanation, view: AgentView, organisation: str) -> pb.ExplainAgentResponse:
    """Why an agent is given work or not, with what it holds."""
    agent = view.agent
    response = pb.ExplainAgentResponse(summary=said.summary, next_step=said.next_step, placeable=not said.obstacles)
    for obstacle in said.obstacles:
        response.obstacles.add(reason=obstacle.reason, message=f"{obstacle.what}; until {obstacle.until}")
    for job in agent.live.values():
        held = response.attempts.add(
            job=f"organizations/{organisation}/jobs/{uuid_text(job.job_id)}",
            job_key=job.key,
            attempt=job.attempt,
            operation=job.operation,
            state=_ATTEMPT_STATES[job.phase],
            is_stuck=(job.key, job.attempt) in view.stuck,
        )
        held.assigned_at.FromMicroseconds(job.assigned_us)
        if job.started_us:
            held.started_at.FromMicroseconds(job.started_us)
    for key, attempt in agent.detached:
        is_stuck = (key, attempt) in view.stuck
        response.attempts.add(job_key=key, attempt=attempt, state=pb.ATTEMPT_STATE_DETACHED, is_stuck=is_stuck)
    return response


def _etag(created_us: int, *values: str) -> str:
    """Of what is made again under the same name, it is another one."""
    return blake2b("\0".join([str(created_us), *values]).encode(), digest_size=ETAG_BYTES).hexdigest()
