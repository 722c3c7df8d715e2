"""What programs share and wait for: how full it is, who waits, and for how long."""

from __future__ import annotations

from otel_concurrency.console.pages.blocks import Block, Html, Request
from otel_concurrency.console.pages.formats import amount, percent, seconds
from otel_concurrency.console.pages.markup import Markup, empty, link, number, row, table, tag
from otel_concurrency.console.pages.overview import nothing_yet
from otel_concurrency.console.pages.parts import choice, field, filters
from otel_concurrency.console.queries.resources import Shared, resources
from otel_concurrency.console.queries.services import extent

KINDS = {"": "all kinds", "lock": "locks", "queue": "queues", "db pool": "database pools"}
KINDS |= {"executor": "executors", "http client": "HTTP clients"}


def resources_page(request: Request) -> list[Block]:
    """Return the page."""
    address = request.address
    every = resources(request.reader, request.scope)
    if not every:
        if extent(request.reader).last_ns is None:
            return [nothing_yet(request)]
        advice = "Locks, queues, pools and executors appear here once a program has used one."
        return [Html(empty("Nothing shared was told of in this range", advice))]
    text, kind = address.get("q").lower(), address.get("kind")
    shown = [it for it in every if kind in ("", it.kind) and text in it.name.lower()]
    form = filters(address, field("q", address, "name"), choice("kind", address, KINDS, "kind"))
    if not shown:
        every_link = link(address.to("/resources"), "all of them")
        return [Html(form), Html(empty("Nothing fits", "Take back a filter, or see ", every_link, "."))]
    return [Html(form), Html(_list(request, shown))]


def _list(request: Request, shown: list[Shared]) -> Markup:
    address = request.address
    rows = [
        row(
            it.kind,
            it.service,
            link(address.to("/graph", service=it.service, q=it.search), it.name or "(no name)"),
            number(amount(it.used) if it.used is not None else ""),
            number(amount(it.limit) if it.limit is not None else ""),
            tag("td", _bar(it.share), class_="bar", title=percent(it.share)),
            number(amount(it.waiters) if it.waiters else "", class_="warn"),
            number(amount(it.waits.count) if it.waits.count else ""),
            number(seconds(it.waits.quantile(0.5)) if it.waits.count else ""),
            number(seconds(it.waits.quantile(0.95)) if it.waits.count else ""),
            it.holder,
            link(address.to("/metrics", metric=it.metric), "metric") if it.metric else "",
        )
        for it in shown
    ]
    heads = ["kind", "service", "name", ">used", ">limit", "", ">waiting", ">waits", ">wait p50", ">wait p95"]
    note = "Used, limit and waiting as last told in the range; waits of all of it. A name leads to "
    told = tag("p", note, "the tasks that wait now.", class_="note")
    return tag("div", table([*heads, "held by", ""], rows), told)


def _bar(share: float | None) -> Markup | None:
    if share is None:
        return None
    return tag("i", class_="bad" if share >= 0.9 else None, style=f"width:{min(100, share * 100):.0f}%")
