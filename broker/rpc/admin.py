"""The admin service: organisations, groups, environments and agents, as far as they are built.

Made and read here, agents also drained, disabled and removed; changing, and removing all else, answer UNIMPLEMENTED
with a sentence. What the store cannot keep yet is refused too: a value that is silently dropped is worse than an error.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, NoReturn, TypeVar

import grpc.aio
from google.protobuf.message import Message

from broker.control.acts import AgentActs
from broker.control.directory import Directory
from broker.control.filters import FilterValue, ordered, select
from broker.control.names import split_agent, split_parent
from broker.control.resources import AgentView, Resources
from broker.errors import ChangedError, NotBuiltError, NotFoundError
from broker.rpc import pages
from broker.rpc.admin_convert import (
    DRAIN_ENDS,
    DRAIN_THENS,
    KIND_WORDS,
    agent_of,
    environment_of,
    explanation_of,
    group_of,
    organisation_of,
)
from protos.mesh.v1 import admin_service_pb2 as pb
from protos.mesh.v1 import admin_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
ItemT = TypeVar("ItemT", bound=Message)
Field = Callable[[Any], Any]

ALL_GROUPS: Final = "-"


def _text(name: str) -> Field:
    return lambda item: getattr(item, name)


def _word(name: str, enum: Any, prefix: str) -> Field:
    return lambda item: enum.Name(getattr(item, name)).removeprefix(prefix).lower()


def _time(name: str) -> Field:
    return lambda item: getattr(item, name).ToMicroseconds() if item.HasField(name) else None


def _flag(name: str) -> Field:
    return lambda item: str(getattr(item, name)).lower()


_AGENT_STATUS: Final = _word("status", pb.AgentStatus, "AGENT_STATUS_")
_GROUP_STATUS: Final = _word("status", pb.GroupStatus, "GROUP_STATUS_")
_NAMED: Final = {"name": _text("name"), "display_name": _text("display_name")}
_DESCRIBED: Final = {**_NAMED, "description": _text("description")}

FILTERS: Final[Mapping[type[Message], Mapping[str, Callable[[Any], FilterValue]]]] = {
    pb.Organization: _NAMED,
    pb.Environment: {**_DESCRIBED, "target_group": _text("target_group")},
    pb.Group: {
        **_DESCRIBED,
        "kind": _word("kind", pb.GroupKind, "GROUP_KIND_"),
        "status": _GROUP_STATUS,
        "central_logging": _flag("central_logging"),
    },
    pb.Agent: {
        **_NAMED,
        "status": _AGENT_STATUS,
        **{name: _text(name) for name in ("version", "host", "ip", "os", "operations")},
        "labels": lambda agent: [f"{key}={value}" for key, value in agent.labels.items()],
    },
}
ORDERS: Final[Mapping[type[Message], Mapping[str, Field]]] = {
    pb.Organization: {**_NAMED, "created_at": _time("created_at")},
    pb.Environment: {**_NAMED, "target_group": _text("target_group"), "created_at": _time("created_at")},
    pb.Group: {
        **_DESCRIBED,
        "central_logging": _flag("central_logging"),
        "status": _GROUP_STATUS,
        "agents_active": _text("agents_active"),
        "agents_total": _text("agents_total"),
        "created_at": _time("created_at"),
    },
    pb.Agent: {
        **_NAMED,
        "status": _AGENT_STATUS,
        **{name: _text(name) for name in ("version", "host", "ip", "os", "slots", "live")},
        "last_heard_at": _time("last_heard_at"),
        "created_at": _time("created_at"),
    },
}


def _not_built(method: str) -> Callable[..., Awaitable[NoReturn]]:
    async def refuse(self: object, request: object, context: Context) -> NoReturn:
        raise NotBuiltError(f"{method} is not served by this version; docs/roadmap.md says what comes")

    return refuse


class AdminService(admin_service_pb2_grpc.AdminServiceServicer):
    """Serves `mesh.v1.AdminService` on the API port."""

    def __init__(self, resources: Resources, directory: Directory, acts: AgentActs) -> None:
        self._resources = resources
        self._directory = directory
        self._acts = acts

    # --- organisations ----------------------------------------------------------------------------------------------

    async def CreateOrganization(self, request: pb.CreateOrganizationRequest, context: Context) -> pb.Organization:
        """Make an organisation."""
        wanted = request.organization
        _refuse_unkept("organization", wanted, "description")
        row = await self._resources.create_organisation(
            request.organization_id, wanted.display_name, validate_only=request.validate_only
        )
        return organisation_of(row)

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Context) -> pb.Organization:
        """One organisation."""
        return organisation_of(self._directory.organisation(split_parent(request.name)[0]))

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Context
    ) -> pb.ListOrganizationsResponse:
        """All organisations."""
        found = [organisation_of(row) for row in self._directory.organisations()]
        page, token, total = _page(found, pb.Organization, request, "")
        return pb.ListOrganizationsResponse(organizations=page, next_page_token=token, total_size=total)

    # --- groups -----------------------------------------------------------------------------------------------------

    async def CreateGroup(self, request: pb.CreateGroupRequest, context: Context) -> pb.Group:
        """Make a group; it takes agents and jobs as soon as this is answered."""
        wanted = request.group
        _refuse_unkept("group", wanted, "policy")
        if wanted.inactive_jobs == pb.INACTIVE_JOBS_REFUSE:
            raise NotBuiltError("group.inactive_jobs: jobs of an inactive group always wait in this version")
        organisation = split_parent(request.parent)[0]
        view = await self._resources.create_group(
            organisation,
            request.group_id,
            wanted.display_name,
            description=wanted.description,
            kind=KIND_WORDS[wanted.kind],
            central_logging=wanted.central_logging or not wanted.HasField("central_logging"),
            validate_only=request.validate_only,
        )
        return group_of(view, organisation)

    async def GetGroup(self, request: pb.GetGroupRequest, context: Context) -> pb.Group:
        """One group with its status."""
        organisation, _, group = split_parent(request.name)
        return group_of(self._resources.group(organisation, group), organisation)

    async def ListGroups(self, request: pb.ListGroupsRequest, context: Context) -> pb.ListGroupsResponse:
        """Groups of an organisation."""
        organisation = split_parent(request.parent)[0]
        found = [group_of(view, organisation) for view in self._resources.groups(organisation)]
        page, token, total = _page(found, pb.Group, request, request.parent)
        return pb.ListGroupsResponse(groups=page, next_page_token=token, total_size=total)

    # --- environments -----------------------------------------------------------------------------------------------

    async def CreateEnvironment(self, request: pb.CreateEnvironmentRequest, context: Context) -> pb.Environment:
        """Make an environment. Its groups must be of its organisation."""
        wanted = request.environment
        organisation = split_parent(request.parent)[0]
        row = await self._resources.create_environment(
            organisation,
            request.environment_id,
            wanted.display_name,
            description=wanted.description,
            target=_group_in(organisation, wanted.target_group) if wanted.target_group else "",
            groups=[_group_in(organisation, group) for group in wanted.groups],
            validate_only=request.validate_only,
        )
        return environment_of(row, organisation, self._directory)

    async def GetEnvironment(self, request: pb.GetEnvironmentRequest, context: Context) -> pb.Environment:
        """One environment."""
        organisation, _, environment = split_parent(request.name)
        return environment_of(self._directory.environment(organisation, environment), organisation, self._directory)

    async def ListEnvironments(
        self, request: pb.ListEnvironmentsRequest, context: Context
    ) -> pb.ListEnvironmentsResponse:
        """Environments of an organisation."""
        organisation = split_parent(request.parent)[0]
        rows = self._directory.environments(organisation)
        found = [environment_of(row, organisation, self._directory) for row in rows]
        page, token, total = _page(found, pb.Environment, request, request.parent)
        return pb.ListEnvironmentsResponse(environments=page, next_page_token=token, total_size=total)

    # --- agents -----------------------------------------------------------------------------------------------------

    async def CreateAgent(self, request: pb.CreateAgentRequest, context: Context) -> pb.Agent:
        """Announce an agent; it awaits its set-up until it connects."""
        wanted = request.agent
        _refuse_unkept("agent", wanted, "description", "operator_labels")
        organisation, _, group = split_parent(request.parent)
        view = await self._resources.create_agent(
            organisation, group, request.agent_id, wanted.display_name, validate_only=request.validate_only
        )
        return agent_of(view, request.parent)

    async def GetAgent(self, request: pb.GetAgentRequest, context: Context) -> pb.Agent:
        """One agent."""
        return self._agent_of(self._resources.agent(*split_agent(request.name)))

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:
        """Agents of a group, or of all groups."""
        organisation, _, group = split_parent(request.parent)
        views = self._resources.agents(organisation, "" if group == ALL_GROUPS else group)
        found = [self._agent_of(view) for view in views]
        page, token, total = _page(found, pb.Agent, request, request.parent)
        return pb.ListAgentsResponse(agents=page, next_page_token=token, total_size=total)

    async def DeleteAgent(self, request: pb.DeleteAgentRequest, context: Context) -> pb.DeleteAgentResponse:
        """Remove an agent that does not run. What it still says is refused; its name is free for `CreateAgent`."""
        path = split_agent(request.name)
        if request.etag and request.etag != self._agent_of(self._resources.agent(*path)).etag:
            raise ChangedError(f"{request.name} has changed since it was read; look again", resource=request.name)
        attempts = await self._acts.remove(path, validate_only=request.validate_only)
        return pb.DeleteAgentResponse(attempts=attempts)

    async def DrainAgent(self, request: pb.DrainAgentRequest, context: Context) -> pb.Agent:
        """Give an agent nothing new and let it end."""
        view = await self._acts.drain(
            split_agent(request.name),
            DRAIN_ENDS[request.mode],
            then=DRAIN_THENS[request.then],
            deadline_us=request.deadline.ToMicroseconds() if request.HasField("deadline") else None,
            reason=request.reason,
        )
        return self._agent_of(view)

    async def CancelDrain(self, request: pb.CancelDrainRequest, context: Context) -> pb.Agent:
        """Take back a drain that is not finished."""
        return self._agent_of(await self._acts.cancel_drain(split_agent(request.name)))

    async def ResumeAgent(self, request: pb.ResumeAgentRequest, context: Context) -> pb.Agent:
        """End a pause."""
        return self._agent_of(await self._acts.resume(split_agent(request.name)))

    async def DisableAgent(self, request: pb.DisableAgentRequest, context: Context) -> pb.Agent:
        """Switch an agent off."""
        view = await self._acts.disable(split_agent(request.name), now=request.now, reason=request.reason)
        return self._agent_of(view)

    async def EnableAgent(self, request: pb.EnableAgentRequest, context: Context) -> pb.Agent:
        """Switch it on again."""
        return self._agent_of(await self._acts.enable(split_agent(request.name)))

    async def ExplainAgent(self, request: pb.ExplainAgentRequest, context: Context) -> pb.ExplainAgentResponse:
        """Why an agent is given work or not, and what it holds."""
        path = split_agent(request.name)
        view, said = self._acts.explain(path)
        return explanation_of(said, view.agent, path[0])

    def _agent_of(self, view: AgentView) -> pb.Agent:
        return agent_of(view, self._directory.group_name(view.name.group_no))

    # --- not built yet ----------------------------------------------------------------------------------------------

    UpdateOrganization = _not_built("UpdateOrganization")
    DeleteOrganization = _not_built("DeleteOrganization")
    UpdateEnvironment = _not_built("UpdateEnvironment")
    DeleteEnvironment = _not_built("DeleteEnvironment")
    UpdateGroup = _not_built("UpdateGroup")
    DeleteGroup = _not_built("DeleteGroup")
    UpdateAgent = _not_built("UpdateAgent")


def _page(found: list[ItemT], kind: type[ItemT], request: Any, parent: str) -> tuple[Sequence[ItemT], str, int]:
    """What of a list is asked for: filtered, ordered (by name if nothing else is said), a page of it."""
    by_name = sorted(found, key=_text("name"))
    chosen = ordered(select(by_name, request.filter, FILTERS[kind]), request.order_by, ORDERS[kind])
    query = (parent, request.filter, request.order_by)
    page, token = pages.page_of(chosen, request.page_size, request.page_token, *query)
    return page, token, len(chosen)


def _group_in(organisation: str, name: str) -> str:
    """The id of a group that must be of this organisation: any other is answered like one that does not exist."""
    owner, _, group = split_parent(name)
    if owner != organisation:
        raise NotFoundError(f"there is no {name}", resource=name)
    return group


def _refuse_unkept(what: str, message: Any, *names: str) -> None:
    set_names = {field.name for field, _ in message.ListFields()}
    for name in names:
        if name in set_names:
            raise NotBuiltError(f"{what}.{name} cannot be kept by this version; leave it out")
