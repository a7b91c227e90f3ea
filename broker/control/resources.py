"""Making and reading organisations, groups, environments and agents: the use-cases of operators.

Shared by the rpc layer and, later, the console. Each change is durable before the directory knows it and before it is
answered. One that has begun is carried out, also when who asked for it goes away: a group that is in the store and that
nobody drives would take its name and no jobs. Changing them is not built yet; what else operators do with agents is in
`broker.control.acts`.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from broker.control.directory import AgentName, Directory
from broker.control.names import check_display_name, chosen_slug, slug_of
from broker.control.presence import UNKNOWN, Machine
from broker.control.status import AgentStatus, agent_status
from broker.dispatch.model import NO_AGENT, Admin, Agent, GroupNo
from broker.engine import Engine
from broker.errors import ConflictError, MalformedError, NotFoundError
from broker.store.base import EnvironmentRow, GroupRow, OrganisationRow, Store

T = TypeVar("T")

DEFAULT: Final = "default"
"""The organisation, group and environment that `--dev` makes at the first start."""


class AgentView(NamedTuple):
    """An agent as people see it."""

    name: AgentName
    status: AgentStatus
    agent: Agent
    machine: Machine = UNKNOWN


class GroupView(NamedTuple):
    """A group with what follows from its agents and environments."""

    row: GroupRow
    agents_active: int
    agents_total: int
    environments: tuple[EnvironmentRow, ...]


class Resources:
    """What operators make and read. All methods may raise NotFoundError for the names they are given."""

    def __init__(self, store: Store, engine: Engine, directory: Directory) -> None:
        self._store = store
        self._engine = engine
        self._directory = directory
        self._turn = asyncio.Lock()
        self._making: set[asyncio.Task[Any]] = set()

    # --- making -----------------------------------------------------------------------------------------------------

    async def create_organisation(
        self, slug: str, display_name: str, *, validate_only: bool = False
    ) -> OrganisationRow:
        """Make an organisation. Raises ConflictError if the id is taken, MalformedError."""
        slug = chosen_slug(slug, display_name, "organization_id")

        async def create() -> OrganisationRow:
            taken = {row.slug for row in self._directory.organisations()}
            _refuse_taken(f"organizations/{slug}", is_taken=slug in taken)
            now_us = self._engine.clock.now_us()
            if validate_only:
                return OrganisationRow(0, slug, display_name or slug, now_us)
            row = await self._store.insert_organisation(slug, display_name or slug, now_us)
            self._directory.add_organisation(row)
            return row

        return await self._carry_out(create())

    async def create_group(
        self,
        organisation: str,
        slug: str,
        display_name: str,
        *,
        description: str = "",
        kind: str = "private",
        central_logging: bool = True,
        validate_only: bool = False,
    ) -> GroupView:
        """Make a group and drive it from now on. Central logging is on unless switched off here."""
        check_display_name(display_name, "group.display_name")
        slug = chosen_slug(slug, display_name, "group_id")
        name = display_name or slug

        async def create() -> GroupView:
            taken = {row.slug for row in self._directory.groups(organisation)}
            _refuse_taken(f"organizations/{organisation}/groups/{slug}", is_taken=slug in taken)
            org_no = self._directory.organisation(organisation).org_no
            now_us = self._engine.clock.now_us()
            if validate_only:
                row = GroupRow(GroupNo(0), org_no, slug, name, description, kind, central_logging, now_us)
                return GroupView(row, 0, 0, ())
            row = await self._store.insert_group(org_no, slug, name, description, kind, central_logging, now_us)
            await self._engine.add_group(row.group_no)
            self._directory.add_group(row)
            return self._view(row)

        return await self._carry_out(create())

    async def create_environment(
        self,
        organisation: str,
        slug: str,
        display_name: str,
        *,
        description: str = "",
        target: str = "",
        groups: Sequence[str] = (),
        validate_only: bool = False,
    ) -> EnvironmentRow:
        """Make an environment. `target` (a group's id) takes its jobs and counts as one of `groups`."""
        check_display_name(display_name, "environment.display_name")
        slug = chosen_slug(slug, display_name, "environment_id")
        name = display_name or slug

        async def create() -> EnvironmentRow:
            taken = {row.slug for row in self._directory.environments(organisation)}
            _refuse_taken(f"organizations/{organisation}/environments/{slug}", is_taken=slug in taken)
            org_no = self._directory.organisation(organisation).org_no
            target_no = self._directory.group(organisation, target).group_no if target else GroupNo(0)
            named = [self._directory.group(organisation, group).group_no for group in groups]
            group_nos = tuple(dict.fromkeys([*named, target_no] if target_no else named))
            now_us = self._engine.clock.now_us()
            if validate_only:
                return EnvironmentRow(0, org_no, slug, name, description, target_no, group_nos, now_us)
            row = await self._store.insert_environment(org_no, slug, name, description, target_no, group_nos, now_us)
            self._directory.add_environment(row)
            return row

        return await self._carry_out(create())

    async def create_agent(
        self, organisation: str, group: str, agent_id: str, display_name: str, *, validate_only: bool = False
    ) -> AgentView:
        """Announce an agent: it awaits its set-up until it connects. Raises ConflictError if the id is taken."""
        agent_id = chosen_slug(agent_id, display_name, "agent_id")
        if display_name and agent_id not in (display_name, slug_of(display_name, "agent_id")):
            text = f"an agent is shown by its id in this version: {display_name!r} cannot be kept beside {agent_id!r}"
            raise MalformedError(text, reason="DISPLAY_NAME", field="agent.display_name")
        group_no = self._directory.group(organisation, group).group_no
        is_taken = self._directory.agent(group_no, agent_id) is not None
        _refuse_taken(agent_name(organisation, group, agent_id), is_taken=is_taken)
        if validate_only:
            announced = Agent(NO_AGENT, agent_id)
            return AgentView(AgentName(group_no, announced.no, agent_id), agent_status(announced), announced)
        await self._directory.ensure_agent(group_no, agent_id, is_announced=True)
        return self.agent(organisation, group, agent_id)

    async def create_defaults(self) -> None:
        """At the first start with `--dev`: an organisation, a group and an environment that leads to it."""
        organisations = self._directory.organisations()
        if not organisations:
            await self.create_organisation(DEFAULT, "Default")
        elif all(row.slug != DEFAULT for row in organisations):
            return
        if not self._directory.groups(DEFAULT):
            await self.create_group(DEFAULT, DEFAULT, "Default")
        if not self._directory.environments(DEFAULT):
            await self.create_environment(DEFAULT, DEFAULT, "Default", target=self._directory.groups(DEFAULT)[0].slug)

    async def _carry_out(self, making: Coroutine[Any, Any, T]) -> T:
        """Do it to its end, one after the other, whatever becomes of the caller."""

        async def in_turn() -> T:
            async with self._turn:
                return await making

        task = asyncio.create_task(in_turn(), name="create")
        self._making.add(task)
        task.add_done_callback(self._making.discard)
        return await asyncio.shield(task)

    # --- reading ----------------------------------------------------------------------------------------------------

    def group(self, organisation: str, group: str) -> GroupView:
        """One group."""
        return self._view(self._directory.group(organisation, group))

    def groups(self, organisation: str) -> list[GroupView]:
        """All groups of an organisation, in the order of their creation."""
        return [self._view(row) for row in self._directory.groups(organisation)]

    def agents(self, organisation: str, group: str = "") -> list[AgentView]:
        """Agents of a group, or of all groups of the organisation, in the order of their creation."""
        groups = (self._directory.group(organisation, group),) if group else self._directory.groups(organisation)
        views = (self._agent_view(name) for row in groups for name in self._directory.agents(row.group_no))
        return [view for view in views if view is not None]

    def agent(self, organisation: str, group: str, agent_id: str) -> AgentView:
        """One agent of a group."""
        name = self._directory.agent(self._directory.group(organisation, group).group_no, agent_id)
        view = None if name is None else self._agent_view(name)
        if view is None:
            full_name = agent_name(organisation, group, agent_id)
            raise NotFoundError(f"there is no {full_name}", resource=full_name)
        return view

    def _agent_view(self, name: AgentName) -> AgentView | None:
        agent = self._engine.dispatcher(name.group_no).ledger.agents.get(name.agent_no)
        if agent is None or agent.admin is Admin.REMOVED:  # in this moment: the directory is told after the commit
            return None
        machine = self._directory.presence.machine(name.group_no, name.agent_no)
        return AgentView(name, agent_status(agent), agent, machine)

    def _view(self, row: GroupRow) -> GroupView:
        found = self._engine.dispatcher(row.group_no).ledger.agents.values()
        agents = [agent for agent in found if agent.admin is not Admin.REMOVED]
        active = sum(agent_status(agent) is AgentStatus.ACTIVE for agent in agents)
        return GroupView(row, active, len(agents), tuple(self._directory.environments_of(row.group_no)))


def agent_name(organisation: str, group: str, agent_id: str) -> str:
    """The resource name of an agent."""
    return f"organizations/{organisation}/groups/{group}/agents/{agent_id}"


def _refuse_taken(name: str, *, is_taken: bool) -> None:
    if is_taken:
        raise ConflictError(f"{name} exists already: choose another id", resource=name)
