"""Page tokens: opaque to callers, bound to the list that they were made for."""

import base64
import binascii
import json
from collections.abc import Collection, Sequence
from hashlib import blake2b
from typing import Any, Final, TypeVar

from broker.control.filters import Order
from broker.errors import MalformedError

T = TypeVar("T")

PAGE_SIZE_DEFAULT: Final = 50


def page_of(
    rows: Sequence[T], order: Order[T], page_size: int, page_token: str, *query: str
) -> tuple[Sequence[T], str]:
    """One page of rows in their order, and the token of the next page: it goes on after the last row of this one.

    What comes and goes between two pages shifts nothing. Raises MalformedError for a token of another query.
    """
    rest = rows
    if page_token:
        place = _place_of(page_token, *query)
        try:
            rest = [row for row in rows if order.is_after(row, place)]
        except TypeError as error:
            raise _foreign() from error
    page = rest[: page_size or PAGE_SIZE_DEFAULT]
    return page, _encoded(order.place(page[-1]), *query) if len(page) < len(rest) else ""


def encoded(place: dict[str, int], *query: str) -> str:
    """A place in a list, as a token."""
    return _encoded(place, *query)


def decoded(token: str, names: Collection[str], *query: str) -> dict[str, int]:
    """The place of a token, a number for each name. Raises MalformedError if it is none, or one of another query."""
    place = _decoded(token, *query)
    if not isinstance(place, dict) or place.keys() != set(names) or not all(map(_is_number, place.values())):
        raise _foreign()
    return place


def _encoded(place: object, *query: str) -> str:
    text = json.dumps([_mark(query), place], separators=(",", ":"), ensure_ascii=False)
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _place_of(token: str, *query: str) -> list[Any]:
    """The place in an order that a token says. Raises MalformedError."""
    place = _decoded(token, *query)
    if not isinstance(place, list):
        raise _foreign()
    return place


def _decoded(token: str, *query: str) -> object:
    try:
        mark, place = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise _foreign() from error
    if mark != _mark(query):
        raise _foreign()
    return place


def _is_number(value: object) -> bool:
    """Whether a store can look for it and for the next one: anybody can write a token."""
    return type(value) is int and 0 <= value < (1 << 63) - 1


def _mark(query: Sequence[str]) -> str:
    return blake2b("\0".join(query).encode(), digest_size=4).hexdigest()


def _foreign() -> MalformedError:
    return MalformedError(
        "page_token is not one of this list: take `next_page_token` and leave the other fields as they were",
        reason="MALFORMED_PAGE_TOKEN",
        field="page_token",
    )
