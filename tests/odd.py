"""Every command of a program, and values for its options that nobody means: no command may answer with a traceback."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from cyclopts import App

ODD: Final = (
    "",
    " ",
    "-",
    "--",
    "-1",
    "0",
    "1.5",
    "inf",
    "-inf",
    "nan",
    "1e-320",
    "1e300",
    "4294967296",
    "99999999999999999999",
    "9" * 5_000,
    "99999999999w",
    "0001-01-01",
    "9999-12-31T23:59:59-23:59",
    "a" * 5_000,
    "a=b",
    "=",
    "/",
    "/proc/no/such",
    "@/proc/no/such",
    "../" * 50,
    "organizations/x/groups/-",
    "127.0.0.1:99999",
    "é🙈",
    "\x1b[31m",
    "line\nline",
    "a\udcffb",  # no UTF-8
    "[" * 2_000,
    'x = "',
    "null",
    "%s{0}${x}",
)


ENDLESS: Final = {
    "--count": {"4294967296", "99999999999999999999"},
    "--resume": {"", "0", "4294967296", "99999999999999999999"},
}
"""What makes a command do what it was asked for, for ever."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a command takes a value: an option (`--group`), or a word at its position (`JOB_ID`)."""

    name: str
    is_required: bool

    @property
    def is_option(self) -> bool:
        """Whether it stands behind its name."""
        return self.name.startswith("-")


@dataclass(frozen=True, slots=True)
class Command:
    """A command and where it takes values."""

    path: tuple[str, ...]
    places: Sequence[Place]

    def lines(self, usual: Mapping[str, str], number: int, without: Sequence[str] = ()) -> Iterator[list[str]]:
        """Command lines with an odd value in one place each, `number` of them for every place.

        The other words that must stand there are `usual` by the name of their place. Options in `without` get none.
        Which values a place gets is the same in every run.
        """
        for place in self.places:
            if place.name in without:
                continue
            values = [value for value in ODD if value not in ENDLESS.get(place.name, ())]
            for value in random.Random(f"{self.path} {place.name}").sample(values, min(number, len(values))):
                options = [f"{place.name}={value}"] if place.is_option else []
                words = [
                    value if one == place else usual[one.name]
                    for one in self.places
                    if not one.is_option and (one.is_required or one == place)
                ]
                yield [*self.path, *options, *(["--", *words] if words else [])]


def commands(app: App, path: tuple[str, ...] = ()) -> Iterator[Command]:
    """All commands of a program."""
    for name in app:
        inner = app[name]
        if name in (*app.help_flags, *app.version_flags):
            continue
        if inner.default_command is None:
            yield from commands(inner, (*path, name))
        else:
            yield Command((*path, name), list(_places(inner)))


def _places(command: App) -> Iterator[Place]:
    for argument in command.assemble_argument_collection(parse_docstring=False):
        if argument.names[0] != "*":
            yield Place(argument.names[0], argument.required)
