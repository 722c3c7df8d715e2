"""The kinds of panels that the dashboards are made of, and the frame that they share."""

from __future__ import annotations

from collections.abc import Iterable

from _prometheus_names import prometheus_name
from grafana_foundation_sdk.builders import common, dashboard, heatmap, logs, loki, prometheus, stat, table
from grafana_foundation_sdk.builders import timeseries as graphs
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    LegendPlacement,
    ScaleDistribution,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    DataSourceRef,
    DataTransformerConfig,
    DynamicConfigValue,
    Threshold,
    VariableOption,
    VariableRefresh,
)
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from _dashboards.promql import series
from otel_concurrency.signals import names

PROMETHEUS = DataSourceRef("prometheus", "prometheus")
LOKI = DataSourceRef("loki", "loki")
TAG = "otel-concurrency"

Query = tuple[str, str]
"""An expression and the legend of its lines."""

WIDE, HALF, THIRD, TILE = 24, 12, 8, 4
HEIGHT, TILE_HEIGHT = 8, 4


def graph(
    title: str,
    unit: str,
    *queries: Query,
    span: int = HALF,
    stacked: bool = False,
    top: float | None = None,
    description: str = "",
) -> graphs.Panel:
    """Return lines over time; `stacked` ones fill the area below them."""
    panel = (
        graphs.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .min(0)
        .span(span)
        .height(HEIGHT)
        .draw_style(GraphDrawStyle.LINE)
        .line_width(1)
        .fill_opacity(60 if stacked else 8)
        .tooltip(common.VizTooltipOptions().mode(TooltipDisplayMode.MULTI))
        .legend(
            common.VizLegendOptions()
            .display_mode(LegendDisplayMode.LIST)
            .placement(LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if stacked:
        panel.stacking(common.StackingConfig().mode(StackingMode.NORMAL))
    if top is not None:
        panel.max(top)
    for letter, (expression, legend) in zip("ABCDEFGHIJKL", queries, strict=False):
        panel.with_target(
            prometheus.Dataquery()
            .ref_id(letter)
            .expr(expression)
            .legend_format(legend)
            .range()
            .exemplar(True)
        )
    return panel


def heat(title: str, expression: str, span: int = HALF, description: str = "") -> heatmap.Panel:
    """Return a native histogram over time: how many values fell into which bucket."""
    return (
        heatmap.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .span(span)
        .height(HEIGHT)
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit("s"))
        .scale_distribution(common.ScaleDistributionConfig().type(ScaleDistribution.LOG).log(2))
        .with_target(
            prometheus.Dataquery()
            .ref_id("A")
            .expr(expression)
            .format(PromQueryFormat.HEATMAP)
            .range()
            .exemplar(True)
        )
    )


def tile(
    title: str,
    unit: str,
    expression: str,
    *,
    span: int = TILE,
    bad_from: float | None = None,
    description: str = "",
) -> stat.Panel:
    """Return one number; red from `bad_from` on."""
    steps = [Threshold(value=None, color="green")]
    if bad_from is not None:
        steps.append(Threshold(value=bad_from, color="red"))
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .unit(unit)
        .no_value("none")
        .span(span)
        .height(TILE_HEIGHT)
        .thresholds(dashboard.ThresholdsConfig().steps(steps))
        .with_target(prometheus.Dataquery().ref_id("A").expr(expression).instant())
    )


def rows(
    title: str, columns: dict[str, tuple[str, str]], by: tuple[str, ...], description: str = ""
) -> table.Panel:
    """Return a table: a row for each value of `by`; `columns` are title to unit and expression."""
    panel = (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(PROMETHEUS)
        .span(WIDE)
        .height(HEIGHT * 2)
    )
    renamed = {}
    for letter, (column, (unit, expression)) in zip("ABCDEFGHIJKL", columns.items(), strict=False):
        panel.with_target(
            prometheus.Dataquery().ref_id(letter).expr(expression).instant().format(PromQueryFormat.TABLE)
        )
        renamed[f"Value #{letter}"] = column
        panel.override_by_name(column, [DynamicConfigValue("unit", unit)])
    panel.with_transformation(DataTransformerConfig(id_val="merge", options={}))
    panel.with_transformation(
        DataTransformerConfig(
            id_val="organize",
            options={
                "excludeByName": {"Time": True},
                "renameByName": renamed,
                "indexByName": dict.fromkeys(by, 0),
            },
        )
    )
    return panel


def log_lines(title: str, query: str, span: int = WIDE) -> logs.Panel:
    """Return log records of Loki, each with a link to its trace."""
    return (
        logs.Panel()
        .title(title)
        .datasource(LOKI)
        .span(span)
        .height(HEIGHT)
        .show_time(True)
        .enable_log_details(True)
        .with_target(loki.Dataquery().ref_id("A").expr(query))
    )


def frame(uid: str, title: str, description: str) -> dashboard.Dashboard:
    """Return an empty dashboard with what all have: the variables, the links and the marks of stalls."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags([TAG])
        .time("now-1h", "now")
        .refresh("30s")
        .tooltip(DashboardCursorSync.CROSSHAIR)
        .editable()
        .link(
            dashboard.DashboardLink(TAG)
            .type(DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
            .include_vars(True)
        )
        .annotation(
            dashboard.AnnotationQuery()
            .name("Stalls")
            .datasource(PROMETHEUS)
            .enable(True)
            .icon_color("red")
            .expr(f"sum by (instance) (increase({series(names.EVENTLOOP_STALLS)}[2m])) > 0")
        )
    )
    uptime = prometheus_name(names.PROCESS_UPTIME)
    for name, label, query in (
        ("job", "Service", f"label_values({uptime}, job)"),
        ("instance", "Process", f'label_values({uptime}{{job=~"$job"}}, instance)'),
    ):
        board.with_variable(
            dashboard.QueryVariable(name)
            .label(label)
            .datasource(PROMETHEUS)
            .query(query)
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".+")
            .current(VariableOption(selected=True, text="All", value="$__all"))
        )
    return board


def row(title: str, board: dashboard.Dashboard, panels: Iterable[object], *, repeat: str = "") -> None:
    """Add a row of panels; `repeat` names the variable of which each value gets a row of its own."""
    header = dashboard.Row(title)
    if repeat:
        header.repeat(repeat)
    board.with_row(header)
    for panel in panels:
        board.with_panel(panel)  # type: ignore[arg-type]
