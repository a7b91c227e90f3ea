"""Durations on the command line: a number of seconds, or a number with a unit."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Final

from cyclopts import Parameter, Token
from cyclopts.validators import Number

_DURATION: Final = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>ms|s|m|h|d|w)")
_UNITS_S: Final = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def with_unit(text: str) -> float | None:
    """`90s`, `1.5h`, `500ms` in seconds; None for anything else, a number alone too."""
    found = _DURATION.fullmatch(text)
    return float(found["number"]) * _UNITS_S[found["unit"]] if found else None


def seconds_of(text: str) -> float:
    """The same, and a number without a unit as seconds. Raises ValueError."""
    said_s = with_unit(text)
    return float(text) if said_s is None else said_s


def _converted(_kind: type, tokens: Sequence[Token]) -> float:
    text = tokens[0].value
    try:
        return seconds_of(text)
    except ValueError as error:
        raise ValueError(f'"{text}" is no duration: give seconds, or 500ms, 90s, 5m, 2h, 7d') from error


Duration = Annotated[float, Parameter(converter=_converted, n_tokens=1, validator=Number(gt=0))]
"""More than no time."""
Seconds = Annotated[float | None, Parameter(converter=_converted, n_tokens=1, validator=Number(gt=0))]
"""The same, or left out."""
SecondsOrNone = Annotated[
    float | None, Parameter(converter=_converted, n_tokens=1, validator=Number(gte=0), show_default=False)
]
"""The same; 0 may mean something of its own."""
