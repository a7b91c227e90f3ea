"""Filters and orders of lists: a small part of AIP-160 and AIP-132, one for all lists.

A filter is `field = value` joined by AND; `!=` and `:` (contains) where a list offers them; a value with spaces is
quoted. Where a list can be searched, a value alone is looked for in several fields. An order is `field` or `field
desc`, separated by commas. What is wrong is named with its position (from 1).
"""

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar

from broker.errors import MalformedError

T = TypeVar("T")
FilterValue = str | Sequence[str]

SEARCH: Final = ""
"""The field of a condition that is a value alone."""
_EMPTY: Final = ("", None)

_TOKEN: Final = re.compile(r"""\s*(?:(?P<op>!=|<=|>=|=|:|<|>)|"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<word>[^\s=!:<>"]+))""")


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


def conditions_of(
    text: str, fields: Sequence[str], operators: Sequence[str] = ("=",), *, is_searched: bool = False
) -> list[Condition]:
    """The parts of a filter on these fields. Raises MalformedError naming the position of what is wrong.

    With `is_searched` a value may stand alone: its field is `SEARCH`.
    """
    tokens = _tokens(text)
    found: list[Condition] = []
    at = 0
    while at < len(tokens):
        if found:
            if tokens[at].text != "AND":
                raise _wrong(text, tokens[at].position, f"expected AND, found {tokens[at].text!r}")
            at += 1
        if is_searched and _is_alone(tokens[at : at + 2]):
            found.append(Condition(SEARCH, ":", tokens[at].text, tokens[at].position))
            at += 1
            continue
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


def wrong_value(text: str, condition: Condition, why: str) -> MalformedError:
    """The error for a condition whose value cannot be."""
    return _wrong(text, condition.position, why)


def select(
    rows: Sequence[T],
    text: str,
    fields: Mapping[str, Callable[[T], FilterValue]],
    searched: Sequence[Callable[[T], str]] = (),
) -> list[T]:
    """The rows for which every condition holds. A field of several values has one if any of them is it.

    A value alone is looked for in all that is `searched`, if anything is.
    """
    conditions = conditions_of(text, list(fields), ("=", "!=", ":"), is_searched=bool(searched))

    def values(row: T, field: str) -> FilterValue:
        return [of(row) for of in searched] if field == SEARCH else fields[field](row)

    return [row for row in rows if all(_holds(condition, values(row, condition.field)) for condition in conditions)]


class Order(Generic[T]):
    """How rows are ordered: by the fields of `text`, empty values last in both directions, ties by `tie`.

    A field's value is of one kind in all rows: numbers, texts, or lists of them; None and "" are empty. No two rows may
    have the same value of `tie`: then every row has a place of its own, and a list that is read page by page shows each
    row once, whatever comes and goes meanwhile.
    """

    def __init__(self, text: str, fields: Mapping[str, Callable[[T], Any]], tie: str) -> None:
        """Raise MalformedError naming the position of what is wrong."""
        self._parts: list[tuple[Callable[[T], Any], bool]] = []
        for part in [part for part in re.split(r"\s*,\s*", text.strip()) if part]:
            name, _, direction = part.partition(" ")
            if name not in fields or direction.strip() not in ("", "asc", "desc"):
                why = f"cannot order by {part!r}; fields: {', '.join(fields)}, each with ` desc`"
                raise _wrong(text, text.index(part) + 1, why)
            self._parts.append((fields[name], direction.strip() == "desc"))
        self._parts.append((fields[tie], False))

    def sort(self, rows: Sequence[T]) -> list[T]:
        """The rows in this order."""
        found = list(rows)
        for key, is_descending in reversed(self._parts):
            filled = [row for row in found if key(row) not in _EMPTY]
            empty = [row for row in found if key(row) in _EMPTY]
            filled.sort(key=key, reverse=is_descending)
            found = filled + empty
        return found

    def place(self, row: T) -> list[Any]:
        """Where the row stands, in values that JSON can say."""
        return [key(row) for key, _ in self._parts]

    def is_after(self, row: T, place: Sequence[Any]) -> bool:
        """Whether the row comes after this place. Raises TypeError for a place that no order like this one has made."""
        if len(place) != len(self._parts):
            raise TypeError("it is a place in another order")
        for (key, is_descending), there in zip(self._parts, place, strict=True):
            here = key(row)
            if (here in _EMPTY) != (there in _EMPTY):
                return here in _EMPTY
            if here != there and here not in _EMPTY:
                return bool(here < there if is_descending else here > there)
        return False


def version_key(version: str) -> list[list[Any]] | None:
    """What versions are compared by: `9.2` comes before `10.0`, `10.0rc1` before `10.0`, `10.0` before `10.0.1`."""
    parts = re.findall(r"\d+|[a-z]+", version.lower())
    return [*([2, int(part)] if part.isdecimal() else [0, part] for part in parts), [1]] if parts else None


def address_key(address: str) -> list[Any] | None:
    """What addresses are compared by, with or without a port: their numbers; what is no address comes after all."""
    if not address:
        return None
    host, colon, port = address.rpartition(":")
    if not (colon and port.isdecimal() and (host.startswith("[") or ":" not in host)):
        host, port = address, "0"
    try:
        number = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return [9, address, 0]
    return [number.version, int(number), int(port)]


def _holds(condition: Condition, value: FilterValue) -> bool:
    values = [value] if isinstance(value, str) else list(value)
    if condition.operator == ":":
        return any(condition.value.lower() in one.lower() for one in values)
    return (condition.value in values) == (condition.operator == "=")


def _is_alone(tokens: Sequence[_Token]) -> bool:
    """Whether the first token is a value that no operator follows."""
    return bool(tokens) and tokens[0].kind != "op" and (len(tokens) == 1 or tokens[1].kind != "op")


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
