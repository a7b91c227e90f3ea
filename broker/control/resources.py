"""Making and reading organisations, groups, environments and agents: the use-cases of operators.

Shared by the rpc layer and, later, the console. Each change is durable before the directory knows it and before it is
answered, and is carried out once it has begun (`broker.control.turn`). Changing is in `broker.control.edits`, removing
in `removals`, what else operators do with agents in `acts`. Managed groups are the business of the mesh's operator:
whoever comes by these ways may see that they are there, and nothing else.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeVar

from broker.control import policies, quotas
from broker.control.directory import MANAGED, NO_TRAITS, PRIVATE, AgentName, AgentTraits, Directory
from broker.control.lint import GroupWarning, warnings_of
from broker.control.names import check_display_name, chosen_slug
from broker.control.presence import UNKNOWN, Machine, Stuck
from broker.control.requests import ANONYMOUS, Asked, Requests, gone
from broker.control.status import AgentStatus, GroupStatus, agent_status, group_status
from broker.control.turn import Turn
from broker.dispatch.messages import GroupConfigured
from broker.dispatch.model import NO_AGENT, Admin, Agent, AgentNo, GroupNo, OperationPolicy, Placing, Spread
from broker.engine import Engine
from broker.errors import ConflictError, NotFoundError, WrongStateError
from broker.settings import LimitSettings
from broker.store.base import AgentWordsRow, EnvironmentRow, GroupRow, GroupRules, OrganisationRow, Store

REFUSE: Final = "refuse"
WAIT: Final = "wait"
UNSAID: Final = GroupRules("", WAIT)
"""How a group treats its jobs of whom nobody said anything: as the broker's settings have it."""
OF_THE_MESH: Final = 0
"""In the place of an organisation's number: requests for organisations are nobody's."""
DEFAULT: Final = "default"
"""The organisation, group and environment that `--dev` makes at the first start."""


T = TypeVar("T")


class AgentView(NamedTuple):
    """An agent as people see it."""

    name: AgentName
    status: AgentStatus
    agent: Agent
    words: AgentWordsRow
    machine: Machine = UNKNOWN
    stuck: Stuck = frozenset()


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
    """What operators make and read. All methods may raise NotFoundError for the names they are given.

    `default` is how the broker's settings have jobs treated.
    """

    def __init__(
        self, store: Store, engine: Engine, directory: Directory, limits: LimitSettings, default: OperationPolicy
    ) -> None:
        self._store = store
        self._engine = engine
        self._directory = directory
        self._default = default
        self._requests = Requests(store, engine)
        self.turn = Turn(limits.changes_waiting_max)

    # --- making -----------------------------------------------------------------------------------------------------

    async def create_organisation(
        self,
        slug: str,
        display_name: str,
        *,
        description: str = "",
        asked: Asked = ANONYMOUS,
    ) -> OrganisationRow:
        """Make an organisation. Raises ConflictError if the id is taken, MalformedError.

        A request that was `asked` before is answered with what it made; so are the others.
        """
        slug = chosen_slug(slug, display_name, "organization_id")

        async def create() -> OrganisationRow:
            known = await self._requests.known(OF_THE_MESH, asked)
            if known is not None:
                return _still_there(self._directory.organisation_numbered(known.number), asked)
            taken = {row.slug for row in self._directory.organisations()}
            _refuse_taken(f"organizations/{slug}", is_taken=slug in taken)
            now_us = self._engine.clock.now_us()
            if asked.validate_only:
                return OrganisationRow(0, slug, display_name or slug, now_us, description)
            made = self._requests.row(OF_THE_MESH, asked, "organisation")
            row = await self._store.insert_organisation(
                slug, display_name or slug, now_us, description=description, request=made
            )
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
        asked: Asked = ANONYMOUS,
    ) -> GroupView:
        """Make a group and drive it from now on. A mode that is "" is the broker's setting.

        Central logging is on unless switched off here, and always for managed groups. Raises FullError at the plan's
        limit, MalformedError for a first wait before a retry that is above the largest.
        """
        check_display_name(display_name, "group.display_name")
        slug = chosen_slug(slug, display_name, "group_id")
        name = display_name or slug
        rules = rules._replace(mode=rules.mode or self._engine.policy.spread)
        is_logging = central_logging or kind == MANAGED

        async def create() -> GroupView:
            org_no = self._directory.organisation(organisation).org_no
            known = await self._requests.known(org_no, asked)
            if known is not None:
                return self._view(_still_there(self._directory.group_numbered(GroupNo(known.number)), asked))
            taken = {row.slug for row in self._directory.groups(organisation)}
            _refuse_taken(f"organizations/{organisation}/groups/{slug}", is_taken=slug in taken)
            if kind == PRIVATE:
                current = self._directory.private_groups(organisation)
                quotas.refuse_group(organisation, self._directory.plan(organisation), current)
            now_us = self._engine.clock.now_us()
            row = GroupRow(GroupNo(0), org_no, slug, name, description, kind, is_logging, now_us, *rules)
            self.check_backoff(row)
            if asked.validate_only:
                return GroupView(row)
            row = await self._store.insert_group(row, self._requests.row(org_no, asked, "group"))
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
        asked: Asked = ANONYMOUS,
    ) -> EnvironmentRow:
        """Make an environment. `target` (a group's id) takes its jobs and counts as one of `groups`."""
        check_display_name(display_name, "environment.display_name")
        slug = chosen_slug(slug, display_name, "environment_id")
        name = display_name or slug

        async def create() -> EnvironmentRow:
            org_no = self._directory.organisation(organisation).org_no
            known = await self._requests.known(org_no, asked)
            if known is not None:
                return _still_there(self._directory.environment_numbered(known.number), asked)
            taken = {row.slug for row in self._directory.environments(organisation)}
            _refuse_taken(f"organizations/{organisation}/environments/{slug}", is_taken=slug in taken)
            target_no = self._directory.group(organisation, target).group_no if target else GroupNo(0)
            named = [self._directory.group(organisation, group).group_no for group in groups]
            group_nos = tuple(dict.fromkeys([*named, target_no] if target_no else named))
            now_us = self._engine.clock.now_us()
            if asked.validate_only:
                return EnvironmentRow(0, org_no, slug, name, description, target_no, group_nos, now_us)
            made = self._requests.row(org_no, asked, "environment")
            row = await self._store.insert_environment(
                org_no, slug, name, description, target_no, group_nos, now_us, request=made
            )
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
        traits: AgentTraits = NO_TRAITS,
        asked: Asked = ANONYMOUS,
    ) -> AgentView:
        """Announce an agent: it awaits its set-up until it connects. Raises ConflictError if the id is taken.

        Raises FullError at the limit of the group or of the plan.
        """
        agent_id = chosen_slug(agent_id, display_name, "agent_id")

        async def create() -> AgentView:
            row = self.private_group(organisation, group)
            known = await self._requests.known(row.org_no, asked)
            if known is not None:
                number = _still_there(self._directory.agent_numbered(known.group_no, AgentNo(known.number)), asked)
            else:
                is_taken = self._directory.agent(row.group_no, agent_id) is not None
                _refuse_taken(agent_name(organisation, group, agent_id), is_taken=is_taken)
                if asked.validate_only:
                    self._directory.refuse_full(row.group_no)
                    return _announced(row.group_no, agent_id, display_name, description, traits)
                made = self._requests.row(row.org_no, asked, "agent", row.group_no)
                wanted = traits._replace(request=made)
                agent_no = await self._directory.ensure_agent(row.group_no, agent_id, announced=wanted)
                number = AgentName(row.group_no, agent_no, agent_id)
            if not self._directory.has_words(number) and (display_name not in ("", agent_id) or description):
                words = AgentWordsRow(number.group_no, number.agent_no, display_name or agent_id, description)
                await self._directory.put_agent_words(words)
            return self.agent(organisation, group, number.agent_id)

        return await self.turn.carry_out(create)

    def check_backoff(self, row: GroupRow) -> None:
        """Raise MalformedError if retries of the group would begin with a longer wait than they may ever have."""
        policies.check_backoff(self._default, row)

    async def configure(self, row: GroupRow) -> None:
        """Have the dispatcher treat jobs of the group as its row says; it forgets that with each start."""
        default, policy = self._engine.policy, self._engine.dispatcher(row.group_no).ledger.policy
        wanted = replace(
            policy,
            spread=Spread(row.mode),
            refuses_inactive=row.inactive_jobs == REFUSE,
            placing=Placing(row.placing or default.placing),
            placing_choices=row.placing_choices or default.placing_choices,
            prefetch=row.prefetch,
            queue_jobs_max=row.queue_jobs_max or default.queue_jobs_max,
            queue_bytes_max=row.queue_bytes_max or default.queue_bytes_max,
        )
        if wanted != policy:
            await self._engine.ask(
                row.group_no,
                lambda ticket: GroupConfigured(
                    ticket,
                    wanted.spread,
                    wanted.refuses_inactive,
                    wanted.placing,
                    wanted.placing_choices,
                    wanted.prefetch,
                    wanted.queue_jobs_max,
                    wanted.queue_bytes_max,
                ),
            )

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
        stuck = self._directory.presence.stuck(agent.session)
        return AgentView(name, agent_status(agent), agent, self._directory.agent_words(name), machine, stuck)

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


def _announced(group_no: GroupNo, agent_id: str, display_name: str, description: str, traits: AgentTraits) -> AgentView:
    """An agent as it would be."""
    agent = Agent(NO_AGENT, agent_id, rank=traits.rank, operator_labels=frozenset(traits.labels))
    agent.relabel()
    words = AgentWordsRow(group_no, agent.no, display_name or agent_id, description)
    return AgentView(AgentName(group_no, agent.no, agent_id), agent_status(agent), agent, words)


def _still_there(made: T | None, asked: Asked) -> T:
    if made is None:
        raise gone(asked)
    return made


def _refuse_taken(name: str, *, is_taken: bool) -> None:
    if is_taken:
        raise ConflictError(f"{name} exists already: choose another id", resource=name)
