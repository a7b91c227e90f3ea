"""Calls of operators: thin, typed, one for each thing that the command line can do.

What makes something new is sent once: after a lost answer it says `UnavailableError`, and a second call tells by
`ConflictError` that the first one had worked.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from datetime import timedelta
from typing import Final, Literal, TypeVar

from mesh_client.connection import Connection
from mesh_client.convert import agent_explanation, agent_view, environment_view, group_view, organization_view
from mesh_client.names import agent_name, environment_name, group_name, organization_name
from mesh_client.resources import AgentExplanation, AgentView, EnvironmentView, GroupView, OrganizationView
from protos.mesh.v1 import admin_service_pb2 as pb
from protos.mesh.v1 import agent_service_pb2

ItemT = TypeVar("ItemT")

PAGE_ITEMS = 200
DrainMode = Literal["stop", "pause"]
DrainThen = Literal["finish", "requeue", "kill"]
DRAIN_MODES: Final = {"stop": agent_service_pb2.DRAIN_MODE_STOP, "pause": agent_service_pb2.DRAIN_MODE_PAUSE}
DRAIN_THENS: Final = {
    "finish": agent_service_pb2.DRAIN_THEN_FINISH,
    "requeue": agent_service_pb2.DRAIN_THEN_REQUEUE,
    "kill": agent_service_pb2.DRAIN_THEN_KILL,
}


async def paged(
    page: Callable[[str, int], Awaitable[tuple[Iterable[ItemT], str]]], limit: int | None, page_items: int = PAGE_ITEMS
) -> AsyncIterator[ItemT]:
    """Items of all pages, at most `limit`. `page` is given a token and a size, and answers items and the next token."""
    token = ""
    left = limit
    while left is None or left > 0:
        size = page_items if left is None else min(page_items, left)
        items, token = await page(token, size)
        for item in items:
            yield item
        left = None if left is None else left - size
        if not token:
            return


class AdminCalls:
    """Organizations, environments, groups and agents of one organization."""

    _connection: Connection
    organization: str

    async def create_organization(
        self, organization: str, *, display_name: str = "", description: str = ""
    ) -> OrganizationView:
        """Make an organization. Raises ConflictError if the name is taken."""
        request = pb.CreateOrganizationRequest(
            organization_id=organization,
            organization=pb.Organization(display_name=display_name or organization, description=description),
        )
        stub = self._connection.admin
        return organization_view(await self._connection.call(stub.CreateOrganization, request, is_repeatable=False))

    async def get_organization(self, organization: str) -> OrganizationView:
        """One organization."""
        request = pb.GetOrganizationRequest(name=organization_name(organization))
        return organization_view(await self._connection.call(self._connection.admin.GetOrganization, request))

    def list_organizations(self, *, limit: int | None = None) -> AsyncIterator[OrganizationView]:
        """Organizations that the caller may see."""

        async def page(token: str, size: int) -> tuple[Iterable[OrganizationView], str]:
            request = pb.ListOrganizationsRequest(page_size=size, page_token=token)
            response = await self._connection.call(self._connection.admin.ListOrganizations, request)
            return map(organization_view, response.organizations), response.next_page_token

        return paged(page, limit)

    async def create_environment(
        self,
        environment: str,
        *,
        display_name: str = "",
        description: str = "",
        target_group: str = "",
        groups: Sequence[str] = (),
    ) -> EnvironmentView:
        """Make an environment that names `groups`; jobs sent to it run in `target_group`, by default the first."""
        target = target_group or next(iter(groups), "")
        named = dict.fromkeys([*groups, *([target] if target else [])])
        request = pb.CreateEnvironmentRequest(
            parent=organization_name(self.organization),
            environment_id=environment,
            environment=pb.Environment(
                display_name=display_name or environment,
                description=description,
                target_group=group_name(self.organization, target) if target else "",
                groups=[group_name(self.organization, group) for group in named],
            ),
        )
        stub = self._connection.admin
        return environment_view(await self._connection.call(stub.CreateEnvironment, request, is_repeatable=False))

    async def get_environment(self, environment: str) -> EnvironmentView:
        """One environment."""
        request = pb.GetEnvironmentRequest(name=environment_name(self.organization, environment))
        return environment_view(await self._connection.call(self._connection.admin.GetEnvironment, request))

    def list_environments(self, *, limit: int | None = None) -> AsyncIterator[EnvironmentView]:
        """Environments of the organization."""

        async def page(token: str, size: int) -> tuple[Iterable[EnvironmentView], str]:
            parent = organization_name(self.organization)
            request = pb.ListEnvironmentsRequest(parent=parent, page_size=size, page_token=token)
            response = await self._connection.call(self._connection.admin.ListEnvironments, request)
            return map(environment_view, response.environments), response.next_page_token

        return paged(page, limit)

    async def create_group(
        self, group: str, *, display_name: str = "", description: str = "", central_logging: bool | None = None
    ) -> GroupView:
        """Make a private group. `central_logging` None: the broker's default, on."""
        request = pb.CreateGroupRequest(
            parent=organization_name(self.organization),
            group_id=group,
            group=pb.Group(
                display_name=display_name or group,
                description=description,
                kind=pb.GROUP_KIND_PRIVATE,
                central_logging=central_logging,
            ),
        )
        return group_view(await self._connection.call(self._connection.admin.CreateGroup, request, is_repeatable=False))

    async def get_group(self, group: str) -> GroupView:
        """One group, with its status and how many agents it has."""
        request = pb.GetGroupRequest(name=group_name(self.organization, group))
        return group_view(await self._connection.call(self._connection.admin.GetGroup, request))

    def list_groups(self, *, limit: int | None = None) -> AsyncIterator[GroupView]:
        """Groups of the organization."""

        async def page(token: str, size: int) -> tuple[Iterable[GroupView], str]:
            parent = organization_name(self.organization)
            request = pb.ListGroupsRequest(parent=parent, page_size=size, page_token=token)
            response = await self._connection.call(self._connection.admin.ListGroups, request)
            return map(group_view, response.groups), response.next_page_token

        return paged(page, limit)

    async def get_agent(self, group: str, agent: str) -> AgentView:
        """One agent as it was last heard."""
        request = pb.GetAgentRequest(name=agent_name(self.organization, group, agent))
        return agent_view(await self._connection.call(self._connection.admin.GetAgent, request))

    def list_agents(self, group: str | None = None, *, limit: int | None = None) -> AsyncIterator[AgentView]:
        """Agents of a group, or of all groups of the organization."""

        async def page(token: str, size: int) -> tuple[Iterable[AgentView], str]:
            parent = group_name(self.organization, group or "-")
            request = pb.ListAgentsRequest(parent=parent, page_size=size, page_token=token)
            response = await self._connection.call(self._connection.admin.ListAgents, request)
            return map(agent_view, response.agents), response.next_page_token

        return paged(page, limit)

    async def create_agent(self, group: str, agent: str) -> AgentView:
        """Announce an agent: it awaits its set-up until it connects. Raises ConflictError if the name is taken."""
        request = pb.CreateAgentRequest(
            parent=group_name(self.organization, group), agent_id=agent, agent=pb.Agent(display_name=agent)
        )
        return agent_view(await self._connection.call(self._connection.admin.CreateAgent, request, is_repeatable=False))

    async def follow_agent(self, group: str, agent: str, *, every_s: float = 0.5) -> AsyncIterator[AgentView]:
        """The agent as it is now and whenever it has changed, for ever: it is asked for `every_s` seconds."""
        last = None
        while True:
            view = await self.get_agent(group, agent)
            if view != last:
                yield view
            last = view
            await asyncio.sleep(every_s)

    async def explain_agent(self, group: str, agent: str) -> AgentExplanation:
        """Why an agent is given work or not, and what would change that."""
        request = pb.ExplainAgentRequest(name=agent_name(self.organization, group, agent))
        return agent_explanation(await self._connection.call(self._connection.admin.ExplainAgent, request))

    async def drain_agent(
        self,
        group: str,
        agent: str,
        mode: DrainMode = "stop",
        *,
        then: DrainThen = "finish",
        deadline_s: float | None = None,
        reason: str = "",
    ) -> AgentView:
        """Give an agent nothing new and let it end: its process ends, or (`pause`) it stays and waits for `resume`.

        `then` happens after `deadline_s` to what still runs. Raises WrongStateError if it does not run.
        """
        request = pb.DrainAgentRequest(
            name=agent_name(self.organization, group, agent),
            mode=DRAIN_MODES[mode],
            then=DRAIN_THENS[then],
            reason=reason,
        )
        if deadline_s is not None:
            request.deadline.FromTimedelta(timedelta(seconds=deadline_s))
        return agent_view(await self._connection.call(self._connection.admin.DrainAgent, request, is_repeatable=False))

    async def cancel_drain(self, group: str, agent: str) -> AgentView:
        """Take back a drain that is not finished: the agent works on."""
        request = pb.CancelDrainRequest(name=agent_name(self.organization, group, agent))
        return agent_view(await self._connection.call(self._connection.admin.CancelDrain, request, is_repeatable=False))

    async def resume_agent(self, group: str, agent: str) -> AgentView:
        """End a pause: the agent is given work again."""
        request = pb.ResumeAgentRequest(name=agent_name(self.organization, group, agent))
        return agent_view(await self._connection.call(self._connection.admin.ResumeAgent, request, is_repeatable=False))

    async def disable_agent(self, group: str, agent: str, *, now: bool = False, reason: str = "") -> AgentView:
        """Switch an agent off: it finishes what it has and is sent away, or (`now`) is stopped within a second."""
        request = pb.DisableAgentRequest(name=agent_name(self.organization, group, agent), now=now, reason=reason)
        stub = self._connection.admin
        return agent_view(await self._connection.call(stub.DisableAgent, request, is_repeatable=False))

    async def enable_agent(self, group: str, agent: str) -> AgentView:
        """Switch an agent on again: it comes back by itself if its process runs."""
        request = pb.EnableAgentRequest(name=agent_name(self.organization, group, agent))
        return agent_view(await self._connection.call(self._connection.admin.EnableAgent, request, is_repeatable=False))

    async def remove_agent(self, group: str, agent: str, *, validate_only: bool = False) -> int:
        """Remove an agent that does not run; how many attempts it held, which start elsewhere.

        `validate_only`: say what would go, and raise what it would be refused with.
        """
        request = pb.DeleteAgentRequest(name=agent_name(self.organization, group, agent), validate_only=validate_only)
        stub = self._connection.admin
        return (await self._connection.call(stub.DeleteAgent, request, is_repeatable=validate_only)).attempts
