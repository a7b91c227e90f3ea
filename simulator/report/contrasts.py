"""Pictures of several answers side by side: differences, sweeps, fleets; and of simulation beside truth and twin."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

import altair as alt

from simulator.report.charts import (
    APART,
    BLUE,
    COLOURS,
    GREEN,
    GREY,
    ORANGE,
    ROW_AXIS,
    VERMILION,
    Chart,
    Document,
    dots,
    finished,
    rows_of,
)

DIFFERENCES_MAX: Final = 14
CURVES_MAX: Final = 4
LABELS_MAX: Final = 8
"""Points with their names beside them; more would hide one another."""


# --- compare, sweep, solve ------------------------------------------------------------------------------------------


def differences(document: Document) -> Chart | None:
    """Paired differences, day by day."""
    seen = [
        (name, one)
        for name, one in document["figures"].items()
        if one["share"] is not None and one["half_width"] is not None and one["first"]
    ]
    asked = {text.split()[0] for text in document["objectives"]}
    # What was asked for first, then what changes most.
    seen.sort(key=lambda pair: (pair[0] not in asked, not pair[1]["clear"], -abs(pair[1]["share"])))
    values, days = [], []
    for name, one in seen[:DIFFERENCES_MAX]:
        scale = abs(one["first"])
        values.append(
            {
                "figure": name,
                "share": one["share"],
                "low": (one["difference"] - one["half_width"]) / scale,
                "high": (one["difference"] + one["half_width"]) / scale,
                "first": one["first"],
                "second": one["second"],
            }
        )
        days += [{"figure": name, "share": day / scale} for day in document["days"][name] if day is not None]
    if not values:
        return None
    names = [value["figure"] for value in values]
    ticks = (
        rows_of(days)
        .mark_tick(color=ORANGE, opacity=0.7, thickness=1.5)
        .encode(x="share:Q", y=alt.Y("figure:N", sort=names, title=None))
    )
    title = f"{document['second']} against {document['first']}, as a share of the latter"
    zero, *means = dots(values, "share", title, ["first:Q", "second:Q"])
    return finished(
        "differences",
        "What changes, day by day",
        "Both saw the same days. Ticks are the days, the dot is their mean with its interval: what leaves out 0 is "
        "more than chance.",
        zero,
        ticks,
        *means,
        height=max(90, 30 * len(values)),
    )


def curves(document: Document) -> Iterator[Chart]:
    """One picture for each figure that objectives ask for."""
    axis, *others = document["axes"]
    asked = list(
        dict.fromkeys(one["figure"] for point in document["points"] for one in point["objectives"] if "lost" not in one)
    )
    for figure in [name for name in asked if name != "lost"][:CURVES_MAX]:
        rows = [
            {
                "x": point["changes"][axis],
                "value": seen["value"],
                "low": seen["value"] - (seen["half_width"] or 0),
                "high": seen["value"] + (seen["half_width"] or 0),
                "of": ", ".join(f"{key.rpartition('.')[2]} {point['changes'][key]}" for key in others) or figure,
            }
            for point in document["points"]
            if (seen := point["figures"].get(figure)) is not None and seen["value"] is not None
        ]
        unstable = [{"x": point["changes"][axis], "why": point["unstable"]} for point in document["points"]]
        if rows:
            yield _curve(figure, axis, rows, [one for one in unstable if one["why"]], _bounds(document, figure))


def _bounds(document: Document, figure: str) -> list[dict[str, Any]]:
    found = {
        one["bound"]: one["objective"]
        for point in document["points"]
        for one in point["objectives"]
        if one["figure"] == figure
    }
    return [{"bound": bound, "objective": text} for bound, text in found.items()]


def _curve(
    figure: str,
    axis: str,
    values: list[dict[str, Any]],
    unstable: list[dict[str, Any]],
    bounds: list[dict[str, Any]],
) -> Chart:
    numeric = all(isinstance(row["x"], int | float) for row in (*values, *unstable))
    x = alt.X("x:Q" if numeric else "x:O", title=axis, scale=APART if numeric else alt.Undefined)
    y = alt.Y("value:Q", title=figure)
    names = list(dict.fromkeys(row["of"] for row in values))
    colour = alt.Color(
        "of:N",
        scale=alt.Scale(domain=names, range=[COLOURS[number % len(COLOURS)] for number in range(len(names))]),
        legend=alt.Legend(orient="top", title=None) if len(names) > 1 else None,
    )
    rows = rows_of(values)
    layers = [
        rows.mark_line(strokeWidth=1.8).encode(x=x, y=y, color=colour),
        rows.mark_rule(strokeWidth=2).encode(x=x, y=alt.Y("low:Q", title=figure), y2="high:Q", color=colour),
        rows.mark_point(filled=True, size=55, opacity=1).encode(
            x=x, y=y, color=colour, tooltip=["x:N", "of:N", "value:Q", "low:Q", "high:Q"]
        ),
    ]
    if bounds:
        layers.append(
            rows_of(bounds).mark_rule(color=VERMILION, strokeDash=[5, 4]).encode(y="bound:Q", tooltip=["objective:N"])
        )
    if unstable:
        layers.append(
            rows_of(unstable)
            .mark_point(shape="cross", size=90, angle=45, color=VERMILION, filled=True, opacity=1)
            .encode(x=x, y=alt.value(8), tooltip=["x:N", "why:N"])
        )
    return finished(
        f"curve-{figure}",
        f"{figure} by {axis.rpartition('.')[2]}",
        "Means with intervals; the dashed line is the objective, a cross at the top a backlog that grows without end.",
        *layers,
    )


def cost(document: Document) -> Chart | None:
    """Cost against the latency that objectives look at, or else the worst p99."""
    points = [point for point in document["points"] if point["figures"]]
    if not points:
        return None
    figures = points[0]["figures"]
    latency = next((name for name in figures if name.endswith(".latency.p99")), None)
    paid = next((name for name in ("cost.per-hour", *figures) if name in figures and _is_price(name)), None)
    if latency is None or paid is None:
        return None
    values = [
        {
            "cost": point["figures"][paid]["value"],
            "p99": point["figures"][latency]["value"],
            "low": point["figures"][latency]["value"] - (point["figures"][latency]["half_width"] or 0),
            "high": point["figures"][latency]["value"] + (point["figures"][latency]["half_width"] or 0),
            "what": " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in point["changes"].items()),
            "verdict": _verdict(point),
        }
        for point in points
        if point["figures"][latency]["value"] is not None
    ]
    rows = rows_of(values)
    x = alt.X("cost:Q", title=paid, scale=APART)
    y = alt.Y("p99:Q", title=f"{latency}, seconds")
    scale = alt.Scale(domain=["met", "missed", "not precise enough"], range=[GREEN, VERMILION, GREY])
    shape = alt.Scale(domain=["met", "missed", "not precise enough"], range=["circle", "diamond", "square"])
    colour = alt.Color("verdict:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    names = rows.mark_text(align="left", dx=8, dy=-7, fontSize=11).encode(x=x, y=y, text="what:N")
    return finished(
        "cost",
        "What it costs, and how long the slowest wait",
        "Each dot is one point of the sweep. Lower and further left is better; no dot can be both for free.",
        rows.mark_rule(strokeWidth=2).encode(
            x=x, y=alt.Y("low:Q", title=f"{latency}, seconds"), y2="high:Q", color=colour
        ),
        rows.mark_point(filled=True, size=90, opacity=1).encode(
            x=x, y=y, color=colour, shape=alt.Shape("verdict:N", scale=shape), tooltip=["what:N", "cost:Q", "p99:Q"]
        ),
        *([names] if len(values) <= LABELS_MAX else []),
        height=260,
    )


def _is_price(name: str) -> bool:
    return name == "cost.per-hour" or name.endswith(".agents.mean")


def _verdict(point: Mapping[str, Any]) -> str:
    verdicts = {one["verdict"] for one in point["objectives"]}
    return next((one for one in ("missed", "not precise enough") if one in verdicts), "met")


def fleets(document: Document) -> Chart | None:
    """The fleets that were tried."""
    values = [
        {
            "n": one["n"],
            "p99": one["p99_s"],
            "low": one["p99_s"] - (one["half_width"] or 0),
            "high": one["p99_s"] + (one["half_width"] or 0),
            "verdict": "met" if one["met"] else "missed",
        }
        for one in document["evaluated"]
        if one.get("p99_s") is not None and not one["unstable"]
    ]
    unstable = [{"n": one["n"], "why": "a backlog grows"} for one in document["evaluated"] if one["unstable"]]
    if not values:
        return None
    rows = rows_of(values)
    x = alt.X("n:Q", title="agents", scale=APART, axis=alt.Axis(tickMinStep=1, format="d"))
    scale = alt.Scale(domain=["met", "missed"], range=[GREEN, VERMILION])
    shape = alt.Scale(domain=["met", "missed"], range=["circle", "diamond"])
    colour = alt.Color("verdict:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    layers = [
        rows.mark_rule(strokeWidth=2).encode(x=x, y=alt.Y("low:Q", title="p99, seconds"), y2="high:Q", color=colour),
        rows.mark_point(filled=True, size=90, opacity=1).encode(
            x=x,
            y=alt.Y("p99:Q", title="p99, seconds"),
            color=colour,
            shape=alt.Shape("verdict:N", scale=shape),
            tooltip=["n:Q", "p99:Q", "verdict:N"],
        ),
    ]
    if unstable:
        layers.append(
            rows_of(unstable)
            .mark_point(shape="cross", size=90, angle=45, color=VERMILION, filled=True, opacity=1)
            .encode(x=x, y=alt.value(8), tooltip=["n:Q", "why:N"])
        )
    return finished(
        "fleets",
        "The fleets that were tried",
        "Means with intervals. A cross at the top is a fleet whose backlog grows without end.",
        *layers,
    )


# --- verify, emulate ------------------------------------------------------------------------------------------------


def truth(document: Document) -> Chart | None:
    """Cases of the truth table."""
    values = [
        {
            "figure": f"{one['id']} {one['figure']}",
            "off": max(-2.0, min(2.0, (one["simulated"] - one["truth"]) / one["bound"])),
            "low": max(-2.0, (one["simulated"] - one["half_width"] - one["truth"]) / one["bound"]),
            "high": min(2.0, (one["simulated"] + one["half_width"] - one["truth"]) / one["bound"]),
            "truth": one["truth"],
            "simulated": one["simulated"],
        }
        for one in document["cases"]
        if one["bound"]
    ]
    return _against_bound("truth", "Truth beside the simulation", "deviation, in allowed deviations", values)


def twin(document: Document) -> Chart | None:
    """Errors of the simulation beside a real broker."""
    values = [
        {
            "figure": name,
            "off": max(-2.0, min(2.0, one["error"] / one["bar"])),
            "low": 0.0,
            "high": max(-2.0, min(2.0, one["error"] / one["bar"])),
            "truth": one["real"],
            "simulated": one["simulated"],
        }
        for name, one in document["figures"].items()
        if one["bar"] and one["error"] is not None
    ]
    return _against_bound("twin", "The real broker beside its twin", "error, in allowed errors", values)


def _against_bound(name: str, title: str, axis: str, values: list[dict[str, Any]]) -> Chart | None:
    if not values:
        return None
    rows = rows_of(values)
    y = alt.Y("figure:N", sort=[value["figure"] for value in values], title=None, axis=ROW_AXIS)
    x = alt.X("off:Q", title=axis, scale=alt.Scale(domain=[-2, 2]))
    inside = (
        rows_of([{"from": -1, "until": 1}])
        .mark_rect(color=GREEN, opacity=0.15)
        .encode(x=alt.X("from:Q", title=axis, scale=alt.Scale(domain=[-2, 2])), x2="until:Q")
    )
    return finished(
        name,
        title,
        "Inside the green band is as near as is asked for. What lies further out than the axis is drawn at its end.",
        inside,
        rows.mark_rule(color=BLUE, strokeWidth=2).encode(x="low:Q", x2="high:Q", y=y),
        rows.mark_point(filled=True, size=60, color=BLUE, opacity=1).encode(
            x=x, y=y, tooltip=["figure:N", "truth:Q", "simulated:Q"]
        ),
        height=max(90, 20 * len(values)),
    )
