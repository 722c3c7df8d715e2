"""One trace."""

from __future__ import annotations

from otel_concurrency.console.pages.blocks import Block, Html, Request
from otel_concurrency.console.pages.formats import clock, span_of
from otel_concurrency.console.pages.markup import Content, empty, link, tag
from otel_concurrency.console.pages.waterfall import drawer, lanes, waterfall
from otel_concurrency.console.queries.trace import whole_trace

VIEWS = {"": "Waterfall", "lanes": "Lanes by task"}


def trace_page(request: Request) -> list[Block]:
    """Return the page of the trace that the address names."""
    address = request.address
    trace_id = address.path.rpartition("/")[2].lower()
    trace = whole_trace(request.reader, trace_id)
    if trace is None:
        back = link(address.to("/traces"), "the traces that are stored")
        return [
            Html(
                empty(
                    f"Trace {trace_id[:32]} is not here",
                    "It was not received, or has been dropped to make room. See ",
                    back,
                    ".",
                )
            )
        ]
    root = trace.roots[0]
    view = address.get("view")
    switch = [
        link(address.with_(view=key), title, class_="on" if key == view else None)
        for key, title in VIEWS.items()
    ]
    elsewhere: list[Content] = [
        link(url, f"in {name} ↗", target="_blank", rel="noopener noreferrer", data_out=True)
        for name, url in request.links.of_trace(trace_id)
    ]
    services = sorted({span.service for span in trace.spans.values()})
    errors = sum(span.is_error for span in trace.spans.values())
    facts = [
        clock(trace.start_ns, with_date=True),
        span_of(trace.end_ns - trace.start_ns),
        f"{trace.span_count:,} spans",
        f"{errors} errors" if errors else "",
        ", ".join(services),
    ]
    head = tag(
        "header",
        tag("h2", f"{root.service}: {root.name}"),
        tag("p", " · ".join(fact for fact in facts if fact), " · ", tag("code", trace_id)),
        tag("nav", switch, elsewhere, class_="tabs"),
        class_="head",
    )
    notes: list[Content] = []
    if trace.span_count > len(trace.spans):
        notes.append(tag("p", f"The first {len(trace.spans):,} spans are shown.", class_="note"))
    chosen = trace.spans.get(address.get("span"))
    drawn = lanes(trace, address) if view == "lanes" else waterfall(trace, address)
    blocks: list[Block] = [Html(tag("div", head, notes)), Html(drawn, 8 if chosen else 12)]
    if chosen:
        blocks.append(Html(drawer(trace, chosen, address), 4))
    return blocks
