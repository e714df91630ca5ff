"""Panels of a few kinds, all alike but for what they ask and how it is to be read."""

from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    prometheus,
    stat,
    statetimeline,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.builders import table as tables
from grafana_foundation_sdk.models import common as style
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

DATASOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, ORANGE, RED, BLUE = "green", "orange", "red", "blue"
WHOLE: Final = 24  # the width of the page, in Grafana's columns
LINES_HEIGHT: Final = 8
TILE_HEIGHT: Final = 4
BARS_APART: Final = "5m"  # $__rate_interval is hardly more, so nothing is in two bars
LEVELS: Final = {"0": ("ok", GREEN), "1": ("warning", ORANGE), "2": ("critical", RED)}

Step = tuple[float | None, str]  # from this value on, this colour; None: from the lowest
Query = tuple[str, str]  # what is asked, and the legend
AnyPanel = TypeVar(
    "AnyPanel", stat.Panel, timeseries.Panel, statetimeline.Panel, bargauge.Panel, tables.Panel
)


def asked(expression: str, legend: str = "__auto") -> prometheus.Dataquery:
    return prometheus.Dataquery().expr(expression).legend_format(legend).ref_id("A")


def labelled(panel: AnyPanel, title: str, what: str, width: int, height: int) -> AnyPanel:
    panel.title(title).description(what).datasource(DATASOURCE).span(width).height(height)
    return panel


def colours(*steps: Step) -> build.ThresholdsConfig:
    rows = [model.Threshold(value=value, color=colour) for value, colour in steps]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(rows)


def names(mapping: Mapping[str, tuple[str, str]]) -> list[model.ValueMapping]:
    """Numbers shown as words in colours."""
    options = {
        number: model.ValueMappingResult(text=word, color=colour, index=int(number))
        for number, (word, colour) in mapping.items()
    }
    return [model.ValueMap(options=options)]


def tile(title: str, what: str, query: str, *steps: Step, width: int = 3) -> stat.Panel:
    """One number, as it is now."""
    panel = stat.Panel().with_target(asked(query).instant()).thresholds(colours(*steps))
    panel.unit("short").decimals(0).graph_mode(style.BigValueGraphMode.NONE)
    panel.color_mode(style.BigValueColorMode.BACKGROUND)
    return labelled(panel, title, what, width, TILE_HEIGHT)


def lines(
    title: str, what: str, unit: str, *queries: Query, width: int = 12, stacked: bool = False
) -> timeseries.Panel:
    panel = timeseries.Panel().unit(unit).min(0)
    for number, (query, legend) in enumerate(queries):
        panel.with_target(asked(query, legend).range().ref_id(chr(ord("A") + number)))
    panel.line_width(1).fill_opacity(30 if stacked else 8)
    panel.show_points(style.VisibilityMode.NEVER)
    if stacked:
        panel.stacking(common.StackingConfig().mode(style.StackingMode.NORMAL))
    panel.tooltip(
        common.VizTooltipOptions()
        .mode(style.TooltipDisplayMode.MULTI)
        .sort(style.SortOrder.DESCENDING)
    )
    below = common.VizLegendOptions().placement(style.LegendPlacement.BOTTOM).show_legend(True)
    panel.legend(below.display_mode(style.LegendDisplayMode.LIST))
    return labelled(panel, title, what, width, LINES_HEIGHT)


def bars(title: str, what: str, *queries: Query, width: int = 12) -> timeseries.Panel:
    """How often something has happened."""
    panel = lines(title, what, "short", *queries, width=width, stacked=True)
    panel.interval(BARS_APART)
    return panel.draw_style(style.GraphDrawStyle.BARS).fill_opacity(80).decimals(0)


def levels(title: str, what: str, query: str, legend: str, width: int = 12) -> statetimeline.Panel:
    panel = statetimeline.Panel().with_target(asked(query, legend).range())
    panel.mappings(names(LEVELS)).thresholds(colours((None, GREEN), (1, ORANGE), (2, RED)))
    panel.color_scheme(build.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    panel.show_value(style.VisibilityMode.NEVER)
    return labelled(panel, title, what, width, LINES_HEIGHT)


def gauges(
    title: str, what: str, query: str, legend: str, *steps: Step, width: int = 8
) -> bargauge.Panel:
    """One bar for each, as it is now."""
    panel = bargauge.Panel().with_target(asked(query, legend).instant())
    panel.thresholds(colours(*steps)).unit("short").decimals(0).min(0)
    panel.orientation(style.VizOrientation.HORIZONTAL)
    panel.display_mode(style.BarGaugeDisplayMode.BASIC)
    return labelled(panel, title, what, width, LINES_HEIGHT)


def table(
    title: str,
    what: str,
    columns: Sequence[tuple[str, str, str]],  # heading, query, unit
    width: int = WHOLE,
    worst_first: str = "",
) -> tables.Panel:
    """A row for each combination of labels that the queries have in common."""
    panel = tables.Panel()
    headings = {}
    for number, (heading, query, unit) in enumerate(columns):
        ref_id = chr(ord("A") + number)
        headings[value_column(ref_id, len(columns))] = heading
        panel.with_target(asked(query).instant().format(PromQueryFormat.TABLE).ref_id(ref_id))
        panel.override_by_name(heading, [model.DynamicConfigValue(id_val="unit", value=unit)])
    panel.override_by_name("machine", links_to_itself())
    panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    headings |= {"instance": "machine"}
    organized = {"excludeByName": {"Time": True}, "renameByName": headings}
    panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=organized))
    panel.filterable(True)
    if worst_first:
        panel.sort_by([common.TableSortByFieldState().display_name(worst_first).desc(True)])
    return labelled(panel, title, what, width, LINES_HEIGHT)


def value_column(ref_id: str, count: int) -> str:
    """How Grafana calls the value of one of *count* queries."""
    return f"Value #{ref_id}" if count > 1 else "Value"


def links_to_itself() -> list[model.DynamicConfigValue]:
    """A click on a machine shows that one alone."""
    url = "/d/oomwatchd?${datasource:queryparam}&${job:queryparam}&var-instance=${__value.raw}"
    link = {"title": "This machine alone", "url": f"{url}&${{__url_time_range}}"}
    return [model.DynamicConfigValue(id_val="links", value=[link])]
