"""Options of every command that lists, and how a list is shown once or again and again."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

from cyclopts import Parameter

from broker.cli.access import Access, Flag, Words
from broker.cli.output import write_json, write_list

if TYPE_CHECKING:
    from mesh_client import SyncMeshClient

ViewT = TypeVar("ViewT")

WATCH_EVERY_S: Final = 0.5
"""How often a list that is watched is read: what is new shows within a second."""
CLEAR: Final = "\x1b[H\x1b[2J"
"""The screen, and nothing of what was there before: that is the operator's."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Listing:
    """Options of every command that lists what operators set up."""

    search: Words = ""
    """Only what has this in its id, its name or its description."""
    filter: Words = ""
    """Only what this holds for: FIELD = VALUE, != or : (contains), joined by AND. Wrong fields name the right ones."""
    order_by: Words = ""
    """FIELD, or FIELD desc; several with commas between them."""
    watch: Annotated[Flag, Parameter(name=["--watch", "-w"])] = False
    """Go on showing it whenever it changes, until Ctrl-C. On a terminal in place, else one after the other."""

    @property
    def where(self) -> str:
        """The filter that a broker understands."""
        from mesh_client.names import quoted

        return " AND ".join(filter(None, [quoted(self.search) if self.search else "", self.filter]))

    def ordered(self, columns: Mapping[str, str]) -> str:
        """The order that a broker understands; `columns` are heads of the table, small, that are no fields."""
        parts = [part.strip().partition(" ") for part in self.order_by.split(",")]
        return ", ".join(f"{columns.get(name, name)}{space}{direction}" for name, space, direction in parts)


LISTING: Final = Listing()


def show_list(
    access: Access,
    listing: Listing,
    noun: str,
    read: Callable[[SyncMeshClient], Iterable[ViewT]],
    columns: dict[str, Callable[[ViewT], str]],
) -> None:
    """Show what `read` finds in columns, or as JSON: once, or whenever it has changed."""
    with access.connected() as mesh:
        if not listing.watch:
            _write(access, noun, list(read(mesh)), columns)
            return
        shown: object = None
        while True:
            found = list(read(mesh))
            # What no cell shows (when an agent was heard, to the millisecond) is no change to who reads a table.
            now = found if access.is_json else _rows(found, columns)
            if now != shown:
                _write_again(access, noun, found, columns)
                shown = now
            time.sleep(WATCH_EVERY_S)


def _write(access: Access, noun: str, found: Sequence[ViewT], columns: dict[str, Callable[[ViewT], str]]) -> None:
    write_list(noun, found, list(columns), _rows(found, columns), is_json=access.is_json)


def _write_again(access: Access, noun: str, found: Sequence[ViewT], columns: dict[str, Callable[[ViewT], str]]) -> None:
    if access.is_json:
        write_json(found, indent=None)
        return
    if sys.stdout.isatty():
        sys.stdout.write(CLEAR)
    _write(access, noun, found, columns)
    sys.stdout.flush()


def _rows(found: Sequence[ViewT], columns: dict[str, Callable[[ViewT], str]]) -> list[list[str]]:
    return [[cell(view) for cell in columns.values()] for view in found]
