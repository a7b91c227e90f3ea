"""Quantities as people write them: "250 ms", "100/s", "30 d", "5 %". Inside everything is seconds, per second, shares.

A number without its unit is refused where a unit says what is meant: 250 may be anything.
"""

import difflib
import re
from collections.abc import Iterable
from typing import Final

SECONDS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}
"""Units of time, in seconds."""
DURATION_MAX_S: Final = 1_000 * 365 * 86_400.0
RATE_MAX_PER_S: Final = 1e6
_NUMBER: Final = r"([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?|\.[0-9]+)"
_DURATION: Final = re.compile(rf"{_NUMBER}\s*([A-Za-z]+)")
_RATE: Final = re.compile(rf"{_NUMBER}\s*/\s*([A-Za-z]+)")
_SHARE: Final = re.compile(rf"{_NUMBER}\s*%")
_MONEY: Final = re.compile(rf"{_NUMBER}\s*([A-Z]{{3}})")


class UnitError(ValueError):
    """A text that is not the quantity that is wanted; says what would be."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean ...?` with the nearest known name, or the list of them."""
    names = sorted(set(known))
    found = difflib.get_close_matches(name, names, 1, 0.5)
    return f"did you mean `{found[0]}`?" if found else f"known are: {', '.join(names)}"


def seconds_of(text: object) -> float:
    """A duration in seconds. Raises UnitError: no unit, an unknown one, negative, or longer than a thousand years."""
    if isinstance(text, int | float) and not isinstance(text, bool):
        if text == 0:
            return 0.0
        raise UnitError(f"{text} has no unit: write `{text} s` or `{text} ms`")
    match = _DURATION.fullmatch(str(text).strip())
    if match is None:
        raise UnitError(f"`{text}` is not a duration such as `250 ms`, `10 min` or `30 d`; it cannot be negative")
    number, unit = float(match[1]), match[2]
    if unit not in SECONDS:
        raise UnitError(f"`{unit}` is no unit of time; {nearest(unit, SECONDS)}")
    seconds = number * SECONDS[unit] if SECONDS[unit] >= 1 else number / round(1 / SECONDS[unit])
    if seconds > DURATION_MAX_S:
        raise UnitError(f"`{text}` is longer than a thousand years")
    return seconds


def rate_of(text: object) -> float:
    """A rate per second. Raises UnitError."""
    match = _RATE.fullmatch(str(text).strip())
    if match is None:
        raise UnitError(f"`{text}` is not a rate such as `100/s` or `6/h`; it cannot be negative")
    number, unit = float(match[1]), match[2]
    if unit not in SECONDS:
        raise UnitError(f"`{unit}` is no unit of time; {nearest(unit, SECONDS)}")
    if number / SECONDS[unit] > RATE_MAX_PER_S:
        raise UnitError(f"`{text}` is more than a million a second")
    return number / SECONDS[unit]


def share_of(text: object) -> float:
    """A share of 1, written as `5 %` or `0.05`. Raises UnitError."""
    match = _SHARE.fullmatch(str(text).strip())
    try:
        share = float(match[1]) / 100 if match else float(str(text))
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise UnitError(f"`{text}` is not a share from 0 to 1 such as `5 %` or `0.05`")
    return share


def money_of(text: object) -> tuple[float, str]:
    """An amount and its currency, written as `0.21 EUR`. Raises UnitError."""
    match = _MONEY.fullmatch(str(text).strip())
    if match is None:
        raise UnitError(f"`{text}` is not an amount such as `0.21 EUR`")
    return float(match[1]), match[2]


def duration_text(seconds: float) -> str:
    """The duration in the unit that reads best; `seconds_of` gives the same number again."""
    if seconds == 0:
        return "0 s"
    for unit in ("w", "d", "h", "min", "s", "ms", "us"):
        text = f"{seconds / SECONDS[unit]:.0f} {unit}"
        if seconds_of(text) == seconds:
            return text
    return f"{seconds!r} s"


def rate_text(per_s: float) -> str:
    """The rate in the unit that reads best; `rate_of` gives the same number again."""
    for unit in ("s", "min", "h", "d"):
        text = f"{per_s * SECONDS[unit]:.6g}/{unit}"
        if per_s * SECONDS[unit] >= 1 and rate_of(text) == per_s:
            return text
    return f"{per_s!r}/s"


def share_text(share: float) -> str:
    """The share in per cent; `share_of` gives the same number again."""
    text = f"{share * 100:.6g} %"
    return text if share_of(text) == share else repr(share)


def money_text(money: tuple[float, str]) -> str:
    """The amount and its currency."""
    return f"{money[0]!r} {money[1]}"
