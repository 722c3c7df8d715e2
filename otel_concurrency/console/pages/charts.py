"""ECharts options: the few kinds of chart that the pages use, readable on light and on dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from otel_concurrency.console.pages.formats import amount, clock

GREY = "#8a93a3"
LINE = "rgba(138,147,163,0.22)"
COLOURS = ["#4c8dff", "#f2a33a", "#33b27b", "#e5566d", "#9a6cf0", "#20b5c7", "#c98b5e", "#8a93a3"]
PART_COLOURS = {"cpu": "#4c8dff", "run queue": "#f2a33a", "blocked": "#e5566d", "idle": "#33b27b55"}


def lines(
    starts_ns: Sequence[int],
    series: Mapping[str, Sequence[float | None]],
    *,
    unit: str = "",
    stacked: bool = False,
    colours: Mapping[str, str] | None = None,
    highest: float | None = None,
    marks: Sequence[tuple[int, str, str]] = (),
) -> dict[str, Any]:
    """Return lines over time.

    Args:
        starts_ns: When each step begins.
        series: Values by name, one a step.
        unit: Of the values; tells how they are written on the axis.
        stacked: Areas on top of one another.
        colours: By name.
        highest: The end of the axis.
        marks: Instants that are marked: ns since the epoch, what it is, and where it leads.
    """
    told = colours or {}
    drawn: list[dict[str, Any]] = [
        {
            "name": name,
            "type": "line",
            "showSymbol": False,
            "connectNulls": not stacked,  # a stack would lean over the hole
            "data": [[at // 1_000_000, value] for at, value in zip(starts_ns, values, strict=False)],
            **(
                {"stack": "all", "areaStyle": {"opacity": 0.75}, "lineStyle": {"width": 0}} if stacked else {}
            ),
            **({"itemStyle": {"color": told[name]}} if name in told else {}),
        }
        for name, values in series.items()
    ]
    if marks:
        top = highest if highest is not None else 0
        drawn.append(
            {
                "name": "stalls",
                "type": "scatter",
                "symbol": "triangle",
                "symbolSize": 9,
                "itemStyle": {"color": "#e5566d"},
                "data": [
                    {"value": [at // 1_000_000, top], "name": name, "href": href} for at, name, href in marks
                ],
            }
        )
    return {
        **_base(unit),
        "xAxis": _time_axis(starts_ns),
        "yAxis": _axis(unit) | ({"max": highest} if highest is not None else {}),
        "legend": {"top": 0, "right": 0, "type": "scroll", "textStyle": {"color": GREY}, "itemHeight": 8},
        "series": drawn,
    }


def heat_map(
    starts_ns: Sequence[int], rows: Sequence[float], cells: Sequence[tuple[int, int, int]], *, unit: str = ""
) -> dict[str, Any]:
    """Return a histogram over time: a column a step, a row a bucket, darker where there are more."""
    most = max((held for _, _, held in cells), default=1)
    axis = {
        "axisLabel": {"color": GREY, "fontSize": 10},
        "splitLine": {"show": False},
        "axisTick": {"show": False},
    }
    times = [clock(at)[:8] for at in starts_ns]
    return {
        **_base(),
        "tooltip": {"renderMode": "richText", "trigger": "item"},
        "grid": {"left": 76, "right": 14, "top": 8, "bottom": 24},
        "xAxis": {"type": "category", "data": times, **axis},
        "yAxis": {"type": "category", "data": [f"≤ {amount(bound, unit)}" for bound in rows], **axis},
        "visualMap": {
            "show": False,
            "min": 0,
            "max": most,
            "inRange": {"color": ["rgba(76,141,255,0.14)", "rgba(76,141,255,0.75)", "#9a6cf0", "#f2803a"]},
        },
        "series": [{"type": "heatmap", "data": [list(cell) for cell in cells], "progressive": 0}],
    }


def dots(
    points: Sequence[tuple[int, float, str, str]], *, unit: str = "s", colours: Sequence[str] = ()
) -> dict[str, Any]:
    """Return points over time that lead somewhere: ns since the epoch, value, name, URL."""
    return {
        **_base(),
        "grid": {"left": 64, "right": 14, "top": 10, "bottom": 24},
        "tooltip": {"renderMode": "richText", "trigger": "item", "formatter": "{b}"},
        "xAxis": _time_axis([point[0] for point in points]),
        "yAxis": _axis(unit),
        "series": [
            {
                "type": "scatter",
                "symbolSize": 7,
                "cursor": "pointer",
                "data": [
                    {
                        "value": [at // 1_000_000, value],
                        "name": name,
                        "href": href,
                        **({"itemStyle": {"color": colours[place]}} if place < len(colours) else {}),
                    }
                    for place, (at, value, name, href) in enumerate(points)
                ],
            }
        ],
    }


def graph(nodes: Mapping[str, tuple[str, str]], edges: Sequence[tuple[str, str, str, str]]) -> dict[str, Any]:
    """Return circles and arrows.

    Args:
        nodes: A note and a URL by name.
        edges: From, to, what stands at the arrow, and its colour.
    """
    return {
        "animation": False,
        "textStyle": {"fontFamily": "inherit"},
        "tooltip": {"renderMode": "richText", "trigger": "item", "formatter": "{b}"},
        "series": [
            {
                "type": "graph",
                "layout": "circular",
                "symbolSize": 26,
                "edgeSymbol": ["none", "arrow"],
                "left": 90,
                "right": 90,
                "top": 30,
                "bottom": 30,
                "label": {"show": True, "position": "right", "color": GREY, "fontSize": 12},
                "itemStyle": {"color": COLOURS[0]},
                "data": [
                    {
                        "id": name,
                        "name": f"{name} {note}".strip(),
                        "href": href,
                    }
                    for name, (note, href) in nodes.items()
                ],
                "links": [
                    {
                        "source": source,
                        "target": target,
                        "name": f"{source} to {target}: {note}",
                        "lineStyle": {"color": colour, "curveness": 0.15, "width": 2},
                        "label": {
                            "show": True,
                            "formatter": note.replace("{", "("),
                            "color": GREY,
                            "fontSize": 10,
                        },
                    }
                    for source, target, note, colour in edges
                ],
            }
        ],
    }


def bars(names: Sequence[str], values: Sequence[float], *, unit: str = "") -> dict[str, Any]:
    """Return upright bars, one a name."""
    return {
        **_base(unit),
        "grid": {"left": 48, "right": 8, "top": 8, "bottom": 24},
        "xAxis": {"type": "category", "data": list(names), "axisLabel": {"color": GREY, "fontSize": 10}},
        "yAxis": _axis(unit),
        "series": [{"type": "bar", "data": list(values), "barCategoryGap": "12%"}],
    }


def _base(unit: str = "") -> dict[str, Any]:
    told = {":valueFormatter": f"v => v == null ? '-' : ({_LABELS[unit]})(v)"} if unit in _LABELS else {}
    return {
        "animation": False,
        "color": COLOURS,
        "textStyle": {"fontFamily": "inherit"},
        "useUTC": True,
        "grid": {"left": 64, "right": 14, "top": 30, "bottom": 24},
        # Rich text is drawn, not parsed: a name cannot become HTML there.
        "tooltip": {"renderMode": "richText", "trigger": "axis", "confine": True, **told},
    }


def _time_axis(starts_ns: Sequence[int]) -> dict[str, Any]:
    ends = {"min": min(starts_ns) // 1_000_000, "max": max(starts_ns) // 1_000_000} if starts_ns else {}
    return {
        "type": "time",
        "axisLabel": {"color": GREY, "hideOverlap": True, "fontSize": 10},
        "axisLine": {"lineStyle": {"color": LINE}},
        "splitLine": {"show": False},
        **(ends if len(starts_ns) > 1 else {}),
    }


def _axis(unit: str) -> dict[str, Any]:
    label: dict[str, Any] = {"color": GREY, "fontSize": 10}
    # A colon marks JavaScript: ours, with nothing in it that was received.
    if unit in _LABELS:
        label[":formatter"] = _LABELS[unit]
    return {"type": "value", "axisLabel": label, "splitLine": {"lineStyle": {"color": LINE}}, "min": 0}


_LABELS = {
    "s": "v => v === 0 ? '0' : v >= 1 ? +v.toPrecision(3) + ' s'"
    " : v >= 1e-3 ? +(v*1e3).toPrecision(3) + ' ms' : +(v*1e6).toPrecision(3) + ' µs'",
    "share": "v => Math.round(v*100) + ' %'",
    "By": "v => v >= 1073741824 ? +(v/1073741824).toPrecision(3) + ' GiB' : v >= 1048576"
    " ? +(v/1048576).toPrecision(3) + ' MiB' : v >= 1024 ? +(v/1024).toPrecision(3) + ' KiB' : v + ' B'",
}
