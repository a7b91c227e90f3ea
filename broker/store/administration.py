"""Organisations, agent groups and environments: few rows that people make. Each change is a transaction of its own."""

from collections import defaultdict
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, select, update

from broker.dispatch.model import GroupNo
from broker.dispatch.rows import RequestRow
from broker.errors import ConflictError, NotFoundError
from broker.store import requests, schema
from broker.store.base import AgentWordsRow, EnvironmentRow, GroupRow, OrganisationRow

_ORGANISATION = schema.organisation
_GROUP = schema.agent_group
_ENVIRONMENT = schema.environment
_MEMBER = schema.environment_group
_WORDS = schema.agent_words


def organisations(connection: Connection) -> list[OrganisationRow]:
    """All organisations, also removed ones, in the order in which they were made."""
    return [OrganisationRow._make(row) for row in connection.execute(select(_ORGANISATION).order_by("org_no"))]


def groups(connection: Connection) -> list[GroupRow]:
    """All agent groups of all organisations, also removed ones, in the order in which they were made."""
    return [GroupRow._make(row) for row in connection.execute(select(_GROUP).order_by("group_no"))]


def environments(connection: Connection) -> list[EnvironmentRow]:
    """All environments of all organisations, in the order in which they were made."""
    members: defaultdict[int, list[GroupNo]] = defaultdict(list)
    for member in connection.execute(select(_MEMBER).order_by("environment_no", "place")):
        members[member.environment_no].append(member.group_no)
    rows = connection.execute(select(_ENVIRONMENT).order_by("environment_no"))
    return [_environment(row._asdict(), tuple(members[row.environment_no])) for row in rows]


def agent_words(connection: Connection) -> list[AgentWordsRow]:
    """What people call agents."""
    return [AgentWordsRow._make(row) for row in connection.execute(select(_WORDS))]


def insert_organisation(
    connection: Connection, row: OrganisationRow, request: RequestRow | None = None
) -> OrganisationRow:
    """Store the row under the next number; its own is ignored. ConflictError if the slug is taken."""
    taken = select(_ORGANISATION.c.org_no).where(_ORGANISATION.c.slug == row.slug, _ORGANISATION.c.removed_us == 0)
    if connection.scalar(taken) is not None:
        raise _taken("organisation", row.slug)
    row = row._replace(org_no=_add(connection, _ORGANISATION, row._asdict(), "org_no"))
    _remember(connection, request, row.org_no, row.created_us)
    return row


def insert_group(connection: Connection, row: GroupRow, request: RequestRow | None = None) -> GroupRow:
    """Store the row under the next number, with epoch 0. ConflictError if the slug is taken in the organisation."""
    _find_organisation(connection, row.org_no)
    _refuse_taken(connection, _GROUP, row.org_no, row.slug)
    group_no = GroupNo(_add(connection, _GROUP, row._asdict(), "group_no"))
    connection.execute(insert(schema.group_epoch).values(group_no=group_no, epoch=0, acceptance_no=0))
    _remember(connection, request, group_no, row.created_us)
    return row._replace(group_no=group_no)


def insert_environment(
    connection: Connection, row: EnvironmentRow, request: RequestRow | None = None
) -> EnvironmentRow:
    """Store the row under the next number. ConflictError if the slug is taken in the organisation.

    NotFoundError for groups that are not the organisation's.
    """
    _find_organisation(connection, row.org_no)
    _refuse_taken(connection, _ENVIRONMENT, row.org_no, row.slug)
    _find_groups(connection, row)
    values = row._asdict()
    del values["group_nos"]
    row = row._replace(environment_no=_add(connection, _ENVIRONMENT, values, "environment_no"))
    _put_members(connection, row)
    _remember(connection, request, row.environment_no, row.created_us)
    return row


def _remember(connection: Connection, request: RequestRow | None, number: int, at_us: int) -> None:
    if request is not None:
        requests.put(connection.exec_driver_sql, request._replace(number=number), at_us)


# --- changes --------------------------------------------------------------------------------------------------------


def update_organisation(connection: Connection, row: OrganisationRow) -> None:
    """Put the row in the place of the one with its number."""
    values = {"display_name": row.display_name, "description": row.description}
    connection.execute(update(_ORGANISATION).where(_ORGANISATION.c.org_no == row.org_no).values(values))


def update_group(connection: Connection, row: GroupRow) -> None:
    """Put the row in the place of the one with its number."""
    values = {name: value for name, value in row._asdict().items() if name not in ("group_no", "org_no", "slug")}
    connection.execute(update(_GROUP).where(_GROUP.c.group_no == row.group_no).values(values))


def update_environment(connection: Connection, row: EnvironmentRow) -> None:
    """Put the row in the place of the one with its number. NotFoundError for groups that are not the organisation's."""
    _find_groups(connection, row)
    values = {
        "display_name": row.display_name,
        "description": row.description,
        "target_group_no": row.target_group_no,
    }
    connection.execute(update(_ENVIRONMENT).where(_ENVIRONMENT.c.environment_no == row.environment_no).values(values))
    connection.execute(delete(_MEMBER).where(_MEMBER.c.environment_no == row.environment_no))
    _put_members(connection, row)


def put_agent_words(connection: Connection, row: AgentWordsRow) -> None:
    """What people call an agent, in the place of what they called it before."""
    here = (_WORDS.c.group_no == row.group_no) & (_WORDS.c.agent_no == row.agent_no)
    connection.execute(delete(_WORDS).where(here))
    connection.execute(insert(_WORDS).values(row._asdict()))


def remove_environment(connection: Connection, environment_no: int) -> None:
    """Forget an environment."""
    connection.execute(delete(_MEMBER).where(_MEMBER.c.environment_no == environment_no))
    connection.execute(delete(_ENVIRONMENT).where(_ENVIRONMENT.c.environment_no == environment_no))


def remove_group(connection: Connection, group_no: GroupNo, at_us: int) -> None:
    """Note that a group is removed, and take it out of every environment: none of them has a dangling target."""
    connection.execute(update(_GROUP).where(_GROUP.c.group_no == group_no).values(removed_us=at_us))
    connection.execute(delete(_MEMBER).where(_MEMBER.c.group_no == group_no))
    leads_there = _ENVIRONMENT.c.target_group_no == group_no
    connection.execute(update(_ENVIRONMENT).where(leads_there).values(target_group_no=0))


def remove_organisation(connection: Connection, org_no: int, at_us: int) -> None:
    """Note that an organisation and all its groups are removed, and forget its environments."""
    mine = select(_ENVIRONMENT.c.environment_no).where(_ENVIRONMENT.c.org_no == org_no)
    connection.execute(delete(_MEMBER).where(_MEMBER.c.environment_no.in_(mine)))
    connection.execute(delete(_ENVIRONMENT).where(_ENVIRONMENT.c.org_no == org_no))
    groups = (_GROUP.c.org_no == org_no) & (_GROUP.c.removed_us == 0)
    connection.execute(update(_GROUP).where(groups).values(removed_us=at_us))
    connection.execute(update(_ORGANISATION).where(_ORGANISATION.c.org_no == org_no).values(removed_us=at_us))


def _put_members(connection: Connection, row: EnvironmentRow) -> None:
    for place, group_no in enumerate(row.group_nos):
        connection.execute(insert(_MEMBER).values(environment_no=row.environment_no, group_no=group_no, place=place))


def _environment(columns: dict[str, Any], group_nos: tuple[GroupNo, ...]) -> EnvironmentRow:
    return EnvironmentRow(**columns, group_nos=group_nos)


def _add(connection: Connection, table: Table, values: dict[str, object], number: str) -> int:
    del values[number]
    made = connection.scalar(insert(table).values(values).returning(table.c[number]))
    assert isinstance(made, int)
    return made


def _find_organisation(connection: Connection, org_no: int) -> None:
    there = select(_ORGANISATION.c.org_no).where(_ORGANISATION.c.org_no == org_no, _ORGANISATION.c.removed_us == 0)
    if connection.scalar(there) is None:
        raise NotFoundError(f"there is no organisation number {org_no}", org_no=str(org_no))


def _find_groups(connection: Connection, row: EnvironmentRow) -> None:
    named = {*row.group_nos, row.target_group_no} - {0}
    there = select(_GROUP.c.group_no).where(_GROUP.c.org_no == row.org_no, _GROUP.c.removed_us == 0)
    rows = connection.scalars(there)
    missing = sorted(named - set(rows))
    if missing:
        raise NotFoundError(f"the organisation has no agent group number {missing[0]}", group_no=str(missing[0]))


def _refuse_taken(connection: Connection, table: Table, org_no: int, slug: str) -> None:
    taken = select(table.c.slug).where(table.c.org_no == org_no, table.c.slug == slug)
    if "removed_us" in table.c:
        taken = taken.where(table.c.removed_us == 0)
    if connection.scalar(taken) is not None:
        raise _taken(table.name.replace("_", " "), slug)


def _taken(kind: str, slug: str) -> ConflictError:
    return ConflictError(f"the {kind} {slug!r} exists already: choose another id", slug=slug)
