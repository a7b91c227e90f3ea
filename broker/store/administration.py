"""Organisations, agent groups and environments: few rows that people make. Each insert is a transaction of its own."""

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, Table, insert, select

from broker.dispatch.model import GroupNo
from broker.errors import ConflictError, NotFoundError
from broker.store import schema
from broker.store.base import EnvironmentRow, GroupRow, OrganisationRow

_ORGANISATION = schema.organisation
_GROUP = schema.agent_group
_ENVIRONMENT = schema.environment
_MEMBER = schema.environment_group


def organisations(connection: Connection) -> list[OrganisationRow]:
    """All organisations, in the order in which they were made."""
    return [OrganisationRow._make(row) for row in connection.execute(select(_ORGANISATION).order_by("org_no"))]


def groups(connection: Connection) -> list[GroupRow]:
    """All agent groups of all organisations, in the order in which they were made."""
    return [GroupRow._make(row) for row in connection.execute(select(_GROUP).order_by("group_no"))]


def environments(connection: Connection) -> list[EnvironmentRow]:
    """All environments of all organisations, in the order in which they were made."""
    members: defaultdict[int, list[GroupNo]] = defaultdict(list)
    for member in connection.execute(select(_MEMBER).order_by("environment_no", "place")):
        members[member.environment_no].append(member.group_no)
    rows = connection.execute(select(_ENVIRONMENT).order_by("environment_no"))
    return [_environment(row._asdict(), tuple(members[row.environment_no])) for row in rows]


def insert_organisation(connection: Connection, row: OrganisationRow) -> OrganisationRow:
    """Store the row under the next number; its own is ignored. ConflictError if the slug is taken."""
    if connection.scalar(select(_ORGANISATION.c.org_no).where(_ORGANISATION.c.slug == row.slug)) is not None:
        raise _taken("organisation", row.slug)
    return row._replace(org_no=_add(connection, _ORGANISATION, row._asdict(), "org_no"))


def insert_group(connection: Connection, row: GroupRow) -> GroupRow:
    """Store the row under the next number, with epoch 0. ConflictError if the slug is taken in the organisation."""
    _find_organisation(connection, row.org_no)
    _refuse_taken(connection, _GROUP, row.org_no, row.slug)
    group_no = GroupNo(_add(connection, _GROUP, row._asdict(), "group_no"))
    connection.execute(insert(schema.group_epoch).values(group_no=group_no, epoch=0, acceptance_no=0))
    return row._replace(group_no=group_no)


def insert_environment(connection: Connection, row: EnvironmentRow) -> EnvironmentRow:
    """Store the row under the next number. ConflictError if the slug is taken in the organisation.

    NotFoundError for groups that are not the organisation's.
    """
    _find_organisation(connection, row.org_no)
    _refuse_taken(connection, _ENVIRONMENT, row.org_no, row.slug)
    _find_groups(connection, row)
    values = row._asdict()
    group_nos = values.pop("group_nos")
    environment_no = _add(connection, _ENVIRONMENT, values, "environment_no")
    for place, group_no in enumerate(group_nos):
        connection.execute(insert(_MEMBER).values(environment_no=environment_no, group_no=group_no, place=place))
    return row._replace(environment_no=environment_no)


def _environment(columns: dict[str, Any], group_nos: tuple[GroupNo, ...]) -> EnvironmentRow:
    return EnvironmentRow(**columns, group_nos=group_nos)


def _add(connection: Connection, table: Table, values: dict[str, object], number: str) -> int:
    del values[number]
    made = connection.scalar(insert(table).values(values).returning(table.c[number]))
    assert isinstance(made, int)
    return made


def _find_organisation(connection: Connection, org_no: int) -> None:
    if connection.scalar(select(_ORGANISATION.c.org_no).where(_ORGANISATION.c.org_no == org_no)) is None:
        raise NotFoundError(f"there is no organisation number {org_no}", org_no=str(org_no))


def _find_groups(connection: Connection, row: EnvironmentRow) -> None:
    named = {*row.group_nos, row.target_group_no} - {0}
    rows = connection.scalars(select(_GROUP.c.group_no).where(_GROUP.c.org_no == row.org_no))
    missing = sorted(named - set(rows))
    if missing:
        raise NotFoundError(f"the organisation has no agent group number {missing[0]}", group_no=str(missing[0]))


def _refuse_taken(connection: Connection, table: Table, org_no: int, slug: str) -> None:
    taken = select(table.c.slug).where(table.c.org_no == org_no, table.c.slug == slug)
    if connection.scalar(taken) is not None:
        raise _taken(table.name.replace("_", " "), slug)


def _taken(kind: str, slug: str) -> ConflictError:
    return ConflictError(f"the {kind} {slug!r} exists already: choose another id", slug=slug)
