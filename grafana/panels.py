"""What every panel has: a datasource that can be chosen, a unit, a description, queries made from `broker.series`."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from grafana_foundation_sdk.builders import common, prometheus, stat, timeseries
from grafana_foundation_sdk.models.common import (
    BigValueColorMode,
    BigValueGraphMode,
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
    VisibilityMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef

from broker.series import Series

DATASOURCE: Final = DataSourceRef(type_val="prometheus", uid="$datasource")
GROUP: Final = 'group=~"$group"'
RATE: Final = "$__rate_interval"
REFS: Final = "ABCDEFGH"

PER_SECOND: Final = "ops"
SECONDS: Final = "s"
NUMBER: Final = "short"
SHARE: Final = "percentunit"
BYTES: Final = "bytes"

GRID: Final = 24
STAT_HEIGHT: Final = 4
GRAPH_HEIGHT: Final = 8


class Query(NamedTuple):
    """A PromQL expression and the name of its lines."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """One panel. `width` is in 24ths of the page; `at_most` is the top of the axis where there is a natural one."""

    title: str
    description: str
    unit: str
    queries: Sequence[Query]
    width: int = 8
    is_number: bool = False
    is_stacked: bool = False
    at_most: float | None = None

    def build(self, number: int) -> stat.Panel | timeseries.Panel:
        """The panel as the library has it; `number` is its id, which links to it name."""
        panel = _number() if self.is_number else _graph(is_stacked=self.is_stacked)
        panel.id(number).title(self.title).description(self.description).unit(self.unit).datasource(DATASOURCE)
        panel.height(STAT_HEIGHT if self.is_number else GRAPH_HEIGHT).span(self.width).min(0)
        if self.at_most is not None:
            panel.max(self.at_most)
        for ref, query in zip(REFS, self.queries, strict=False):
            target = prometheus.Dataquery().ref_id(ref).expr(query.expression).legend_format(query.legend)
            panel.with_target(target.instant() if self.is_number else target.range())
        return panel


def select(one: Series, *matchers: str, suffix: str = "") -> str:
    """The samples of a series, in the chosen groups if it has groups."""
    chosen = ([GROUP] if "group" in one.labels else []) + list(matchers)
    return f"{one.name}{suffix}" + (f"{{{', '.join(chosen)}}}" if chosen else "")


def rate(one: Series, *matchers: str, suffix: str = "") -> str:
    """How fast a counter grows, a second."""
    return f"rate({select(one, *matchers, suffix=suffix)}[{RATE}])"


def quantiles(one: Series, *shares: float, by: str = "") -> list[Query]:
    """Quantiles of a histogram over all chosen groups, or `by` a label."""
    labels = f"le, {by}" if by else "le"
    prefix = f"{{{{{by}}}}} " if by else ""
    grown = f"sum by ({labels}) ({rate(one, suffix='_bucket')})"
    return [Query(f"histogram_quantile({share}, {grown})", f"{prefix}p{share * 100:g}") for share in shares]


def mean(one: Series, by: str) -> str:
    """The mean of what a histogram saw lately, by a label."""
    return f"sum by ({by}) ({rate(one, suffix='_sum')}) / sum by ({by}) ({rate(one, suffix='_count')})"


def _number() -> stat.Panel:
    panel = stat.Panel().graph_mode(BigValueGraphMode.NONE).color_mode(BigValueColorMode.VALUE)
    return panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))


def _graph(*, is_stacked: bool) -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(LegendDisplayMode.LIST).placement(LegendPlacement.BOTTOM)
    tooltip = common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING)
    panel = timeseries.Panel().draw_style(GraphDrawStyle.LINE).show_points(VisibilityMode.NEVER)
    panel.legend(legend.show_legend(True)).tooltip(tooltip)
    if is_stacked:
        panel.fill_opacity(30).stacking(common.StackingConfig().mode(StackingMode.NORMAL).group("A"))
    return panel
