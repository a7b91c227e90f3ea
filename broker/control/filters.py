"""Filters and orders of lists: a small part of AIP-160 and AIP-132, one for all lists.

A filter is `field = value` joined by AND; `!=` and `:` (contains) where a list offers them; a value with spaces is
quoted. An order is `field` or `field desc`, separated by commas. What is wrong is named with its position (from 1).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from broker.errors import MalformedError

T = TypeVar("T")
FilterValue = str | Sequence[str]

_TOKEN: Final = re.compile(r"""\s*(?:(?P<op>!=|=|:)|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<word>[^\s=!:"]+))""")


class Condition(NamedTuple):
    """One part of a filter. `position` is where its field stands."""

    field: str
    operator: str
    value: str
    position: int


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def conditions_of(text: str, fields: Sequence[str], operators: Sequence[str] = ("=",)) -> list[Condition]:
    """The parts of a filter on these fields. Raises MalformedError naming the position of what is wrong."""
    tokens = _tokens(text)
    found: list[Condition] = []
    at = 0
    while at < len(tokens):
        if found:
            if tokens[at].text != "AND":
                raise _wrong(text, tokens[at].position, f"expected AND, found {tokens[at].text!r}")
            at += 1
        field, operator, value = _three(text, tokens[at : at + 3])
        if field.text not in fields:
            raise _wrong(text, field.position, f"there is no field {field.text!r} here; fields: {', '.join(fields)}")
        if operator.kind != "op" or operator.text not in operators:
            raise _wrong(text, operator.position, f"expected {' or '.join(operators)}, found {operator.text!r}")
        if value.kind == "op":
            raise _wrong(text, value.position, f"expected a value, found {value.text!r}")
        found.append(Condition(field.text, operator.text, value.text, field.position))
        at += 3
    return found


def once(text: str, conditions: Sequence[Condition]) -> dict[str, Condition]:
    """The conditions by field. Raises MalformedError if one is given twice: both would have to hold."""
    found: dict[str, Condition] = {}
    for condition in conditions:
        if condition.field in found:
            raise _wrong(text, condition.position, f"{condition.field} is given twice")
        found[condition.field] = condition
    return found


def wrong_value(text: str, condition: Condition, why: str) -> MalformedError:
    """The error for a condition whose value cannot be."""
    return _wrong(text, condition.position, why)


def select(rows: Sequence[T], text: str, fields: Mapping[str, Callable[[T], FilterValue]]) -> list[T]:
    """The rows for which every condition holds. A field of several values has one if any of them is it."""
    conditions = conditions_of(text, list(fields), ("=", "!=", ":"))
    return [row for row in rows if all(_holds(condition, fields[condition.field](row)) for condition in conditions)]


def ordered(rows: Sequence[T], text: str, fields: Mapping[str, Callable[[T], Any]]) -> list[T]:
    """The rows in this order, ties as they were; empty values last in both directions."""
    found = list(rows)
    for part in reversed([part for part in re.split(r"\s*,\s*", text.strip()) if part]):
        name, _, direction = part.partition(" ")
        if name not in fields or direction.strip() not in ("", "asc", "desc"):
            position = text.index(part) + 1
            raise _wrong(text, position, f"cannot order by {part!r}; fields: {', '.join(fields)}, each with ` desc`")
        key = fields[name]
        filled = [row for row in found if key(row) not in ("", None)]
        empty = [row for row in found if key(row) in ("", None)]
        filled.sort(key=key, reverse=direction.strip() == "desc")
        found = filled + empty
    return found


def _holds(condition: Condition, value: FilterValue) -> bool:
    values = [value] if isinstance(value, str) else list(value)
    if condition.operator == ":":
        return any(condition.value.lower() in one.lower() for one in values)
    return (condition.value in values) == (condition.operator == "=")


def _three(text: str, tokens: Sequence[_Token]) -> Sequence[_Token]:
    if len(tokens) < 3:
        raise _wrong(text, len(text) + 1, "expected `field = value`, found the end")
    return tokens


def _tokens(text: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            raise _wrong(text, at + 1, f"cannot be read from {text[at:]!r} on")
        kind = match.lastgroup or ""
        token = match[kind]
        if kind == "quoted":
            token = re.sub(r"\\(.)", r"\1", token)
        found.append(_Token(kind, token, match.start(kind) + 1))
        at = match.end()
    return found


def _wrong(text: str, position: int, why: str) -> MalformedError:
    return MalformedError(
        f"{text!r}, position {position}: {why}", reason="MALFORMED_FILTER", field="filter", position=str(position)
    )
