"""Changing organisations, environments and groups: their words, and how a group treats its jobs.

A change is a tuple of new values, None for what stays. `check` is called with what is there when the change has its
turn and raises ChangedError if the caller has read something older: of two that read the same, one wins. With
`validate_only` the answer is what would come of it.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from broker.control.directory import Directory
from broker.control.names import check_display_name
from broker.control.resources import GroupView, Resources
from broker.dispatch.model import GroupNo
from broker.errors import MalformedError
from broker.store.base import EnvironmentRow, GroupRow, OrganisationRow, Store

RowT = TypeVar("RowT", OrganisationRow, GroupRow, EnvironmentRow)


class OrganisationChange(NamedTuple):
    """A display name that is "" is the id."""

    display_name: str | None = None
    description: str | None = None


class GroupChange(NamedTuple):
    """A display name that is "" is the id. From `placing` on "" and 0 are the broker's setting.

    A `prefetch` below 0 is each agent's own.
    """

    display_name: str | None = None
    description: str | None = None
    central_logging: bool | None = None
    mode: str | None = None
    inactive_jobs: str | None = None
    placing: str | None = None
    placing_choices: int | None = None
    attempts_max: int | None = None
    backoff_first_us: int | None = None
    backoff_max_us: int | None = None
    cancel_grace_us: int | None = None
    queue_jobs_max: int | None = None
    queue_bytes_max: int | None = None
    prefetch: float | None = None


class EnvironmentChange(NamedTuple):
    """`target` is the id of a group, "" is none, and counts as one of `groups`."""

    display_name: str | None = None
    description: str | None = None
    target: str | None = None
    groups: Sequence[str] | None = None


class Edits:
    """What operators change. All methods may raise NotFoundError, MalformedError and what `check` raises."""

    def __init__(self, store: Store, directory: Directory, resources: Resources) -> None:
        self._store = store
        self._directory = directory
        self._resources = resources

    async def organisation(
        self,
        organisation: str,
        change: OrganisationChange,
        *,
        check: Callable[[OrganisationRow], None],
        validate_only: bool = False,
    ) -> OrganisationRow:
        """Change what people read of an organisation."""

        async def edit() -> OrganisationRow:
            row = self._directory.organisation(organisation)
            check(row)
            row = _changed(row, change._asdict())
            if not validate_only:
                await self._store.update_organisation(row)
                self._directory.add_organisation(row)
            return row

        return await self._resources.turn.carry_out(edit)

    async def group(
        self,
        organisation: str,
        group: str,
        change: GroupChange,
        *,
        check: Callable[[GroupView], None],
        validate_only: bool = False,
    ) -> GroupView:
        """Change a private group. Raises WrongStateError for a managed one."""
        check_display_name(change.display_name or "", "group.display_name")

        async def edit() -> GroupView:
            old = self._resources.private_group(organisation, group)
            view = self._resources.group(organisation, group)
            check(view)
            row = _changed(old, change._asdict())
            if (change.backoff_first_us, change.backoff_max_us) != (None, None):  # what stays was checked when it came
                self._resources.check_backoff(row)
            if validate_only:
                return view._replace(row=row)
            await self._store.update_group(row)
            self._directory.add_group(row)
            await self._resources.configure(row)
            return self._resources.group(organisation, group)

        return await self._resources.turn.carry_out(edit)

    async def environment(
        self,
        organisation: str,
        environment: str,
        change: EnvironmentChange,
        *,
        check: Callable[[EnvironmentRow], None],
        validate_only: bool = False,
    ) -> EnvironmentRow:
        """Change an environment. Accepted jobs stay in the group that has them."""
        check_display_name(change.display_name or "", "environment.display_name")

        async def edit() -> EnvironmentRow:
            row = self._directory.environment(organisation, environment)
            check(row)
            words = {"display_name": change.display_name, "description": change.description}
            row = self._led(organisation, _changed(row, words), change)
            if not validate_only:
                await self._store.update_environment(row)
                self._directory.add_environment(row)
            return row

        return await self._resources.turn.carry_out(edit)

    def _led(self, organisation: str, row: EnvironmentRow, change: EnvironmentChange) -> EnvironmentRow:
        """The environment with the groups that it is to have."""
        target_no, group_nos = row.target_group_no, row.group_nos
        if change.groups is not None:
            named = [self._directory.group(organisation, group).group_no for group in change.groups]
            group_nos = tuple(dict.fromkeys(named))
        if change.target is not None:
            target_no = self._directory.group(organisation, change.target).group_no if change.target else GroupNo(0)
        if target_no and target_no not in group_nos:
            if change.target is None:
                name = self._directory.group_name(target_no)
                text = f"{name} runs what is sent to this environment: name another target first, or leave it in"
                raise MalformedError(text, reason="TARGET_LEFT_OUT", field="environment.groups")
            group_nos = (*group_nos, target_no)
        return row._replace(target_group_no=target_no, group_nos=group_nos)


def _changed(row: RowT, values: dict[str, Any]) -> RowT:
    """The row with the values that are given."""
    given = {name: value for name, value in values.items() if value is not None}
    if given.get("display_name") == "":
        given["display_name"] = row.slug
    return row._replace(**given)
