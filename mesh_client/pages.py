"""Reading a list whole, a page at a time; and which fields an update names."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Final, TypeVar

from google.protobuf.field_mask_pb2 import FieldMask

from mesh_client.errors import MalformedError

ItemT = TypeVar("ItemT")

PAGE_ITEMS: Final = 200


async def paged(
    page: Callable[[str, int], Awaitable[tuple[Iterable[ItemT], str]]], limit: int | None, page_items: int = PAGE_ITEMS
) -> AsyncIterator[ItemT]:
    """Items of all pages, at most `limit`. `page` is given a token and a size, and answers items and the next token."""
    token = ""
    left = limit
    while left is None or left > 0:
        size = page_items if left is None else min(page_items, left)
        items, token = await page(token, size)
        for item in items:
            yield item
            # A page may be short although there are more.
            left = None if left is None else left - 1
        if not token:
            return


def mask(**changes: object) -> FieldMask:
    """The fields that are given. Raises MalformedError if there is none: an empty mask says all that are set."""
    paths = [name for name, value in changes.items() if value is not None]
    if not paths:
        raise MalformedError(f"nothing to change: give one of {', '.join(changes)}", reason="NOTHING_TO_CHANGE")
    return FieldMask(paths=paths)
