"""What the pictures of a report have in common: colours, forms, and how one is put together, as Vega-Lite.

Colours are those of Okabe and Ito, which people with any kind of colour vision tell apart, and which stand out on light
and on dark ground. Ink, grid and ground are left to the style sheet of the page.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import altair as alt

Document = Mapping[str, Any]
BLUE: Final = "#0072B2"
SKY: Final = "#56B4E9"
GREEN: Final = "#009E73"
ORANGE: Final = "#E69F00"
VERMILION: Final = "#D55E00"
PURPLE: Final = "#CC79A7"
GREY: Final = "#8A8A8A"
COLOURS: Final = (BLUE, ORANGE, GREEN, PURPLE, VERMILION, SKY)
APART: Final = alt.Scale(zero=False, padding=14)
ROW_AXIS: Final = alt.Axis(ticks=False, labelPadding=6, labelLimit=190)
HEIGHT: Final = 220


@dataclass(slots=True, frozen=True)
class Chart:
    """A picture with its heading, and a sentence that says how to read it."""

    name: str
    title: str
    caption: str
    spec: dict[str, Any]


def finished(name: str, title: str, caption: str, *layers: alt.Chart, height: int = HEIGHT) -> Chart:
    """The layers as one picture, as wide as its place; readers that see no pictures hear title and caption."""
    whole = alt.layer(*layers).properties(width="container", height=height, description=f"{title}. {caption}")
    return Chart(name, title, caption, whole.to_dict())


def rows_of(values: Sequence[Mapping[str, Any]]) -> alt.Chart:
    """A layer without a form, over these rows."""
    return alt.Chart(alt.InlineData(values=list(values)))


def dots(values: Sequence[Mapping[str, Any]], centre: str, title: str, more: Sequence[str]) -> list[alt.Chart]:
    """Shares with their intervals beside 0, one row a figure."""
    rows = rows_of(values)
    axis = alt.Axis(format="+~%", tickCount=6)
    names = [value["figure"] for value in values]
    y = alt.Y("figure:N", sort=names, title=None, axis=ROW_AXIS)
    zero = rows_of([{"zero": 0}]).mark_rule(color=GREY, strokeWidth=1.5).encode(x="zero:Q")
    rule = rows.mark_rule(color=BLUE, strokeWidth=2.5).encode(
        x=alt.X("low:Q", title=title, axis=axis), x2="high:Q", y=y
    )
    dot = rows.mark_point(filled=True, size=70, color=BLUE, opacity=1).encode(
        x=alt.X(f"{centre}:Q", title=title, axis=axis), y=y, tooltip=["figure:N", f"{centre}:Q", *more]
    )
    return [zero, rule, dot]
