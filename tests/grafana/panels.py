"""The queries of the committed dashboards, as Grafana sends them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from grafana.generate import FOLDER
from tests.grafana.prometheus import RATE_S, Prometheus, PrometheusError

ALLOWED_EMPTY: Mapping[str, str] = {}
"""Panels that may be without data after the trouble of `tests.grafana.fleet`, and why; at most five."""


class PanelQuery(NamedTuple):
    """One query of one panel; `is_instant` as numbers are, else over time."""

    dashboard: str
    panel: str
    expression: str
    is_instant: bool

    @property
    def name(self) -> str:
        """Which panel it is, for people."""
        return f"{self.dashboard}: {self.panel}"


def dashboards() -> dict[str, Any]:
    """The dashboards by the name of their file."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels_of(dashboard: Any) -> list[dict[str, Any]]:
    """All panels but the rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def queries(found: Mapping[str, Any] | None = None) -> Iterator[PanelQuery]:
    """Every query of every panel, variables filled in: all groups."""
    for name, dashboard in (dashboards() if found is None else found).items():
        for panel in panels_of(dashboard):
            for target in panel["targets"]:
                yield PanelQuery(name, panel["title"], filled(target["expr"]), bool(target.get("instant")))


def filled(expression: str) -> str:
    """The expression with the values that Grafana puts in."""
    return expression.replace("$__rate_interval", f"{RATE_S * 1_000:.0f}ms").replace("$group", ".*")


class Executed(NamedTuple):
    """What became of the queries: how many were run, which were not understood, which panels have no data at all."""

    queries: int
    errors: list[str]
    empty: list[str]


async def execute(prometheus: Prometheus, found: Mapping[str, Any] | None = None) -> Executed:
    """Run every query over all that Prometheus has seen."""
    count = 0
    errors: list[str] = []
    has_data: dict[str, bool] = {}
    for query in queries(found):
        count += 1
        try:
            values = await (prometheus.query if query.is_instant else prometheus.history)(query.expression)
        except PrometheusError as error:
            errors.append(f"{query.name}: {error}")
            values = []
        has_data[query.name] = bool(values) and has_data.get(query.name, True)
    return Executed(count, errors, sorted(name for name, has in has_data.items() if not has))
