"""What callers say about lists of jobs - filter, order, page token - as a query of the store."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from broker.control.directory import Directory
from broker.control.filters import Condition, conditions_of, wrong_value
from broker.control.names import split_parent
from broker.dispatch.model import AgentNo, GroupNo, JobKey, JobState
from broker.errors import MalformedError
from broker.rpc.pages import decoded, encoded
from broker.store.base import JobQuery, Place, Span

TIMES: Final = ("accepted_at", "finished_at")
FIELDS: Final = (
    "state",
    "group",
    "environment",
    "operation",
    "agent",
    "code",
    "fairness_key",
    "idempotency_key",
    *TIMES,
)
BOUNDS: Final = ("<", "<=", ">", ">=")
ORDERS: Final = tuple(f"{field}{direction}" for field in TIMES for direction in ("", " asc", " desc"))
PLACE: Final = ("at", "key", "until")
"""What a page token says: the job that the next page begins with, and the end of the span of acceptance."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = _EPOCH.resolution


class JobFilters:
    """Makes queries of what callers say. Raises MalformedError naming the position of what is wrong, NotFoundError."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def query(self, parent: str, filter_text: str, order_by: str = "") -> JobQuery:
        """The jobs of an organisation that pass the filter, in this order; by default newest first."""
        organisation, kind, _ = split_parent(parent)
        if kind:
            text = f"jobs are listed for an organization: give `organizations/{organisation}` and filter by group"
            raise MalformedError(text, reason="MALFORMED_NAME", field="parent")
        said = _by_field(filter_text)
        query = self._place_of(JobQuery(self._directory.groups_of(organisation)), organisation, filter_text, said)
        query = replace(
            query,
            states=_states(filter_text, said),
            operation=_value(said, "operation"),
            code=_value(said, "code"),
            fairness=_value(said, "fairness_key"),
            idempotency_key=_value(said, "idempotency_key") or "",
            accepted=_span(filter_text, said.get("accepted_at", ())),
            finished=_span(filter_text, said.get("finished_at", ())),
        )
        return _ordered(query, order_by, is_by_finish="finished_at" in said)

    def _place_of(self, query: JobQuery, organisation: str, text: str, said: dict[str, list[Condition]]) -> JobQuery:
        """The query with its groups, environment and agent."""
        if "group" in said:
            group = _id_of(text, said["group"][0], f"organizations/{organisation}/groups/")
            query = replace(query, groups=self._directory.groups_named(organisation, group))
        if "environment" in said:
            environment = _id_of(text, said["environment"][0], f"organizations/{organisation}/environments/")
            found = self._directory.environment(organisation, environment)
            query = replace(query, environment_no=found.environment_no)
        if "agent" in said:
            agents = self._agents(text, said["agent"][0], query.groups)
            query = replace(query, groups=tuple(agents), agents=agents)
        return query

    def _agents(self, text: str, condition: Condition, groups: Sequence[GroupNo]) -> dict[GroupNo, tuple[AgentNo, ...]]:
        """All that ever had the id: jobs say who ran them, also when that is gone."""
        named = [found for no in groups if (found := self._directory.agent(no, condition.value)) is not None]
        if len(named) > 1:
            in_groups = ", ".join(self._directory.group_name(found.group_no) for found in named)
            why = f"agent {condition.value!r} is in several groups: add one of them ({in_groups})"
            raise wrong_value(text, condition, why)
        return {no: numbers for no in groups if (numbers := self._directory.agent_nos(no, condition.value))}


def continued(query: JobQuery, token: str, *said: str) -> JobQuery:
    """The query from the place on that a page token names. Raises MalformedError for a token of another list."""
    if not token:
        return query
    place = decoded(token, PLACE, *said)
    until_us = min(query.accepted.until_us, place["until"])
    start = Place(place["at"], JobKey(place["key"]))
    return replace(query, start=start, accepted=query.accepted._replace(until_us=until_us))


def token_of(query: JobQuery, next_place: Place | None, *said: str) -> str:
    """The token of the next page; "" if there is none."""
    if next_place is None:
        return ""
    numbers = (next_place.at_us, next_place.job_key, query.accepted.until_us)
    return encoded(dict(zip(PLACE, numbers, strict=True)), *said)


def _by_field(text: str) -> dict[str, list[Condition]]:
    """The conditions by field: each once, a time once from below and once from above."""
    found: dict[str, list[Condition]] = {}
    for condition in conditions_of(text, FIELDS, ("=", *BOUNDS)):
        if condition.operator != "=" and condition.field not in TIMES:
            raise wrong_value(text, condition, f"{condition.field} is compared by = only")
        others = found.setdefault(condition.field, [])
        if any(
            other.operator[0] == condition.operator[0] or "=" in (other.operator, condition.operator)
            for other in others
        ):
            raise wrong_value(text, condition, f"{condition.field} is given twice")
        others.append(condition)
    return found


def _value(said: dict[str, list[Condition]], field: str) -> str | None:
    return said[field][0].value if field in said else None


def _id_of(text: str, condition: Condition, prefix: str) -> str:
    """The id that a value says: alone, or at the end of a full name that begins so."""
    said = condition.value.removeprefix(prefix)
    if not said or "/" in said:
        raise wrong_value(text, condition, f"{condition.value!r} is neither an id nor a name like {prefix}ID")
    return said


def _states(text: str, said: dict[str, list[Condition]]) -> tuple[str, ...]:
    if "state" not in said:
        return ()
    (condition,) = said["state"]
    if condition.value not in JobState.__members__.values():
        raise wrong_value(text, condition, f"no state {condition.value!r}; states: {', '.join(JobState)}")
    return (condition.value,)


def _span(text: str, conditions: Sequence[Condition]) -> Span:
    span = Span()
    for condition in conditions:
        at_us = _us_of(text, condition)
        if condition.operator in (">", ">=", "="):
            span = span._replace(since_us=at_us + (condition.operator == ">"))
        if condition.operator in ("<", "<=", "="):
            span = span._replace(until_us=at_us + (condition.operator != "<"))
    return span


def _us_of(text: str, condition: Condition) -> int:
    try:
        at = datetime.fromisoformat(condition.value)
        return max(0, (at - _EPOCH) // _MICROSECOND)
    except (ValueError, TypeError) as error:
        why = f'{condition.value!r} is no time with a zone, such as "2026-11-21T10:00:00Z"'
        raise wrong_value(text, condition, why) from error


def _ordered(query: JobQuery, order_by: str, *, is_by_finish: bool) -> JobQuery:
    words = " ".join(order_by.split())
    if not words:
        return replace(query, is_by_finish=is_by_finish)
    if words not in ORDERS:
        raise MalformedError(
            f"{order_by!r}, position 1: jobs are ordered by {' or '.join(TIMES)}, each with ` desc` or without",
            reason="MALFORMED_FILTER",
            field="order_by",
            position="1",
        )
    return replace(query, is_by_finish=words.startswith("finished_at"), is_ascending=not words.endswith(" desc"))
