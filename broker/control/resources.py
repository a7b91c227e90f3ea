"""Making and reading organisations, groups, environments and agents: the use-cases of operators.

Shared by the rpc layer and, later, the console. Each change is durable before the directory knows it and before it is
answered, and is carried out once it has begun (`broker.control.turn`). Changing is in `broker.control.edits`, removing
in `removals`, what else operators do with agents in `acts`. Managed groups are the business of the mesh's operator:
whoever comes by these ways may see that they are there, and nothing else.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from broker.control import quotas
from broker.control.directory import MANAGED, PRIVATE, AgentName, Directory
from broker.control.lint import GroupWarning, warnings_of
from broker.control.names import check_display_name, chosen_slug
from broker.control.presence import UNKNOWN, Machine
from broker.control.status import AgentStatus, GroupStatus, agent_status, group_status
from broker.control.turn import Turn
from broker.dispatch.messages import GroupConfigured
from broker.dispatch.model import NO_AGENT, Admin, Agent, GroupNo, Spread
from broker.engine import Engine
from broker.errors import ConflictError, NotFoundError, WrongStateError
from broker.settings import LimitSettings
from broker.store.base import AgentWordsRow, EnvironmentRow, GroupRow, GroupRules, OrganisationRow, Store

REFUSE: Final = "refuse"
WAIT: Final = "wait"
UNSAID: Final = GroupRules("", WAIT)
"""How a group treats its jobs of whom nobody said anything: as the broker's settings have it."""
DEFAULT: Final = "default"
"""The organisation, group and environment that `--dev` makes at the first start."""


class AgentView(NamedTuple):
    """An agent as people see it."""

    name: AgentName
    status: AgentStatus
    agent: Agent
    words: AgentWordsRow
    machine: Machine = UNKNOWN


class GroupView(NamedTuple):
    """A group with what follows from its agents, jobs and environments.

    `jobs_waiting` are live jobs that no agent has, `jobs_running` those that one has.
    """

    row: GroupRow
    status: GroupStatus = GroupStatus.INACTIVE
    agents_active: int = 0
    agents_total: int = 0
    environments: tuple[EnvironmentRow, ...] = ()
    jobs_waiting: int = 0
    jobs_running: int = 0
    warnings: tuple[GroupWarning, ...] = ()


class Resources:
    """What operators make and read. All methods may raise NotFoundError for the names they are given."""

    def __init__(self, store: Store, engine: Engine, directory: Directory, limits: LimitSettings) -> None:
        self._store = store
        self._engine = engine
        self._directory = directory
        self.turn = Turn(limits.changes_waiting_max)

    # --- making -----------------------------------------------------------------------------------------------------

    async def create_organisation(
        self, slug: str, display_name: str, *, description: str = "", validate_only: bool = False
    ) -> OrganisationRow:
        """Make an organisation. Raises ConflictError if the id is taken, MalformedError."""
        slug = chosen_slug(slug, display_name, "organization_id")

        async def create() -> OrganisationRow:
            taken = {row.slug for row in self._directory.organisations()}
            _refuse_taken(f"organizations/{slug}", is_taken=slug in taken)
            now_us = self._engine.clock.now_us()
            if validate_only:
                return OrganisationRow(0, slug, display_name or slug, now_us, description)
            row = await self._store.insert_organisation(slug, display_name or slug, now_us, description=description)
            self._directory.add_organisation(row)
            return row

        return await self.turn.carry_out(create)

    async def create_group(
        self,
        organisation: str,
        slug: str,
        display_name: str,
        *,
        description: str = "",
        kind: str = PRIVATE,
        central_logging: bool = True,
        rules: GroupRules = UNSAID,
        validate_only: bool = False,
    ) -> GroupView:
        """Make a group and drive it from now on. A mode that is "" is the broker's setting.

        Central logging is on unless switched off here, and always for managed groups. Raises FullError at the plan's
        limit.
        """
        check_display_name(display_name, "group.display_name")
        slug = chosen_slug(slug, display_name, "group_id")
        name = display_name or slug
        rules = rules._replace(mode=rules.mode or self._engine.policy.spread)
        is_logging = central_logging or kind == MANAGED

        async def create() -> GroupView:
            taken = {row.slug for row in self._directory.groups(organisation)}
            _refuse_taken(f"organizations/{organisation}/groups/{slug}", is_taken=slug in taken)
            if kind == PRIVATE:
                current = self._directory.private_groups(organisation)
                quotas.refuse_group(organisation, self._directory.plan(organisation), current)
            org_no = self._directory.organisation(organisation).org_no
            now_us = self._engine.clock.now_us()
            if validate_only:
                return GroupView(
                    GroupRow(GroupNo(0), org_no, slug, name, description, kind, is_logging, now_us, *rules)
                )
            row = await self._store.insert_group(org_no, slug, name, description, kind, is_logging, now_us, rules)
            await self._engine.add_group(row.group_no)
            await self.configure(row)
            self._directory.add_group(row)
            return self._view(row)

        return await self.turn.carry_out(create)

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

        return await self.turn.carry_out(create)

    async def create_agent(
        self,
        organisation: str,
        group: str,
        agent_id: str,
        display_name: str,
        *,
        description: str = "",
        validate_only: bool = False,
    ) -> AgentView:
        """Announce an agent: it awaits its set-up until it connects. Raises ConflictError if the id is taken.

        Raises FullError at the limit of the group or of the plan.
        """
        agent_id = chosen_slug(agent_id, display_name, "agent_id")

        async def create() -> AgentView:
            group_no = self.private_group(organisation, group).group_no
            is_taken = self._directory.agent(group_no, agent_id) is not None
            _refuse_taken(agent_name(organisation, group, agent_id), is_taken=is_taken)
            if validate_only:
                self._directory.refuse_full(group_no)
                announced = Agent(NO_AGENT, agent_id)
                words = AgentWordsRow(group_no, announced.no, display_name or agent_id, description)
                return AgentView(AgentName(group_no, announced.no, agent_id), agent_status(announced), announced, words)
            agent_no = await self._directory.ensure_agent(group_no, agent_id, is_announced=True)
            if display_name not in ("", agent_id) or description:
                words = AgentWordsRow(group_no, agent_no, display_name or agent_id, description)
                await self._directory.put_agent_words(words)
            return self.agent(organisation, group, agent_id)

        return await self.turn.carry_out(create)

    async def configure(self, row: GroupRow) -> None:
        """Have the dispatcher treat jobs of the group as its row says; it forgets that with each start."""
        spread, refuses = Spread(row.mode), row.inactive_jobs == REFUSE
        policy = self._engine.dispatcher(row.group_no).ledger.policy
        if (spread, refuses) != (policy.spread, policy.refuses_inactive):
            await self._engine.ask(row.group_no, lambda ticket: GroupConfigured(ticket, spread, refuses))

    async def configure_all(self) -> None:
        """The same for all groups. Call once after a start, before anybody may submit."""
        for organisation in self._directory.organisations():
            for row in self._directory.groups(organisation.slug):
                await self.configure(row)

    async def create_defaults(self) -> None:
        """At the first start with `--dev`: an organisation, a group and an environment that leads to it."""
        organisations = self._directory.organisations()
        if not organisations:
            await self.create_organisation(DEFAULT, "Default")
        elif all(row.slug != DEFAULT for row in organisations):
            return
        if not self._directory.groups_of(DEFAULT):  # one that somebody removed does not come back
            await self.create_group(DEFAULT, DEFAULT, "Default")
        groups = self._directory.groups(DEFAULT)
        if groups and not self._directory.environments(DEFAULT):
            await self.create_environment(DEFAULT, DEFAULT, "Default", target=groups[0].slug)

    # --- reading ----------------------------------------------------------------------------------------------------

    def group(self, organisation: str, group: str) -> GroupView:
        """One group."""
        return self._view(self._directory.group(organisation, group))

    def groups(self, organisation: str) -> list[GroupView]:
        """All groups of an organisation, in the order of their creation."""
        return [self._view(row) for row in self._directory.groups(organisation)]

    def agents(self, organisation: str, group: str = "") -> list[AgentView]:
        """Agents of a group, or of all private groups of the organisation, in the order of their creation."""
        if group:
            groups = [self.private_group(organisation, group)]
        else:
            groups = [row for row in self._directory.groups(organisation) if row.kind == PRIVATE]
        views = (self._agent_view(name) for row in groups for name in self._directory.agents(row.group_no))
        return [view for view in views if view is not None]

    def agent(self, organisation: str, group: str, agent_id: str) -> AgentView:
        """One agent of a group."""
        name = self._directory.agent(self.private_group(organisation, group).group_no, agent_id)
        view = None if name is None else self._agent_view(name)
        if view is None:
            full_name = agent_name(organisation, group, agent_id)
            raise NotFoundError(f"there is no {full_name}", resource=full_name)
        return view

    def private_group(self, organisation: str, group: str) -> GroupRow:
        """A group that the organisation's people may change. Raises WrongStateError for a managed one."""
        row = self._directory.group(organisation, group)
        if row.kind == MANAGED:
            raise managed(f"organizations/{organisation}/groups/{group}")
        return row

    def _agent_view(self, name: AgentName) -> AgentView | None:
        agent = self._engine.dispatcher(name.group_no).ledger.agents.get(name.agent_no)
        if agent is None or agent.admin is Admin.REMOVED:  # in this moment: the directory is told after the commit
            return None
        machine = self._directory.presence.machine(name.group_no, name.agent_no)
        return AgentView(name, agent_status(agent), agent, self._directory.agent_words(name), machine)

    def _view(self, row: GroupRow) -> GroupView:
        ledger = self._engine.dispatcher(row.group_no).ledger
        agents = [agent for agent in ledger.agents.values() if agent.admin is not Admin.REMOVED]
        statuses = {agent.no: agent_status(agent) for agent in agents}
        active = [agent for agent in agents if statuses[agent.no] is AgentStatus.ACTIVE]
        environments = tuple(self._directory.environments_of(row.group_no))
        running = sum(len(agent.live) for agent in ledger.agents.values())
        machines = [self._directory.presence.machine(row.group_no, agent.no) for agent in active]
        return GroupView(
            row,
            group_status(statuses.values()),
            len(active),
            len(agents),
            environments,
            len(ledger.jobs) - running,
            running,
            () if row.kind == MANAGED else warnings_of(machines, has_environment=bool(environments)),
        )


def agent_name(organisation: str, group: str, agent_id: str) -> str:
    """The resource name of an agent."""
    return f"organizations/{organisation}/groups/{group}/agents/{agent_id}"


def managed(name: str) -> WrongStateError:
    """The error for what only the mesh's operator may do."""
    text = f"{name} is managed: the operator of the mesh runs it, nobody else changes it or has agents in it"
    return WrongStateError(text, reason="GROUP_MANAGED", resource=name)


def _refuse_taken(name: str, *, is_taken: bool) -> None:
    if is_taken:
        raise ConflictError(f"{name} exists already: choose another id", resource=name)
