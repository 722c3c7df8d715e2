"""Any metric by any attribute; histograms as heat-map and quantiles; exemplars that lead to their traces."""

from __future__ import annotations

from collections import defaultdict

from otel_concurrency.console.pages.blocks import Block, Chart, Html, Request
from otel_concurrency.console.pages.charts import dots, heat_map, lines
from otel_concurrency.console.pages.formats import amount
from otel_concurrency.console.pages.markup import Markup, empty, link, number, row, table, tag
from otel_concurrency.console.pages.overview import nothing_yet
from otel_concurrency.console.pages.parts import field, filters
from otel_concurrency.console.queries.loops import heat, step_starts
from otel_concurrency.console.queries.metrics import Metric, attribute_keys, exemplars, metrics
from otel_concurrency.console.queries.series import Value, fitting_steps, growth, levels, spreads

MAX_SERIES = 20
SERVICE, PROCESS = "service", "process"
KNOWN_UNITS = {"s": "s", "By": "By", "1": "share"}


def metrics_page(request: Request) -> list[Block]:
    """Return the page."""
    address = request.address
    every = metrics(request.reader, request.scope)
    part = address.get("q").lower()
    shown = [each for each in every if part in each.name.lower() or part in each.description.lower()]
    chosen = next((each for each in every if each.name == address.get("metric")), None)
    blocks: list[Block] = [Html(filters(address, field("q", address, "metric", size=36)))]
    if chosen:
        blocks += _detail(request, chosen)
    elif address.get("metric"):
        blocks.append(Html(empty("This metric was not told in this range", address.get("metric"))))
    if not every:
        blocks.append(nothing_yet(request))
    elif not shown:
        blocks.append(Html(empty("No metric fits", link(address.to("/metrics"), "All of them"), ".")))
    else:
        blocks.append(Html(_list(request, shown)))
    return blocks


def _list(request: Request, shown: list[Metric]) -> Markup:
    address = request.address
    rows = [
        row(
            link(address.with_(metric=each.name, by=None), each.name),
            each.kind.replace("_", " ")
            if each.kind != "sum"
            else "counter"
            if each.is_monotonic
            else "up-down counter",
            each.unit,
            number(each.series),
            each.description,
            href=address.with_(metric=each.name, by=None),
            class_="chosen" if each.name == address.get("metric") else None,
        )
        for each in shown
    ]
    heads = ["metric", "kind", "unit", ">series", "what it is"]
    return tag("div", table(heads, rows), tag("p", f"{len(shown)} metrics.", class_="note"))


def _detail(request: Request, metric: Metric) -> list[Block]:
    address = request.address
    keys = [SERVICE, PROCESS, *attribute_keys(request.reader, request.scope, metric.name)]
    by = address.get("by") if address.get("by") in keys else SERVICE
    ways = [link(address.with_(by=key), key, class_="on" if key == by else None) for key in keys]
    head = tag(
        "header",
        tag(
            "h2",
            metric.name,
            link(address.with_(metric=None, by=None), "\u00d7", class_="close", title="close (Esc)"),
        ),
        tag("p", f"{metric.description or 'no description'} · {metric.unit or 'no unit'}"),
        tag("nav", tag("span", "by ", class_="note"), ways, class_="tabs"),
        class_="head",
    )
    steps = fitting_steps(request.reader, request.scope, metric.name)
    starts = step_starts(request.scope, steps)
    charts = (
        _spread(request, metric, by, starts)
        if metric.has_distribution
        else _plain(request, metric, by, starts)
    )
    return [Html(head), *charts, *_exemplars(request, metric)]


def _plain(request: Request, metric: Metric, by: str, starts: list[int]) -> list[Block]:
    keys = () if by in (SERVICE, PROCESS) else (by,)
    is_counter = metric.kind == "sum" and metric.is_monotonic
    ask = growth if is_counter else levels
    values = ask(request.reader, request.scope, metric.name, keys, steps=len(starts))
    per_s = (starts[1] - starts[0]) / 1e9 if is_counter and len(starts) > 1 else 1.0
    series: defaultdict[str, list[float | None]] = defaultdict(lambda: [None] * len(starts))
    for value in values:
        of = series[_label(value, by)]
        of[value.step] = (of[value.step] or 0.0) + value.value / per_s
    kept = sorted(series, key=lambda name: -sum(value or 0.0 for value in series[name]))[:MAX_SERIES]
    left = f" · the first {MAX_SERIES} of {len(series)}" if len(series) > MAX_SERIES else ""
    unit = KNOWN_UNITS.get(metric.unit, "")
    note = f"{metric.unit}/s, by {by}{left}" if is_counter else f"{metric.unit}, by {by}{left}"
    options = lines(starts, {name: series[name] for name in kept}, unit=unit)
    return [Chart(metric.name, options, width=12, height=300, note=note)]


def _spread(request: Request, metric: Metric, by: str, starts: list[int]) -> list[Block]:
    unit = KNOWN_UNITS.get(metric.unit, "")
    told = heat(request.reader, request.scope, metric.name, steps=len(starts))
    blocks: list[Block] = [
        Chart(
            "Heat-map",
            heat_map(starts, told.bounds, told.cells, unit=metric.unit),
            height=280,
            note="all series",
        ),
        Chart(
            "Quantiles",
            lines(starts, {f"p{q * 100:.0f}": values for q, values in told.quantiles.items()}, unit=unit),
            height=280,
            note="all series",
        ),
    ]
    keys = () if by in (SERVICE, PROCESS) else (by,)
    found = sorted(
        spreads(request.reader, request.scope, metric.name, keys), key=lambda each: -each.spread.sum
    )
    rows = [
        row(
            each.service,
            each.instance[:8],
            each.labels[0] if each.labels else "",
            number(amount(each.spread.count)),
            *(number(amount(each.spread.quantile(q), metric.unit)) for q in (0.5, 0.9, 0.99, 1.0)),
            number(amount(each.spread.sum, metric.unit)),
        )
        for each in found[:100]
    ]
    heads = ["service", "process", by if keys else "", ">count", ">p50", ">p90", ">p99", ">max", ">sum"]
    blocks.append(Html(table(heads, rows)))
    return blocks


def _exemplars(request: Request, metric: Metric) -> list[Block]:
    found = exemplars(request.reader, request.scope, metric.name)
    if not found:
        return []
    points = [
        (
            each.time_ns,
            each.value,
            f"{each.service} {amount(each.value, metric.unit)}",
            request.address.to(f"/trace/{each.trace_id}", span=each.span_id),
        )
        for each in found
    ]
    note = "each a measurement; a click opens its trace"
    unit = KNOWN_UNITS.get(metric.unit, "")
    return [Chart("Exemplars", dots(points, unit=unit), width=12, height=170, note=note)]


def _label(value: Value, by: str) -> str:
    if by == SERVICE:
        return value.service
    if by == PROCESS:
        return f"{value.service} {value.instance[:8]}"
    return value.labels[0] or "(none)"
