"""Removing organisations, environments and groups, and what goes with them.

A removal is durable first; from then on no name leads there, and the dispatcher ends what is left: agents are sent away
for good, live jobs end cancelled (`group_removed`). A broker that dies in between goes on with its next start
(`Removals.resume`). What a group had stays in the history under its number, its name is free;
`broker.control.tombstones` ends that in time.
"""

from collections.abc import Callable
from typing import NamedTuple

from broker.control.acts import ACTOR
from broker.control.directory import Directory
from broker.control.resources import GroupView, Resources, agent_name
from broker.dispatch.messages import GroupRemoval, GroupRemoveRequested
from broker.dispatch.model import GroupNo
from broker.engine import Engine
from broker.errors import WrongStateError
from broker.store.base import EnvironmentRow, GroupRow, OrganisationRow, Store


class Loss(NamedTuple):
    """What goes, or would go: names of groups, environments and agents, and how many live jobs are cancelled.

    Of an environment: the groups that none names any more. Of a group: the environments that go on without it.
    """

    groups: tuple[str, ...] = ()
    environments: tuple[str, ...] = ()
    agents: tuple[str, ...] = ()
    jobs: int = 0

    def __bool__(self) -> bool:
        return any(self)


class Removals:
    """What operators remove. All methods may raise NotFoundError and what `check` raises (see `edits`)."""

    def __init__(self, store: Store, engine: Engine, directory: Directory, resources: Resources) -> None:
        self._store = store
        self._engine = engine
        self._directory = directory
        self._resources = resources

    async def environment(
        self,
        organisation: str,
        environment: str,
        *,
        check: Callable[[EnvironmentRow], None],
        validate_only: bool = False,
    ) -> Loss:
        """Remove an environment; accepted jobs run on."""

        async def remove() -> Loss:
            row = self._directory.environment(organisation, environment)
            check(row)
            lonely = [number for number in row.group_nos if self._directory.environments_of(number) == [row]]
            if not validate_only:
                await self._store.remove_environment(row.environment_no)
                self._directory.remove_environment(row)
            return Loss(groups=tuple(map(self._directory.group_name, lonely)))

        return await self._resources.turn.carry_out(remove)

    async def group(
        self,
        organisation: str,
        group: str,
        *,
        check: Callable[[GroupView], None],
        force: bool = False,
        validate_only: bool = False,
    ) -> Loss:
        """Remove a private group. Raises WrongStateError for a managed one, and for one in use without `force`."""

        async def remove() -> Loss:
            row = self._resources.private_group(organisation, group)
            check(self._resources.group(organisation, group))
            loss = self._loss_of(organisation, row)
            if loss and not force:
                name = self._directory.group_name(row.group_no)
                raise WrongStateError(_in_use(name, loss), reason="GROUP_IN_USE", resource=name)
            if validate_only:
                return loss
            at_us = self._engine.clock.now_us()
            await self._store.remove_group(row.group_no, at_us)
            self._directory.remove_group(row, at_us)
            return loss._replace(jobs=await self._empty(row.group_no))

        return await self._resources.turn.carry_out(remove)

    async def organisation(
        self,
        organisation: str,
        *,
        check: Callable[[OrganisationRow], None],
        force: bool = False,
        validate_only: bool = False,
    ) -> Loss:
        """Remove an organisation with all that it has. Raises WrongStateError for one in use without `force`."""

        async def remove() -> Loss:
            row = self._directory.organisation(organisation)
            check(row)
            groups = self._directory.groups(organisation)
            loss = self._loss_of_all(organisation, groups)
            if loss and not force:
                name = f"organizations/{organisation}"
                raise WrongStateError(_in_use(name, loss), reason="ORGANIZATION_IN_USE", resource=name)
            if validate_only:
                return loss
            at_us = self._engine.clock.now_us()
            await self._store.remove_organisation(row.org_no, at_us)
            self._directory.remove_organisation(row, at_us)
            return loss._replace(jobs=sum([await self._empty(one.group_no) for one in groups]))

        return await self._resources.turn.carry_out(remove)

    async def resume(self) -> None:
        """Go on with the removals that the last broker could not end. Call once after a start."""
        for row in self._directory.removed_groups():
            if self._engine.dispatcher_of(row.group_no) is not None:
                await self._empty(row.group_no)

    async def _empty(self, group_no: GroupNo) -> int:
        """Have the dispatcher end what the group has; how many jobs that are."""
        reply = await self._engine.ask(group_no, lambda ticket: GroupRemoveRequested(ticket, ACTOR))
        assert isinstance(reply, GroupRemoval), f"a removal is never refused: {reply}"
        return reply.jobs

    def _loss_of(self, organisation: str, row: GroupRow) -> Loss:
        agents = [agent_name(organisation, row.slug, agent.agent_id) for agent in self._directory.agents(row.group_no)]
        environments = [
            self._directory.environment_name(environment.environment_no)
            for environment in self._directory.environments_of(row.group_no)
        ]
        jobs = len(self._engine.dispatcher(row.group_no).ledger.jobs)
        return Loss((), tuple(environments), tuple(agents), jobs)

    def _loss_of_all(self, organisation: str, groups: list[GroupRow]) -> Loss:
        losses = [self._loss_of(organisation, row) for row in groups]
        environments = [row.environment_no for row in self._directory.environments(organisation)]
        return Loss(
            tuple(self._directory.group_name(row.group_no) for row in groups),
            tuple(map(self._directory.environment_name, environments)),
            tuple(agent for loss in losses for agent in loss.agents),
            sum(loss.jobs for loss in losses),
        )


def _in_use(name: str, loss: Loss) -> str:
    numbers = {
        "group": len(loss.groups),
        "environment": len(loss.environments),
        "agent": len(loss.agents),
        "live job": loss.jobs,
    }
    has = ", ".join(f"{number} {noun}{'s' * (number > 1)}" for noun, number in numbers.items() if number)
    return f"{name} is in use ({has}): say `force` to remove all of it"
