"""Page tokens: opaque to callers, bound to the list that they were made for."""

import base64
import binascii
import json
from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, TypeVar

from broker.dispatch.model import GroupNo, JobKey
from broker.errors import MalformedError

T = TypeVar("T")

PAGE_SIZE_DEFAULT: Final = 50


def page_of(rows: Sequence[T], page_size: int, page_token: str, *query: str) -> tuple[Sequence[T], str]:
    """One page of rows that are all at hand, and the token of the next page. `query` is what the rows were asked by.

    Raises MalformedError for a token of another query.
    """
    size = page_size or PAGE_SIZE_DEFAULT
    start = decoded(page_token, *query).get("start", 0) if page_token else 0
    end = start + size
    return rows[start:end], encoded({"start": end}, *query) if end < len(rows) else ""


def keys_token(before: dict[GroupNo, JobKey], *query: str) -> str:
    """A token that goes on before these job keys."""
    return encoded({str(group): key for group, key in before.items()}, *query)


def keys_of(token: str, *query: str) -> dict[GroupNo, JobKey]:
    """What `keys_token` was given. Raises MalformedError."""
    if not token:
        return {}
    try:
        return {GroupNo(int(group)): JobKey(key) for group, key in decoded(token, *query).items()}
    except ValueError as error:
        raise _foreign() from error


def encoded(place: dict[str, int], *query: str) -> str:
    """A place in a list, as a token."""
    text = json.dumps([_mark(query), place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decoded(token: str, *query: str) -> dict[str, int]:
    """The place of a token. Raises MalformedError if it is none, or one of another query."""
    try:
        mark, place = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, TypeError, binascii.Error) as error:
        raise _foreign() from error
    if mark != _mark(query) or not isinstance(place, dict) or not all(map(_is_number, place.values())):
        raise _foreign()
    return place


def _is_number(value: object) -> bool:
    """Whether a store can look for it: anybody can write a token."""
    return type(value) is int and 0 <= value < 1 << 63


def _mark(query: Sequence[str]) -> str:
    return blake2b("\0".join(query).encode(), digest_size=4).hexdigest()


def _foreign() -> MalformedError:
    return MalformedError(
        "page_token is not one of this list: take `next_page_token` and leave the other fields as they were",
        reason="MALFORMED_PAGE_TOKEN",
        field="page_token",
    )
