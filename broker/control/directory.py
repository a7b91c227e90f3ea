"""Who is who: organisations, groups, environments and agents between the names of people and the numbers inside.

The read side of administration, whole in memory: loaded once from the store, then told of each change by
`broker.control.resources`. What belongs to somebody else is answered exactly like what does not exist.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from broker.control import quotas
from broker.control.names import split_parent
from broker.control.presence import Presence
from broker.dispatch.messages import AgentAdded
from broker.dispatch.model import Admin, AgentNo, GroupNo
from broker.dispatch.rows import RequestRow
from broker.engine import Engine
from broker.errors import ConflictError, FullError, MalformedError, NotFoundError, WrongStateError
from broker.settings import PlanSettings
from broker.store.base import AgentWordsRow, EnvironmentRow, GroupRow, OrganisationRow, Purged, Store

MANAGED: Final = "managed"
PRIVATE: Final = "private"


class Target(NamedTuple):
    """Where submitted jobs go. `environment_no` is 0 for jobs sent directly to a group."""

    org_no: int
    group_no: GroupNo
    environment_no: int


class AgentName(NamedTuple):
    """An agent: its number inside its group, and its id there."""

    group_no: GroupNo
    agent_no: AgentNo
    agent_id: str


class AgentTraits(NamedTuple):
    """What an operator says of an agent that is announced: see `AgentAdded`. The request gets the agent's number."""

    rank: int = 0
    labels: tuple[str, ...] = ()
    request: RequestRow | None = None


NO_TRAITS: Final = AgentTraits()


class Directory:
    """Names and numbers of everything that has both. Use from the engine's event loop only.

    A group knows at most `agents_max` agents, an organisation as many as its plan allows. `presence` has what agents
    said of their machines. What is removed keeps its number, for the history of its jobs, and is found by
    no name, until the store forgets it (`broker.control.tombstones`).
    """

    def __init__(
        self, store: Store, engine: Engine, agents_max: int, plan_of: Callable[[str], PlanSettings] | None = None
    ) -> None:
        self.presence = Presence()
        self._plan_of = plan_of or (lambda organisation: PlanSettings())
        self._store = store
        self._engine = engine
        self._agents_max = agents_max
        self._organisations: dict[str, OrganisationRow] = {}
        self._groups: dict[tuple[int, str], GroupRow] = {}
        self._groups_by_no: dict[GroupNo, GroupRow] = {}
        self._group_nos: dict[int, list[GroupNo]] = {}  # by organisation, removed ones too
        self._environments: dict[tuple[int, str], EnvironmentRow] = {}
        self._environments_by_no: dict[int, EnvironmentRow] = {}
        self._naming: dict[GroupNo, set[int]] = {}  # numbers of the environments that name a group
        self._slugs: dict[int, str] = {}
        self._words: dict[tuple[GroupNo, AgentNo], AgentWordsRow] = {}
        self._agents: dict[GroupNo, dict[str, AgentNo]] = {}
        self._agent_ids: dict[tuple[GroupNo, AgentNo], str] = {}
        self._agent_nos: dict[tuple[GroupNo, str], list[AgentNo]] = {}  # of all that ever had the id
        self._making: defaultdict[GroupNo, dict[str, asyncio.Task[AgentNo]]] = defaultdict(dict)  # thousands at once
        self._last_agent_no: dict[GroupNo, AgentNo] = {}
        self._targets: dict[str, Target] = {}

    async def load(self) -> None:
        """Read everything. Call once, before anything is asked."""
        for organisation in await self._store.organisations():
            self.add_organisation(organisation)
        for group in await self._store.groups():
            self.add_group(group)
            for agent in (await self._store.group_state(group.group_no)).agents:
                self._add_agent(group.group_no, agent.agent_no, agent.agent_id)
                if agent.admin == Admin.REMOVED or group.removed_us:
                    self.remove_agent(AgentName(group.group_no, agent.agent_no, agent.agent_id))
        for environment in await self._store.environments():
            self.add_environment(environment)
        for words in await self._store.agent_words():
            self._words[words.group_no, words.agent_no] = words

    # --- what is asked on every request -----------------------------------------------------------------------------

    def target(self, parent: str) -> Target:
        """Where jobs for this group or environment go.

        Raises MalformedError for what is no such name, NotFoundError, and WrongStateError with reason
        ENVIRONMENT_WITHOUT_GROUP or GROUP_WITHOUT_ENVIRONMENT.
        """
        found = self._targets.get(parent)
        if found is None:
            found = self._targets[parent] = self._find_target(parent)
        return found

    def group(self, organisation: str, group: str) -> GroupRow:
        """A group by the ids in its name. Raises NotFoundError."""
        found = self._groups.get((self._org_no(organisation), group))
        if found is None:
            raise _unknown(f"organizations/{organisation}/groups/{group}")
        return found

    def groups_of(self, organisation: str) -> tuple[GroupNo, ...]:
        """Numbers of all groups that an organisation has or had: whose jobs it may see. Raises NotFoundError."""
        return tuple(self._group_nos.get(self._org_no(organisation), ()))

    def groups_named(self, organisation: str, group: str) -> tuple[GroupNo, ...]:
        """Numbers of all groups that have or had this id. Raises NotFoundError."""
        found = tuple(number for number in self.groups_of(organisation) if self._groups_by_no[number].slug == group)
        if not found:
            raise _unknown(f"organizations/{organisation}/groups/{group}")
        return found

    def agent_nos(self, group_no: GroupNo, agent_id: str) -> tuple[AgentNo, ...]:
        """Numbers of all agents of a group that have or had this id."""
        return tuple(self._agent_nos.get((group_no, agent_id), ()))

    def agent(self, group_no: GroupNo, agent_id: str) -> AgentName | None:
        """An agent of a group by its id."""
        agent_no = self._agents[group_no].get(agent_id)
        return None if agent_no is None else AgentName(group_no, agent_no, agent_id)

    async def ensure_agent(self, group_no: GroupNo, agent_id: str, *, announced: AgentTraits | None = None) -> AgentNo:
        """The number of an agent, which is made if there is none; durable on return. Concurrent calls make one.

        An agent that was removed keeps its number, under which the dispatcher refuses it, until somebody announces one
        of the same name (`announced`): that is another agent.
        """
        known = self._agents[group_no].get(agent_id)
        if known is None and announced is None:
            known = next(reversed(self._agent_nos.get((group_no, agent_id), ())), None)
        if known is not None:
            return known
        making = self._making[group_no].get(agent_id)
        if making is not None and announced is not None:  # it connects at this moment: what is said of it came too late
            await asyncio.shield(making)
            name = f"{self.group_name(group_no)}/agents/{agent_id}"
            raise ConflictError(f"{name} exists already: it has just connected", resource=name)
        if making is None:
            self.refuse_full(group_no)
            work = self._make_agent(group_no, agent_id, announced or NO_TRAITS)
            making = asyncio.create_task(work, name=f"make-agent-{agent_id}")
            self._making[group_no][agent_id] = making
        # The one who asked first may go away: the others still get their answer.
        return await asyncio.shield(making)

    def organisation_numbered(self, org_no: int) -> OrganisationRow | None:
        """An organisation by its number; None if it is removed."""
        row = self._organisations.get(self._slugs.get(org_no, ""))
        return row if row is not None and row.org_no == org_no else None

    def group_numbered(self, group_no: GroupNo) -> GroupRow | None:
        """A group by its number; None if it is removed."""
        row = self._groups_by_no.get(group_no)
        return None if row is None or row.removed_us else row

    def group_row(self, group_no: GroupNo) -> GroupRow:
        """The row of a group by its number, of a removed one too."""
        return self._groups_by_no[group_no]

    def environment_numbered(self, environment_no: int) -> EnvironmentRow | None:
        """An environment by its number; None if it is removed."""
        return self._environments_by_no.get(environment_no)

    def agent_numbered(self, group_no: GroupNo, agent_no: AgentNo) -> AgentName | None:
        """An agent by its number; None if it, or its group, is removed."""
        found = self.agent(group_no, self.agent_id(group_no, agent_no)) if group_no in self._agents else None
        return found if found is not None and found.agent_no == agent_no else None

    # --- rows and names ---------------------------------------------------------------------------------------------

    def organisation(self, organisation: str) -> OrganisationRow:
        """An organisation by its id. Raises NotFoundError."""
        found = self._organisations.get(organisation)
        if found is None:
            raise _unknown(f"organizations/{organisation}")
        return found

    def environment(self, organisation: str, environment: str) -> EnvironmentRow:
        """An environment by the ids in its name. Raises NotFoundError."""
        found = self._environments.get((self._org_no(organisation), environment))
        if found is None:
            raise _unknown(f"organizations/{organisation}/environments/{environment}")
        return found

    def organisations(self) -> list[OrganisationRow]:
        """All of them, in the order of their creation."""
        return list(self._organisations.values())

    def groups(self, organisation: str) -> list[GroupRow]:
        """All groups of an organisation, in the order of their creation. Raises NotFoundError."""
        rows = (self._groups_by_no[group_no] for group_no in self.groups_of(organisation))
        return [row for row in rows if not row.removed_us]

    def removed_groups(self) -> list[GroupRow]:
        """Groups of all organisations that are removed; their jobs may still have to end."""
        return [row for row in self._groups_by_no.values() if row.removed_us]

    def plan(self, organisation: str) -> PlanSettings:
        """What the organisation may have."""
        return self._plan_of(organisation)

    def private_groups(self, organisation: str) -> int:
        """How many groups count against the plan."""
        return sum(row.kind == PRIVATE for row in self.groups(organisation))

    def private_agents(self, organisation: str) -> int:
        """How many agents count against the plan, those included that are being made."""
        mine = (row.group_no for row in self.groups(organisation) if row.kind == PRIVATE)
        return sum(map(self._agents_of, mine))

    def environments(self, organisation: str) -> list[EnvironmentRow]:
        """All environments of an organisation, in the order of their creation. Raises NotFoundError."""
        org_no = self._org_no(organisation)
        return [row for row in self._environments_by_no.values() if row.org_no == org_no]

    def environments_of(self, group_no: GroupNo) -> list[EnvironmentRow]:
        """Environments that name this group, as their target or besides."""
        return [self._environments_by_no[number] for number in sorted(self._naming.get(group_no, ()))]

    def agents(self, group_no: GroupNo) -> Iterator[AgentName]:
        """All agents of a group, in the order of their creation."""
        for agent_id, agent_no in self._agents[group_no].items():
            yield AgentName(group_no, agent_no, agent_id)

    def group_name(self, group_no: GroupNo) -> str:
        """`organizations/o/groups/g`."""
        row = self._groups_by_no[group_no]
        return f"organizations/{self._slugs[row.org_no]}/groups/{row.slug}"

    def environment_name(self, environment_no: int) -> str:
        """`organizations/o/environments/e`; "" for 0 and for one that is gone."""
        row = self._environments_by_no.get(environment_no)
        return "" if row is None else f"organizations/{self._slugs[row.org_no]}/environments/{row.slug}"

    def group_label(self, group_no: GroupNo) -> str:
        """`organisation/group`: how metrics name a group. One that is removed leaves its name to others."""
        row = self._groups_by_no.get(group_no)
        is_there = row is not None and not row.removed_us
        return f"{self._slugs[row.org_no]}/{row.slug}" if row is not None and is_there else f"number-{group_no}"

    def agent_id(self, group_no: GroupNo, agent_no: AgentNo) -> str:
        """The id of an agent by its number; "" for 0 and for one that is gone."""
        return self._agent_ids.get((group_no, agent_no), "")

    def has_words(self, name: AgentName) -> bool:
        """Whether somebody has said what an agent is called."""
        return (name.group_no, name.agent_no) in self._words

    def agent_words(self, name: AgentName) -> AgentWordsRow:
        """What people call an agent: its id, if nobody has said anything else."""
        found = self._words.get((name.group_no, name.agent_no))
        return found or AgentWordsRow(name.group_no, name.agent_no, name.agent_id, "")

    # --- changes, told after they are durable -----------------------------------------------------------------------

    def add_organisation(self, row: OrganisationRow) -> None:
        """There is a new organisation, or one with other words."""
        self._slugs[row.org_no] = row.slug
        if not row.removed_us:
            self._organisations[row.slug] = row

    def add_group(self, row: GroupRow) -> None:
        """There is a new group, or one that was changed."""
        if row.group_no not in self._groups_by_no:
            self._group_nos.setdefault(row.org_no, []).append(row.group_no)
            self._agents[row.group_no] = {}
        self._groups_by_no[row.group_no] = row
        if not row.removed_us:
            self._groups[row.org_no, row.slug] = row
        self._targets.clear()

    def remove_organisation(self, row: OrganisationRow, at_us: int) -> None:
        """An organisation is no more, with all that it had."""
        for environment in self.environments(row.slug):
            self.remove_environment(environment)
        for group in self.groups(row.slug):
            self.remove_group(group, at_us)
        del self._organisations[row.slug]

    def remove_group(self, row: GroupRow, at_us: int) -> None:
        """A group is no more; environments that named it go on without it."""
        self._groups_by_no[row.group_no] = row._replace(removed_us=at_us)
        self._agents[row.group_no].clear()
        del self._groups[row.org_no, row.slug]
        for environment in self.environments_of(row.group_no):
            others = tuple(number for number in environment.group_nos if number != row.group_no)
            is_target = environment.target_group_no == row.group_no
            target_no = GroupNo(0) if is_target else environment.target_group_no
            self.add_environment(environment._replace(group_nos=others, target_group_no=target_no))
        self._targets.clear()

    def remove_environment(self, row: EnvironmentRow) -> None:
        """An environment is no more."""
        self._forget_naming(row.environment_no)
        del self._environments[row.org_no, row.slug]
        del self._environments_by_no[row.environment_no]
        self._targets.clear()

    async def put_agent_words(self, row: AgentWordsRow) -> None:
        """People call an agent otherwise; durable on return."""
        await self._store.put_agent_words(row)
        self._words[row.group_no, row.agent_no] = row

    def add_environment(self, row: EnvironmentRow) -> None:
        """There is a new environment, or one that was changed."""
        self._forget_naming(row.environment_no)
        self._environments[row.org_no, row.slug] = row
        self._environments_by_no[row.environment_no] = row
        for group_no in {*row.group_nos, row.target_group_no}:
            self._naming.setdefault(group_no, set()).add(row.environment_no)
        self._targets.clear()

    def remove_agent(self, name: AgentName) -> None:
        """An agent is no longer in its group. Its jobs still say who ran them; its number is its own while they do."""
        if self._agents[name.group_no].get(name.agent_id) == name.agent_no:
            del self._agents[name.group_no][name.agent_id]

    def forget(self, gone: Purged) -> None:
        """Nobody knows them any more, not even by number."""
        for group_no, agent_no in gone.agents:
            self._forget_agent(group_no, agent_no)
        for group_no in gone.groups:
            self._forget_group(group_no)
        for org_no in gone.organisations:
            self._slugs.pop(org_no, None)
            self._group_nos.pop(org_no, None)

    def _forget_group(self, group_no: GroupNo) -> None:
        row = self._groups_by_no.pop(group_no)
        self._group_nos[row.org_no].remove(group_no)
        del self._agents[group_no]
        self._last_agent_no.pop(group_no, None)
        self._naming.pop(group_no, None)
        for _, agent_no in [known for known in self._agent_ids if known[0] == group_no]:
            self._forget_agent(group_no, agent_no)

    def _forget_agent(self, group_no: GroupNo, agent_no: AgentNo) -> None:
        agent_id = self._agent_ids.pop((group_no, agent_no), "")
        others = [number for number in self._agent_nos.pop((group_no, agent_id), ()) if number != agent_no]
        if others:
            self._agent_nos[group_no, agent_id] = others
        self._words.pop((group_no, agent_no), None)
        self.presence.forget(group_no, agent_no)

    def _add_agent(self, group_no: GroupNo, agent_no: AgentNo, agent_id: str) -> None:
        self._agent_nos.setdefault((group_no, agent_id), []).append(agent_no)
        self._agents[group_no][agent_id] = agent_no
        self._agent_ids[group_no, agent_no] = agent_id
        self._last_agent_no[group_no] = max(agent_no, self._last_agent_no.get(group_no, AgentNo(0)))

    # --- inside -----------------------------------------------------------------------------------------------------

    def _agents_of(self, group_no: GroupNo) -> int:
        """How many the group has, with those that are being made."""
        return len(self._agents[group_no]) + len(self._making[group_no])

    def _org_no(self, organisation: str) -> int:
        return self.organisation(organisation).org_no

    def _forget_naming(self, environment_no: int) -> None:
        row = self._environments_by_no.get(environment_no)
        for group_no in {*row.group_nos, row.target_group_no} if row is not None else ():
            self._naming[group_no].discard(environment_no)

    def _find_target(self, parent: str) -> Target:
        organisation, kind, name = split_parent(parent)
        if kind == "environments":
            return self._target_of_environment(parent, self.environment(organisation, name))
        if kind == "groups":
            return self._target_of_group(parent, self.group(organisation, name))
        raise MalformedError(
            f"{parent!r} is an organization: jobs go to one of its groups or environments",
            reason="MALFORMED_NAME",
            field="parent",
        )

    def _target_of_environment(self, parent: str, row: EnvironmentRow) -> Target:
        if not row.target_group_no:
            text = f"{parent} has no target group; nothing runs in it before it has one"
            raise WrongStateError(text, reason="ENVIRONMENT_WITHOUT_GROUP", resource=parent)
        return Target(row.org_no, row.target_group_no, row.environment_no)

    def _target_of_group(self, parent: str, row: GroupRow) -> Target:
        if not self.environments_of(row.group_no):
            text = f"no environment names {parent}; nothing runs in it before one does"
            raise WrongStateError(text, reason="GROUP_WITHOUT_ENVIRONMENT", resource=parent)
        return Target(row.org_no, row.group_no, 0)

    def refuse_full(self, group_no: GroupNo) -> None:
        """Raise FullError unless the group and the organisation's plan have room for one more agent."""
        if self._agents_of(group_no) >= self._agents_max:
            name = self.group_name(group_no)
            text = f"{name} knows {self._agents_max} agents, which is its limit (limits.agents_max); remove one first"
            raise FullError(text, reason="AGENTS_FULL", subject=name)
        row = self._groups_by_no[group_no]
        if row.kind == PRIVATE:
            organisation = self._slugs[row.org_no]
            quotas.refuse_agent(organisation, self.plan(organisation), self.private_agents(organisation))

    async def _make_agent(self, group_no: GroupNo, agent_id: str, traits: AgentTraits) -> AgentNo:
        agent_no = AgentNo(self._last_agent_no.get(group_no, 0) + 1)
        self._last_agent_no[group_no] = agent_no
        try:
            made = None if traits.request is None else traits.request._replace(number=agent_no)
            await self._engine.ask(
                group_no, lambda ticket: AgentAdded(ticket, agent_no, agent_id, traits.rank, traits.labels, made)
            )
            self._add_agent(group_no, agent_no, agent_id)
        finally:
            del self._making[group_no][agent_id]
        return agent_no


def _unknown(name: str) -> NotFoundError:
    return NotFoundError(f"there is no {name}", resource=name)
