"""The admin service: organisations, groups, environments and agents are made, read, changed and removed."""

from typing import Any, Final

import grpc.aio

from broker.control.acts import AgentActs
from broker.control.directory import MANAGED, AgentTraits, Directory
from broker.control.edits import Edits
from broker.control.names import split_agent, split_parent
from broker.control.removals import Removals
from broker.control.resources import AgentView, GroupView, Resources, managed
from broker.rpc.admin_convert import (
    DRAIN_ENDS,
    DRAIN_THENS,
    INACTIVE_WORDS,
    KIND_WORDS,
    MODE_WORDS,
    agent_of,
    environment_of,
    explanation_of,
    group_in,
    group_of,
    labels_in,
    logs_centrally,
    organisation_of,
    policy_values,
)
from broker.rpc.changes import (
    agent_change,
    asked_of,
    environment_change,
    group_change,
    organisation_change,
    unchanged,
)
from broker.rpc.lists import ListedAgent, page_of
from broker.store.base import EnvironmentRow, GroupRules, OrganisationRow
from protos.mesh.v1 import admin_service_pb2 as pb
from protos.mesh.v1 import admin_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]

ALL_GROUPS: Final = "-"


class AdminService(admin_service_pb2_grpc.AdminServiceServicer):
    """Serves `mesh.v1.AdminService` on the API port."""

    def __init__(
        self, resources: Resources, directory: Directory, acts: AgentActs, edits: Edits, removals: Removals
    ) -> None:
        self._resources = resources
        self._directory = directory
        self._acts = acts
        self._edits = edits
        self._removals = removals

    # --- organisations ----------------------------------------------------------------------------------------------

    async def CreateOrganization(self, request: pb.CreateOrganizationRequest, context: Context) -> pb.Organization:
        """Make an organisation."""
        wanted = request.organization
        row = await self._resources.create_organisation(
            request.organization_id,
            wanted.display_name,
            description=wanted.description,
            asked=asked_of(request),
        )
        return self._organisation_of(row)

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Context) -> pb.Organization:
        """One organisation."""
        return self._organisation_of(self._directory.organisation(split_parent(request.name)[0]))

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Context
    ) -> pb.ListOrganizationsResponse:
        """All organisations."""
        found = [self._organisation_of(row) for row in self._directory.organisations()]
        page, token, total = page_of(found, pb.Organization, request, "")
        return pb.ListOrganizationsResponse(organizations=page, next_page_token=token, total_size=total)

    async def UpdateOrganization(self, request: pb.UpdateOrganizationRequest, context: Context) -> pb.Organization:
        """Change what people read of an organisation."""
        name = request.organization.name
        row = await self._edits.organisation(
            split_parent(name)[0],
            organisation_change(request),
            check=unchanged(name, request.organization.etag, self._organisation_of),
            validate_only=request.validate_only,
        )
        return self._organisation_of(row)

    async def DeleteOrganization(
        self, request: pb.DeleteOrganizationRequest, context: Context
    ) -> pb.DeleteOrganizationResponse:
        """Remove an organisation with all that it has."""
        loss = await self._removals.organisation(
            split_parent(request.name)[0],
            check=unchanged(request.name, request.etag, self._organisation_of),
            force=request.force,
            validate_only=request.validate_only,
        )
        return pb.DeleteOrganizationResponse(
            groups=loss.groups, environments=loss.environments, agents=loss.agents, jobs=loss.jobs
        )

    def _organisation_of(self, row: OrganisationRow) -> pb.Organization:
        return organisation_of(row, self._directory)

    # --- groups -----------------------------------------------------------------------------------------------------

    async def CreateGroup(self, request: pb.CreateGroupRequest, context: Context) -> pb.Group:
        """Make a group; it takes agents and jobs as soon as this is answered."""
        wanted = request.group
        organisation = split_parent(request.parent)[0]
        if KIND_WORDS[wanted.kind] == MANAGED:
            raise managed(f"{request.parent}/groups/{request.group_id or '-'}")
        view = await self._resources.create_group(
            organisation,
            request.group_id,
            wanted.display_name,
            description=wanted.description,
            central_logging=logs_centrally(wanted),
            rules=GroupRules(
                MODE_WORDS[wanted.mode], INACTIVE_WORDS[wanted.inactive_jobs], **policy_values(wanted.policy)
            ),
            asked=asked_of(request),
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
        page, token, total = page_of(found, pb.Group, request, request.parent)
        return pb.ListGroupsResponse(groups=page, next_page_token=token, total_size=total)

    async def UpdateGroup(self, request: pb.UpdateGroupRequest, context: Context) -> pb.Group:
        """Change a private group."""
        name = request.group.name
        organisation, _, group = split_parent(name)

        def of(view: GroupView) -> pb.Group:
            return group_of(view, organisation)

        view = await self._edits.group(
            organisation,
            group,
            group_change(request),
            check=unchanged(name, request.group.etag, of),
            validate_only=request.validate_only,
        )
        return of(view)

    async def DeleteGroup(self, request: pb.DeleteGroupRequest, context: Context) -> pb.DeleteGroupResponse:
        """Remove a private group with its agents; its live jobs are cancelled."""
        organisation, _, group = split_parent(request.name)
        loss = await self._removals.group(
            organisation,
            group,
            check=unchanged(request.name, request.etag, lambda view: group_of(view, organisation)),
            force=request.force,
            validate_only=request.validate_only,
        )
        return pb.DeleteGroupResponse(agents=loss.agents, environments=loss.environments, jobs=loss.jobs)

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
            target=group_in(organisation, wanted.target_group) if wanted.target_group else "",
            groups=[group_in(organisation, group) for group in wanted.groups],
            asked=asked_of(request),
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
        page, token, total = page_of(found, pb.Environment, request, request.parent)
        return pb.ListEnvironmentsResponse(environments=page, next_page_token=token, total_size=total)

    async def UpdateEnvironment(self, request: pb.UpdateEnvironmentRequest, context: Context) -> pb.Environment:
        """Change an environment."""
        name = request.environment.name
        organisation, _, environment = split_parent(name)

        def of(row: EnvironmentRow) -> pb.Environment:
            return environment_of(row, organisation, self._directory)

        row = await self._edits.environment(
            organisation,
            environment,
            environment_change(request, organisation),
            check=unchanged(name, request.environment.etag, of),
            validate_only=request.validate_only,
        )
        return of(row)

    async def DeleteEnvironment(
        self, request: pb.DeleteEnvironmentRequest, context: Context
    ) -> pb.DeleteEnvironmentResponse:
        """Remove an environment; accepted jobs run on."""
        organisation, _, environment = split_parent(request.name)
        loss = await self._removals.environment(
            organisation,
            environment,
            check=unchanged(request.name, request.etag, lambda row: environment_of(row, organisation, self._directory)),
            validate_only=request.validate_only,
        )
        return pb.DeleteEnvironmentResponse(groups=loss.groups)

    # --- agents -----------------------------------------------------------------------------------------------------

    async def CreateAgent(self, request: pb.CreateAgentRequest, context: Context) -> pb.Agent:
        """Announce an agent; it awaits its set-up until it connects."""
        wanted = request.agent
        organisation, _, group = split_parent(request.parent)
        view = await self._resources.create_agent(
            organisation,
            group,
            request.agent_id,
            wanted.display_name,
            description=wanted.description,
            traits=AgentTraits(wanted.rank, labels_in(wanted.operator_labels)),
            asked=asked_of(request),
        )
        return agent_of(view, request.parent)

    async def GetAgent(self, request: pb.GetAgentRequest, context: Context) -> pb.Agent:
        """One agent."""
        return self._agent_of(self._resources.agent(*split_agent(request.name)))

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Context) -> pb.ListAgentsResponse:
        """Agents of a group, or of all groups."""
        organisation, _, group = split_parent(request.parent)
        views = self._resources.agents(organisation, "" if group == ALL_GROUPS else group)
        found = [ListedAgent(self._agent_name(view), view) for view in views]
        page, token, total = page_of(found, pb.Agent, request, request.parent)
        agents = [self._agent_of(one.view) for one in page]
        return pb.ListAgentsResponse(agents=agents, next_page_token=token, total_size=total)

    async def UpdateAgent(self, request: pb.UpdateAgentRequest, context: Context) -> pb.Agent:
        """Change what people call an agent, its rank, or its labels."""
        view = await self._acts.edit(
            split_agent(request.agent.name),
            agent_change(request),
            check=unchanged(request.agent.name, request.agent.etag, self._agent_of),
            validate_only=request.validate_only,
        )
        return self._agent_of(view)

    async def DeleteAgent(self, request: pb.DeleteAgentRequest, context: Context) -> pb.DeleteAgentResponse:
        """Remove an agent that does not run. What it still says is refused; its name is free for `CreateAgent`."""
        attempts = await self._acts.remove(
            split_agent(request.name),
            check=unchanged(request.name, request.etag, self._agent_of),
            validate_only=request.validate_only,
        )
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
        return explanation_of(said, view, path[0])

    def _agent_name(self, view: AgentView) -> str:
        return f"{self._directory.group_name(view.name.group_no)}/agents/{view.name.agent_id}"

    def _agent_of(self, view: AgentView) -> pb.Agent:
        return agent_of(view, self._directory.group_name(view.name.group_no))
