"""Log records: search, filter, and the way to their traces."""

from __future__ import annotations

from otel_concurrency.console.pages.blocks import Block, Chart, Html, Request
from otel_concurrency.console.pages.charts import lines
from otel_concurrency.console.pages.formats import clock
from otel_concurrency.console.pages.markup import Content, Markup, empty, link, row, table, tag
from otel_concurrency.console.pages.overview import nothing_yet
from otel_concurrency.console.pages.parts import (
    choice,
    field,
    filters,
    function_link,
    pairs,
    tick,
    trace_link,
)
from otel_concurrency.console.queries.logs import (
    MAX_RECORDS,
    LogFilter,
    LogLine,
    WholeLog,
    log_counts,
    logs,
    one_log,
    severity_name,
)
from otel_concurrency.console.queries.loops import step_starts
from otel_concurrency.signals import names

SEVERITIES = {"": "all severities", "info": "info and up", "warn": "warnings and up", "error": "errors"}
COLOURS = {"error": "#e5566d", "warn": "#f2a33a", "info": "#4c8dff", "debug": "#8a93a3", "other": "#9a6cf0"}


def logs_page(request: Request) -> list[Block]:
    """Return the page."""
    address = request.address
    wanted = LogFilter(
        address.get("q"),
        address.get("severity"),
        address.get("events") == "1",
        int(address.number("before")),
    )
    form = filters(
        address,
        field("q", address, "text, attribute or trace id", size=30),
        choice("severity", address, SEVERITIES, "severity"),
        tick("events", address, "events only"),
        submit="Search",
    )
    found = logs(request.reader, request.scope, wanted)
    focus = int(address.number("focus", -1)) if address.get("focus") else -1
    chosen = one_log(request.reader, focus) if focus >= 0 else None
    blocks: list[Block] = [Html(form)]
    if not found and chosen is None:
        blocks.append(_nothing(request))
        return blocks
    if found:
        counts = log_counts(request.reader, request.scope, wanted)
        options = lines(step_starts(request.scope), counts, stacked=True, colours=COLOURS)
        blocks.append(Chart("Records", options, width=12, height=130))
    blocks.append(Html(_list(request, found, focus), 8 if chosen else 12))
    if chosen:
        blocks.append(Html(_drawer(request, chosen), 4))
    return blocks


def _nothing(request: Request) -> Html:
    if any(request.get(name) for name in ("q", "severity", "events", "focus")):
        every = link(request.address.to("/logs"), "all of them")
        return Html(empty("No record fits", "Take back a filter, choose a longer range, or see ", every, "."))
    return nothing_yet(request)


def _list(request: Request, found: list[LogLine], focus: int) -> Markup:
    address = request.address
    rows = [
        row(
            clock(each.time_ns),
            tag("td", each.severity or "-", class_=f"sev {severity_name(each.severity_number)}"),
            each.service,
            tag("td", [tag("b", each.event), " "] if each.event else None, each.text, class_="text"),
            trace_link(address, each.trace_id, each.span_id or "") if each.trace_id else "",
            href=address.with_(focus=each.log_id),
            class_="chosen" if each.log_id == focus else None,
        )
        for each in found
    ]
    heads = ["when (UTC)", "severity", "service", "message", "trace"]
    more: Content = f"{len(found)} records."
    if len(found) == MAX_RECORDS:
        more = link(address.with_(before=found[-1].log_id), f"the next {MAX_RECORDS}")
    return tag("div", table(heads, rows, class_="list"), tag("p", more, class_="note"))


def _drawer(request: Request, chosen: WholeLog) -> Markup:
    address, line = request.address, chosen.line
    function = str(chosen.attributes.get(names.CODE_FUNCTION_NAME) or "")
    ways: list[Content] = []
    if line.trace_id:
        ways.append(trace_link(address, line.trace_id, line.span_id or "", "its span in its trace"))
    if function:
        ways += [" · coroutine " if ways else "coroutine ", function_link(address, line.service, function)]
    around = {"from_": line.time_ns - 500_000_000, "to": line.time_ns + 500_000_000, "range": None}
    ways += [" · " if ways else "", link(address.to("/timeline", **around), "timeline of this moment")]
    facts = {
        "when": clock(line.time_ns, with_date=True),
        "severity": f"{line.severity} ({line.severity_number})",
        "event": line.event,
        "service": line.service,
        "made by": chosen.scope,
    }
    return tag(
        "aside",
        tag(
            "h3", "Log record", link(address.with_(focus=None), "\u00d7", class_="close", title="close (Esc)")
        ),
        tag("pre", line.text),
        tag("p", ways, class_="ways"),
        pairs({key: value for key, value in facts.items() if value}),
        tag("h4", "Attributes"),
        pairs(chosen.attributes),
        tag("h4", "Resource"),
        pairs(chosen.resource),
        class_="drawer",
    )
