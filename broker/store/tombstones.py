"""What is left of organisations, groups and agents that were removed: rows that kept jobs still name.

A removal frees the name and keeps the row, because the history of jobs says where they ran. When the last job is gone
that may name it, and the removal itself is past the time of the history, the row goes too. Its number is never given
to another group or organisation.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from broker.dispatch.model import Admin, AgentNo, GroupNo, job_key
from broker.store import schema
from broker.store.base import TIME_END_US, Purged

_AGENT = schema.agent
_GROUP = schema.agent_group
_JOB = schema.job
_ORGANISATION = schema.organisation
_OF_A_GROUP = (
    schema.agent,
    schema.agent_words,
    schema.operation_policy,
    schema.label_set,
    schema.submission_key,
    schema.group_epoch,
)
"""What else has rows of a group; those of environments went when it was removed."""


def purge(connection: Connection, idle: Sequence[GroupNo], before_us: int, agents_max: int) -> Purged:
    """Forget who was removed before this time and is named by no kept job; of groups those that are `idle`."""
    groups = [group for group in idle if _is_past(connection, group, before_us)]
    for group in groups:
        for table in _OF_A_GROUP:
            connection.execute(delete(table).where(table.c.group_no == group))
        connection.execute(delete(_GROUP).where(_GROUP.c.group_no == group))
    return Purged(tuple(groups), _agents(connection, before_us, agents_max), _organisations(connection, before_us))


def _is_past(connection: Connection, group: GroupNo, before_us: int) -> bool:
    past = (_GROUP.c.group_no == group) & (_GROUP.c.removed_us > 0) & (_GROUP.c.removed_us < before_us)
    is_past = connection.scalar(select(_GROUP.c.group_no).where(past)) is not None
    return is_past and _oldest_us(connection, group) == TIME_END_US


def _oldest_us(connection: Connection, group: GroupNo) -> int:
    """When the first of the group's jobs that are kept was accepted: keys of jobs are in that order."""
    keys = (_JOB.c.job_key >= job_key(group, 0)) & (_JOB.c.job_key < job_key(GroupNo(group + 1), 0))
    first = select(_JOB.c.accepted_us).where(keys).order_by(_JOB.c.job_key).limit(1)
    found = connection.scalar(first)
    return TIME_END_US if found is None else int(found)


def _agents(connection: Connection, before_us: int, agents_max: int) -> tuple[tuple[GroupNo, AgentNo], ...]:
    """At most so many. No job that was accepted after an agent's removal names it."""
    is_removed = (_AGENT.c.admin == Admin.REMOVED.value) & (_AGENT.c.admin_us < before_us)
    gone: list[tuple[GroupNo, AgentNo]] = []
    for group in connection.scalars(select(_AGENT.c.group_no).where(is_removed).distinct()).all():
        until_us = min(before_us, _oldest_us(connection, GroupNo(group)))
        past = is_removed & (_AGENT.c.group_no == group) & (_AGENT.c.admin_us < until_us)
        found = connection.scalars(select(_AGENT.c.agent_no).where(past).limit(agents_max - len(gone))).all()
        for table in (_AGENT, schema.agent_words):
            connection.execute(delete(table).where(table.c.group_no == group, table.c.agent_no.in_(found)))
        gone += [(GroupNo(group), AgentNo(number)) for number in found]
    return tuple(gone)


def _organisations(connection: Connection, before_us: int) -> tuple[int, ...]:
    past = (_ORGANISATION.c.removed_us > 0) & (_ORGANISATION.c.removed_us < before_us)
    has_group = select(_GROUP.c.group_no).where(_GROUP.c.org_no == _ORGANISATION.c.org_no).exists()
    gone = connection.scalars(select(_ORGANISATION.c.org_no).where(past, ~has_group)).all()
    for number in gone:
        connection.execute(delete(schema.request).where(schema.request.c.org_no == number))
        connection.execute(delete(_ORGANISATION).where(_ORGANISATION.c.org_no == number))
    return tuple(gone)
