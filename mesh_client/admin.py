"""Calls of operators: thin, typed, one for each thing that the command line can do.

What makes something new carries a `request_id`, made here if none is given: it is sent again after a lost answer, and
makes nothing twice. What removes something is sent once: after a lost answer it says `UnavailableError`, and a second
call tells by `NotFoundError` that the first one had worked. In changes None is what stays as it is; with
an `etag` (from what was read) nobody else's change is overwritten, but `WrongStateError` raised. With `validate_only`
nothing is done: the answer is what would come of it. Lists take a filter (`where`) and `order_by` as the contract has
them (AIP-160, AIP-132).
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, Literal, Unpack
from uuid import uuid4

from mesh_client.agents import AgentCalls
from mesh_client.convert import (
    environment_view,
    group_policy,
    group_view,
    organization_view,
    policy_changes,
    removal,
)
from mesh_client.names import environment_name, group_name, organization_name
from mesh_client.pages import mask, paged
from mesh_client.resources import EnvironmentView, GroupView, OrganizationView, PolicyValues, Removal
from protos.mesh.v1 import admin_service_pb2 as pb

Mode = Literal["balanced", "ordered", "spill"]
InactiveJobs = Literal["wait", "refuse"]
GROUP_MODES: Final = {
    None: pb.GROUP_MODE_UNSPECIFIED,
    "balanced": pb.GROUP_MODE_BALANCED,
    "ordered": pb.GROUP_MODE_ORDERED,
    "spill": pb.GROUP_MODE_SPILL,
}
INACTIVE_JOBS: Final = {
    None: pb.INACTIVE_JOBS_UNSPECIFIED,
    "wait": pb.INACTIVE_JOBS_WAIT,
    "refuse": pb.INACTIVE_JOBS_REFUSE,
}


class AdminCalls(AgentCalls):
    """Organizations, environments, groups and agents of one organization."""

    async def create_organization(
        self, organization: str, *, display_name: str = "", description: str = "", request_id: str = ""
    ) -> OrganizationView:
        """Make an organization. Raises ConflictError if the name is taken."""
        request = pb.CreateOrganizationRequest(
            organization_id=organization,
            organization=pb.Organization(display_name=display_name or organization, description=description),
            request_id=request_id or str(uuid4()),
        )
        return organization_view(await self._connection.call(self._connection.admin.CreateOrganization, request))

    async def get_organization(self, organization: str) -> OrganizationView:
        """One organization."""
        request = pb.GetOrganizationRequest(name=organization_name(organization))
        return organization_view(await self._connection.call(self._connection.admin.GetOrganization, request))

    def list_organizations(
        self, *, where: str = "", order_by: str = "", limit: int | None = None
    ) -> AsyncIterator[OrganizationView]:
        """Organizations that the caller may see."""

        async def page(token: str, size: int) -> tuple[Iterable[OrganizationView], str]:
            request = pb.ListOrganizationsRequest(page_size=size, page_token=token, filter=where, order_by=order_by)
            response = await self._connection.call(self._connection.admin.ListOrganizations, request)
            return map(organization_view, response.organizations), response.next_page_token

        return paged(page, limit)

    async def update_organization(
        self,
        organization: str,
        *,
        display_name: str | None = None,
        description: str | None = None,
        etag: str = "",
        validate_only: bool = False,
    ) -> OrganizationView:
        """Change what people read of an organization."""
        changed = mask(display_name=display_name, description=description)
        name = organization_name(organization)
        request = pb.UpdateOrganizationRequest(
            organization=pb.Organization(
                name=name, display_name=display_name or "", description=description or "", etag=etag
            ),
            update_mask=changed,
            validate_only=validate_only,
        )
        stub = self._connection.admin
        return organization_view(await self._connection.call(stub.UpdateOrganization, request, is_repeatable=not etag))

    async def remove_organization(
        self, organization: str, *, force: bool = False, etag: str = "", validate_only: bool = False
    ) -> Removal:
        """Remove an organization; with `force` also one that has something. Raises WrongStateError."""
        request = pb.DeleteOrganizationRequest(
            name=organization_name(organization), force=force, etag=etag, validate_only=validate_only
        )
        stub = self._connection.admin
        return removal(await self._connection.call(stub.DeleteOrganization, request, is_repeatable=validate_only))

    async def create_environment(
        self,
        environment: str,
        *,
        display_name: str = "",
        description: str = "",
        target_group: str = "",
        groups: Sequence[str] = (),
        request_id: str = "",
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
            request_id=request_id or str(uuid4()),
        )
        return environment_view(await self._connection.call(self._connection.admin.CreateEnvironment, request))

    async def get_environment(self, environment: str) -> EnvironmentView:
        """One environment."""
        request = pb.GetEnvironmentRequest(name=environment_name(self.organization, environment))
        return environment_view(await self._connection.call(self._connection.admin.GetEnvironment, request))

    def list_environments(
        self, *, where: str = "", order_by: str = "", limit: int | None = None
    ) -> AsyncIterator[EnvironmentView]:
        """Environments of the organization."""

        async def page(token: str, size: int) -> tuple[Iterable[EnvironmentView], str]:
            parent = organization_name(self.organization)
            request = pb.ListEnvironmentsRequest(
                parent=parent, page_size=size, page_token=token, filter=where, order_by=order_by
            )
            response = await self._connection.call(self._connection.admin.ListEnvironments, request)
            return map(environment_view, response.environments), response.next_page_token

        return paged(page, limit)

    async def update_environment(
        self,
        environment: str,
        *,
        display_name: str | None = None,
        description: str | None = None,
        target_group: str | None = None,
        groups: Sequence[str] | None = None,
        etag: str = "",
        validate_only: bool = False,
    ) -> EnvironmentView:
        """Change an environment. A `target_group` of "" is none; accepted jobs stay in the group that has them."""
        changed = mask(display_name=display_name, description=description, target_group=target_group, groups=groups)
        wanted = pb.Environment(
            name=environment_name(self.organization, environment),
            display_name=display_name or "",
            description=description or "",
            target_group=group_name(self.organization, target_group) if target_group else "",
            groups=[group_name(self.organization, group) for group in groups or ()],
            etag=etag,
        )
        request = pb.UpdateEnvironmentRequest(environment=wanted, update_mask=changed, validate_only=validate_only)
        stub = self._connection.admin
        return environment_view(await self._connection.call(stub.UpdateEnvironment, request, is_repeatable=not etag))

    async def remove_environment(self, environment: str, *, etag: str = "", validate_only: bool = False) -> Removal:
        """Remove an environment; accepted jobs run on."""
        name = environment_name(self.organization, environment)
        request = pb.DeleteEnvironmentRequest(name=name, etag=etag, validate_only=validate_only)
        stub = self._connection.admin
        response = await self._connection.call(stub.DeleteEnvironment, request, is_repeatable=validate_only)
        return removal(pb.DeleteOrganizationResponse(groups=response.groups))

    async def create_group(
        self,
        group: str,
        *,
        display_name: str = "",
        description: str = "",
        central_logging: bool | None = None,
        mode: Mode | None = None,
        inactive_jobs: InactiveJobs | None = None,
        request_id: str = "",
        **policy: Unpack[PolicyValues],
    ) -> GroupView:
        """Make a private group. `central_logging` None: the broker's default, on. Raises FullError at the plan's limit.

        `mode` None is the broker's setting, and so is what of the policy is not given; `inactive_jobs` None is `wait`.
        """
        request = pb.CreateGroupRequest(
            parent=organization_name(self.organization),
            group_id=group,
            group=pb.Group(
                display_name=display_name or group,
                description=description,
                kind=pb.GROUP_KIND_PRIVATE,
                central_logging=central_logging,
                mode=GROUP_MODES[mode],
                inactive_jobs=INACTIVE_JOBS[inactive_jobs],
                policy=group_policy(policy),
            ),
            request_id=request_id or str(uuid4()),
        )
        return group_view(await self._connection.call(self._connection.admin.CreateGroup, request))

    async def get_group(self, group: str) -> GroupView:
        """One group, with its status and how many agents it has."""
        request = pb.GetGroupRequest(name=group_name(self.organization, group))
        return group_view(await self._connection.call(self._connection.admin.GetGroup, request))

    def list_groups(self, *, where: str = "", order_by: str = "", limit: int | None = None) -> AsyncIterator[GroupView]:
        """Groups of the organization."""

        async def page(token: str, size: int) -> tuple[Iterable[GroupView], str]:
            parent = organization_name(self.organization)
            request = pb.ListGroupsRequest(
                parent=parent, page_size=size, page_token=token, filter=where, order_by=order_by
            )
            response = await self._connection.call(self._connection.admin.ListGroups, request)
            return map(group_view, response.groups), response.next_page_token

        return paged(page, limit)

    async def update_group(
        self,
        group: str,
        *,
        display_name: str | None = None,
        description: str | None = None,
        central_logging: bool | None = None,
        mode: Mode | None = None,
        inactive_jobs: InactiveJobs | None = None,
        etag: str = "",
        validate_only: bool = False,
        **policy: Unpack[PolicyValues],
    ) -> GroupView:
        """Change a private group; of its policy only what is given. Raises WrongStateError for a managed one."""
        changed = mask(
            display_name=display_name,
            description=description,
            central_logging=central_logging,
            mode=mode,
            inactive_jobs=inactive_jobs,
            **policy_changes(policy),
        )
        wanted = pb.Group(
            name=group_name(self.organization, group),
            display_name=display_name or "",
            description=description or "",
            central_logging=central_logging,
            mode=GROUP_MODES[mode],
            inactive_jobs=INACTIVE_JOBS[inactive_jobs],
            policy=group_policy(policy),
            etag=etag,
        )
        request = pb.UpdateGroupRequest(group=wanted, update_mask=changed, validate_only=validate_only)
        stub = self._connection.admin
        return group_view(await self._connection.call(stub.UpdateGroup, request, is_repeatable=not etag))

    async def remove_group(
        self, group: str, *, force: bool = False, etag: str = "", validate_only: bool = False
    ) -> Removal:
        """Remove a private group with its agents; live jobs are cancelled. Without `force` only one that has nothing.

        Raises WrongStateError.
        """
        name = group_name(self.organization, group)
        request = pb.DeleteGroupRequest(name=name, force=force, etag=etag, validate_only=validate_only)
        stub = self._connection.admin
        response = await self._connection.call(stub.DeleteGroup, request, is_repeatable=validate_only)
        return removal(
            pb.DeleteOrganizationResponse(
                environments=response.environments, agents=response.agents, jobs=response.jobs
            )
        )
