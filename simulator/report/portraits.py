"""Pictures of one answer: what happened when, how long jobs took, who did the work, and how near formulas are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import altair as alt

from simulator.report.charts import BLUE, COLOURS, GREY, ROW_AXIS, VERMILION, Chart, Document, dots, finished, rows_of

ROWS_MAX: Final = 48
"""Rows of the heat strip: of more agents, neighbours share one."""


# --- run: over time -------------------------------------------------------------------------------------------------


@dataclass(slots=True, frozen=True)
class _Clock:
    """The unit in which the axis of time is written."""

    seconds: float
    name: str

    @classmethod
    def of(cls, document: Document) -> "_Clock":
        end_s = document["timeline"]["t"][-1]
        known = ((7_200.0, 3_600.0, "hours"), (180.0, 60.0, "minutes"))
        return next((cls(unit, name) for above, unit, name in known if end_s >= above), cls(1.0, "seconds"))

    def axis(self, document: Document) -> alt.X:
        """The axis of time: the whole run."""
        return alt.X(
            "t:Q",
            title=f"{self.name} since the start",
            scale=alt.Scale(domain=[0, document["timeline"]["t"][-1] / self.seconds], nice=False),
        )


def _bands(document: Document, clock: _Clock) -> Iterator[alt.Chart]:
    """Faults as bands, the settling time as a line."""
    faults = [
        {"t": fault["from_s"] / clock.seconds, "until": fault["to_s"] / clock.seconds, "fault": fault["name"]}
        for fault in document["faults"]
    ]
    if faults:
        yield (
            rows_of(faults)
            .mark_rect(color=GREY, opacity=0.22)
            .encode(x=clock.axis(document), x2="until:Q", tooltip=["fault:N"])
        )
        yield (
            rows_of(faults)
            .mark_text(align="left", baseline="top", dx=4, dy=3, fontSize=11, clip=True)
            .encode(x=clock.axis(document), y=alt.value(0), text="fault:N")
        )
    if document["phases"] and document["phases"][0]["from_s"] > 0:
        settled = [{"t": document["phases"][0]["from_s"] / clock.seconds, "what": "figures begin"}]
        yield rows_of(settled).mark_rule(strokeDash=[2, 3], color=GREY).encode(x="t:Q", tooltip=["what:N"])


def _course_rows(document: Document, clock: _Clock, names: Mapping[str, str]) -> list[dict[str, Any]]:
    timeline = document["timeline"]
    return [
        {"t": at_s / clock.seconds, "what": label, "value": value, "least": least, "most": most}
        for name, label in names.items()
        for at_s, value, least, most in zip(
            timeline["t"], *(timeline[name][key] for key in ("mean", "least", "most")), strict=True
        )
    ]


def _lines_over_time(document: Document, clock: _Clock, names: Mapping[str, str], unit: str) -> list[alt.Chart]:
    rows = rows_of(_course_rows(document, clock, names))
    scale = alt.Scale(domain=list(names.values()), range=list(COLOURS[: len(names)]))
    legend = alt.Legend(orient="top", title=None, symbolType="stroke", symbolOpacity=1) if len(names) > 1 else None
    colour = alt.Color("what:N", scale=scale, legend=legend)
    band = rows.mark_area(opacity=0.18, interpolate="step-before").encode(
        x=clock.axis(document), y=alt.Y("least:Q", title=unit), y2="most:Q", color=colour
    )
    line = rows.mark_line(strokeWidth=1.8, interpolate="step-before").encode(
        x=clock.axis(document),
        y=alt.Y("value:Q", title=unit),
        color=colour,
        tooltip=["what:N", "t:Q", "value:Q", "least:Q", "most:Q"],
    )
    return [*_bands(document, clock), band, line]


def backlog(document: Document) -> Chart | None:
    """Jobs that wait, over time."""
    if not document["timeline"]:
        return None
    clock = _Clock.of(document)
    return finished(
        "backlog",
        "Jobs that wait",
        "Mean over the replications; the shade is from the least to the most. Grey bands are faults.",
        *_lines_over_time(document, clock, {"backlog": "waiting"}, "jobs"),
    )


def capacity(document: Document) -> Chart | None:
    """Slots and busy slots, over time."""
    timeline = document["timeline"]
    groups = [name.removesuffix(".slots") for name in timeline if name.endswith(".slots")]
    if not timeline or not groups:
        return None
    clock = _Clock.of(document)
    names = {
        f"{group}.{what}": f"{group} {words}"
        for group in groups[:3]
        for what, words in (("running", "busy"), ("slots", "slots"))
    }
    return finished(
        "capacity",
        "Slots, and how many are busy",
        "Slots of the agents that are up, and attempts that run on them. Where both meet, work must wait.",
        *_lines_over_time(document, clock, names, "slots"),
    )


def latency(document: Document) -> Chart | None:
    """Median and p99, by when jobs arrived."""
    if not document["windows"]:
        return None
    clock = _Clock.of(document)
    end_s = document["timeline"]["t"][-1]
    values = [
        {"t": end_s * (number + 0.5) / len(course) / clock.seconds, "what": _spoken(name), "value": value}
        for name, course in document["windows"].items()
        for number, value in enumerate(course)
        if value is not None
    ]
    if not values:
        return None
    names = [_spoken(name) for name in document["windows"]]
    colour = alt.Color(
        "what:N",
        scale=alt.Scale(domain=names, range=list(COLOURS[: len(names)])),
        legend=alt.Legend(orient="top", title=None, columns=2),
    )
    rows = rows_of(values)
    line = rows.mark_line(strokeWidth=1.8, point=alt.OverlayMarkDef(size=14)).encode(
        x=clock.axis(document),
        y=alt.Y("value:Q", title="seconds"),
        color=colour,
        tooltip=["what:N", "t:Q", "value:Q"],
    )
    return finished(
        "latency",
        "End to end, by when jobs arrived",
        "Half of the jobs that arrived then were done within the p50, all but one in a hundred within the p99.",
        *_bands(document, clock),
        line,
    )


def _spoken(figure: str) -> str:
    """`orders.latency.p99` as people say it."""
    return figure.replace(".latency.", " ").replace("p999", "p99.9")


# --- run: distributions and shares ----------------------------------------------------------------------------------


def ccdf(document: Document) -> Chart | None:
    """Which share of jobs takes longer than so long."""
    seen = {name: one for name, one in document["distributions"].items() if name.endswith((".latency", ".wait"))}
    values = [
        {"seconds": seconds, "share": share, "what": name.replace(".latency", " end to end").replace(".wait", " wait")}
        for name, one in seen.items()
        for seconds, share in one["points"]
        if share > 0 and seconds >= 1e-4
    ]
    if not values:
        return None
    rows = rows_of(values)
    names = list(dict.fromkeys(row["what"] for row in values))
    x = alt.X("seconds:Q", scale=alt.Scale(type="log"), title="seconds", axis=alt.Axis(format="~g", tickCount=6))
    y = alt.Y(
        "share:Q",
        scale=alt.Scale(type="log"),
        title="share of jobs that take longer",
        axis=alt.Axis(format="~%", tickCount=5),
    )
    colour = alt.Color(
        "what:N",
        scale=alt.Scale(domain=names, range=[COLOURS[number % len(COLOURS)] for number in range(len(names))]),
        legend=alt.Legend(orient="top", title=None, columns=2),
    )
    line = rows.mark_line(strokeWidth=1.8, interpolate="step-after", clip=True).encode(
        x=x, y=y, color=colour, tooltip=["what:N", "seconds:Q", alt.Tooltip("share:Q", format=".3%")]
    )
    bounds = list(_latency_bounds(document))
    layers = [line]
    if bounds:
        layers.append(
            rows_of(bounds)
            .mark_point(shape="triangle-left", filled=True, size=110, color=VERMILION, opacity=1)
            .encode(x=x, y=y, tooltip=["objective:N"])
        )
    return finished(
        "ccdf",
        "How many jobs take longer than that",
        "Both axes are logarithmic: each step down is ten times rarer. Triangles are objectives; curves are to pass "
        "left of them.",
        *layers,
        height=280,
    )


def _latency_bounds(document: Document) -> Iterator[dict[str, Any]]:
    shares = {"p50": 0.5, "p90": 0.1, "p95": 0.05, "p99": 0.01, "p999": 0.001}
    for one in document["objectives"]:
        head, _, quantile = one["figure"].rpartition(".")
        if head.endswith((".latency", ".wait")) and quantile in shares:
            yield {"seconds": one["bound"], "share": shares[quantile], "objective": one["objective"]}


def heat(document: Document) -> Chart | None:
    """What each agent was assigned, over time."""
    if not document["shares"]:
        return None
    clock = _Clock.of(document)
    values = [row for name, seen in document["shares"].items() for row in _heat_rows(seen, clock)]
    agents = list(dict.fromkeys(row["agent"] for row in values))
    rows = rows_of(values)
    y = alt.Y("agent:N", sort=agents, title=None, axis=alt.Axis(ticks=False, labelPadding=5, labelLimit=110))
    x2, tooltip = "until:Q", ["agent:N", "t:Q", "assigned:Q", alt.Tooltip("share:Q", title="of an even share")]
    there = (
        rows.transform_filter("datum.up")
        .mark_rect()
        .encode(
            x=clock.axis(document),
            x2=x2,
            y=y,
            color=alt.Color(
                "share:Q",
                scale=alt.Scale(domain=[0, 1, 2], range=[BLUE, "#EFEFEF", VERMILION], clamp=True, interpolate="rgb"),
                legend=alt.Legend(orient="top", title="1 = an even share", format="~g", values=[0, 0.5, 1, 1.5, 2]),
            ),
            tooltip=tooltip,
        )
    )
    away = (
        rows.transform_filter("!datum.up")
        .mark_rect(color=GREY, opacity=0.45)
        .encode(x=clock.axis(document), x2=x2, y=y, tooltip=["agent:N", "t:Q"])
    )
    return finished(
        "shares",
        "Who was given how much",
        "One row an agent, in the first replication: what it was assigned in each window, beside an even share among "
        "the agents that were up. Grey: the agent was not there throughout.",
        away,
        there,
        height=max(80, min(13 * len(agents), 640)),
    )


def _heat_rows(seen: Mapping[str, Any], clock: _Clock) -> Iterator[dict[str, Any]]:
    joined = -(-len(seen["agents"]) // ROWS_MAX)
    for window in range(len(seen["counts"][0])):
        up = [row[window] for row in seen["up"]]
        total = sum(row[window] for row, is_up in zip(seen["counts"], up, strict=True) if is_up)
        even = total / max(1, sum(up))
        for first in range(0, len(seen["agents"]), joined):
            part = range(first, min(first + joined, len(seen["agents"])))
            there = [number for number in part if up[number]]
            given = sum(seen["counts"][number][window] for number in there)
            last = seen["agents"][part[-1]].split()[0]
            yield {
                "agent": seen["agents"][first] if joined == 1 else f"{seen['agents'][first].split()[0]} … {last}",
                "t": (seen["from_s"] + window * seen["width_s"]) / clock.seconds,
                "until": (seen["from_s"] + (window + 1) * seen["width_s"]) / clock.seconds,
                "assigned": given,
                "share": round(given / len(there) / even, 4) if there and even else 0,
                "up": bool(there),
            }


def waterfall(document: Document) -> Chart | None:
    """The steps from a loss to running again."""
    figures = document["figures"]
    if not figures or not (figures.get("failover.detect.count") or {}).get("value"):
        return None
    steps = (
        ("detect", "the broker notices"),
        ("decide", "its jobs wait again"),
        ("reassign", "assigned again"),
        ("restart", "running again"),
    )
    values, before = [], 0.0
    for step, words in steps:
        until = figures[f"failover.{step}.mean"]["value"] or before
        most = figures[f"failover.{step}.max"]["value"]
        label = f"{words} {_text_s(max(0.0, until - before))}"
        values.append({"step": label, "from": min(before, until), "until": until, "most": most})
        before = max(before, until)
    rows = rows_of(values)
    y = alt.Y("step:N", sort=[row["step"] for row in values], title=None, axis=ROW_AXIS)
    end = max(value["most"] or value["until"] for value in values)
    x = alt.X("from:Q", title="seconds since the agent was lost", scale=alt.Scale(domain=[0, end * 1.04], nice=False))
    bar = rows.mark_bar(color=BLUE, stroke=BLUE, strokeWidth=1.5, height=18).encode(
        x=x, x2="until:Q", y=y, tooltip=["step:N", "from:Q", "until:Q", "most:Q"]
    )
    worst = rows.mark_tick(color=VERMILION, thickness=2.5, size=20).encode(x="most:Q", y=y, tooltip=["most:Q"])
    return finished(
        "failover",
        "From a lost agent to running again",
        "Mean of the jobs that it had, step by step; the red tick is the latest of all, averaged over replications.",
        bar,
        worst,
        height=150,
    )


def _text_s(seconds: float) -> str:
    return f"+{seconds:.3g} s" if seconds >= 1 else f"+{seconds * 1e3:.3g} ms"


def theory(document: Document) -> Chart | None:
    """How far formulas are from the simulation."""
    values = [
        {
            "figure": one["figure"],
            "off": one["simulated"] / one["theory"] - 1,
            "low": (one["simulated"] - (one["half_width"] or 0)) / one["theory"] - 1,
            "high": (one["simulated"] + (one["half_width"] or 0)) / one["theory"] - 1,
            "theory": one["theory"],
            "simulated": one["simulated"],
            "by": one["by"],
        }
        for one in document["theory"]
        if one["theory"] and one["simulated"] is not None
        # A wait of microseconds is the network's, and would hide all else.
        if abs(one["simulated"] / one["theory"] - 1) < 1
    ]
    if not values:
        return None
    return finished(
        "theory",
        "Formulas beside the simulation",
        "How far the simulation is from what a formula says about the same work, before any fault. Formulas know "
        "neither network nor broker.",
        *dots(values, "off", "deviation from the formula", ["by:N", "theory:Q", "simulated:Q"]),
        height=max(90, 34 * len(values)),
    )
