"""The list of traces."""

from __future__ import annotations

from otel_concurrency.console.pages.blocks import Block, Chart, Html, Request
from otel_concurrency.console.pages.charts import COLOURS, dots
from otel_concurrency.console.pages.formats import clock, span_of
from otel_concurrency.console.pages.markup import Markup, empty, link, number, row, table, tag
from otel_concurrency.console.pages.overview import nothing_yet
from otel_concurrency.console.pages.parts import choice, field, filters, tick, trace_link
from otel_concurrency.console.queries.services import extent
from otel_concurrency.console.queries.traces import MAX_TRACES, TraceFilter, TraceRow, traces

ORDERS = {
    "newest": "newest first",
    "slowest": "slowest first",
    "spans": "most spans",
    "errors": "most errors",
}


def traces_page(request: Request) -> list[Block]:
    """Return the page."""
    address = request.address
    wanted = TraceFilter(
        name=address.get("name"),
        text=address.get("q"),
        only_errors=address.get("errors") == "1",
        min_duration_s=address.number("least") / 1e3,
        order=address.get("order", "newest"),
    )
    form = filters(
        address,
        field("q", address, "attribute, value or trace id", size=26),
        field("name", address, "span name"),
        field("least", address, "at least ms", kind="number", size=8),
        tick("errors", address, "errors only"),
        choice("order", address, ORDERS, "order"),
    )
    found = traces(request.reader, request.scope, wanted)
    blocks: list[Block] = [Html(form)]
    if not found:
        blocks.append(_nothing(request))
        return blocks
    blocks.append(_chart(request, found))
    blocks.append(Html(_list(request, found)))
    return blocks


def _nothing(request: Request) -> Html:
    if extent(request.reader).last_ns is not None and any(
        request.get(name) for name in ("q", "name", "least", "errors")
    ):
        back = request.address.to("/traces")
        return Html(empty("No trace fits", "Take back a filter, or ", link(back, "all of them"), "."))
    return nothing_yet(request)


def _chart(request: Request, found: list[TraceRow]) -> Chart:
    points = [
        (
            each.start_ns,
            each.duration_ns / 1e9,
            f"{each.name} {span_of(each.duration_ns)}",
            request.address.to(f"/trace/{each.trace_id}"),
        )
        for each in found
    ]
    colours = [COLOURS[3] if each.errors else COLOURS[0] for each in found]
    return Chart("Duration", dots(points, colours=colours), width=12, height=150)


def _list(request: Request, found: list[TraceRow]) -> Markup:
    longest = max(each.duration_ns for each in found) or 1
    rows = [
        row(
            clock(each.start_ns),
            each.service,
            trace_link(request.address, each.trace_id, label=each.name or "(no name)"),
            number(span_of(each.duration_ns)),
            tag("td", _bar(each.duration_ns / longest, is_error=bool(each.errors)), class_="bar"),
            number(each.spans),
            number(each.errors or "", class_="bad"),
            number(each.services),
            tag("code", each.trace_id[:16]),
            href=request.address.to(f"/trace/{each.trace_id}"),
        )
        for each in found
    ]
    heads = ["began (UTC)", "service", "name", ">duration", "", ">spans", ">errors", ">services", "trace"]
    note = f"The first {MAX_TRACES} in this order." if len(found) == MAX_TRACES else f"{len(found)} traces."
    return tag("div", table(heads, rows, class_="list"), tag("p", note, class_="note"))


def _bar(share: float, *, is_error: bool) -> Markup:
    return tag("i", class_="bad" if is_error else None, style=f"width:{max(0.5, share * 100):.1f}%")
