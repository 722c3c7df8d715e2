"""A trace drawn as a waterfall, or as lanes by process, thread and task; a span's drawer beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from otel_concurrency.console.pages.address import Address
from otel_concurrency.console.pages.formats import clock, span_of
from otel_concurrency.console.pages.lanes import Lane, Slice, draw_lanes
from otel_concurrency.console.pages.markup import Content, Markup, link, tag
from otel_concurrency.console.pages.parts import function_link, pairs, trace_link
from otel_concurrency.console.queries.trace import Linked, Record, Span, WholeTrace
from otel_concurrency.signals import names

MAX_LINES = 1_000
MAX_DEPTH = 24
"""Levels that are indented; what is deeper stays at this level's place."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the waterfall: a span, or a log record below it."""

    item: Span | Record
    depth: int


def waterfall(trace: WholeTrace, address: Address) -> Markup:
    """Return the spans as a tree with their bars, log records below their spans."""
    start, length = trace.start_ns, trace.end_ns - trace.start_ns
    chosen = address.get("span")
    drawn: list[Markup] = []
    left_out = 0
    for line in _lines(trace):
        if len(drawn) >= MAX_LINES:
            left_out += 1
        elif isinstance(line.item, Span):
            drawn.append(_span(line.item, line.depth, start, length, address, chosen))
        else:
            drawn.append(_record(line.item, line.depth, start, length, address))
    more = tag("p", f"{left_out} more lines.", class_="note") if left_out else None
    return tag("div", _ruler(length), drawn, more, class_="falls", role="tree")


def lanes(trace: WholeTrace, address: Address) -> Markup:
    """Return the same spans as lanes: one for each task, below its thread, below its process."""
    rows: dict[tuple[str, str, str], list[Slice]] = {}
    for span in trace.spans.values():
        pid = str(span.resource.get("process.pid") or span.instance[:8])
        thread = str(span.attributes.get(names.THREAD_NAME) or "")
        task = str(span.attributes.get(names.TASK_NAME) or "")
        rows.setdefault((f"{span.service} {pid}".strip(), thread, task), []).append(
            Slice(
                span.start_ns,
                span.end_ns,
                span.name,
                address.with_(span=span.span_id),
                "bad" if span.is_error else _tone(span.service),
            )
        )
    ordered = sorted(rows, key=lambda key: (key[0], key[1], min(each.start_ns for each in rows[key])))
    return draw_lanes(
        [
            Lane(process, thread, task or "no task", rows[process, thread, task])
            for process, thread, task in ordered
        ],
        trace.start_ns,
        trace.end_ns,
    )


def drawer(trace: WholeTrace, span: Span, address: Address) -> Markup:
    """Return all that a span tells."""
    function = str(span.attributes.get(names.CODE_FUNCTION_NAME) or "")
    facts: dict[str, Content] = {
        "service": span.service,
        "kind": span.kind,
        "began": clock(span.start_ns, with_date=True),
        "duration": span_of(span.duration_ns),
        "status": f"{span.status} {span.message}".strip(),
        "span id": tag("code", span.span_id),
        "made by": span.scope,
    }
    sections: list[Content] = [
        tag("h3", span.name, link(address.with_(span=None), "\u00d7", class_="close", title="close (Esc)")),
        tag("dl", [(tag("dt", key), tag("dd", value)) for key, value in facts.items() if value]),
        tag("p", _ways(trace, span, function, address), class_="ways"),
        tag("h4", "Attributes"),
        pairs(span.attributes),
    ]
    if span.dropped:
        sections.append(tag("p", f"{span.dropped} were left out by the program.", class_="note bad"))
    if span.events:
        sections += [tag("h4", "Events"), [_event(event, span.start_ns) for event in span.events]]
    linked: list[Linked] = [each for each in trace.linked if each.to_span_id == span.span_id]
    if span.links or linked:
        told = [
            tag("li", "to ", trace_link(address, each.get("trace_id") or "", each.get("span_id") or ""))
            for each in span.links
        ]
        told += [
            tag("li", "from ", trace_link(address, each.trace_id, each.span_id, each.name)) for each in linked
        ]
        sections += [tag("h4", "Links"), tag("ul", told)]
    if span.records:
        sections += [
            tag("h4", "Log records"),
            tag(
                "ul", [tag("li", link(address.to("/logs", focus=it.log_id), it.text)) for it in span.records]
            ),
        ]
    sections += [tag("h4", "Resource"), pairs(span.resource)]
    return tag("aside", sections, class_="drawer")


def _ways(trace: WholeTrace, span: Span, function: str, address: Address) -> list[Content]:
    ways: list[Content] = []
    if function:
        ways += ["coroutine ", function_link(address, span.service, function), " · "]
    pad = max(span.duration_ns // 2, 1_000_000)
    window = {"from_": span.start_ns - pad, "to": span.end_ns + pad, "range": None}
    ways.append(link(Address("/timeline", ()).with_(**window), "timeline of this moment"))
    ways += [" · ", link(address.to("/logs", q=trace.trace_id), "its logs")]
    return ways


def _lines(trace: WholeTrace) -> Iterator[Line]:
    """Yield every line in order; a stack of our own, since a trace may be deeper than Python's."""
    pending: list[Line] = [Line(root, 0) for root in trace.roots]
    pending += [Line(record, 0) for record in trace.unplaced]
    pending.reverse()
    while pending:
        line = pending.pop()
        yield line
        if isinstance(line.item, Span):
            below: list[Span | Record] = [*line.item.children, *line.item.records]
            below.sort(key=lambda it: it.start_ns if isinstance(it, Span) else it.time_ns)
            pending.extend(Line(item, line.depth + 1) for item in reversed(below))


def _span(span: Span, depth: int, start: int, length: int, address: Address, chosen: str) -> Markup:
    left = _share(span.start_ns - start, length)
    width = max(0.15, min(100 - left, _share(span.duration_ns, length)))
    tone = "bad" if span.is_error else _tone(span.service)
    marks = [
        tag(
            "b",
            style=f"left:{_share(int(event.get('time_ns') or start) - start, length):.2f}%",
            class_="stall" if event.get("name") == names.STALL_SPAN_EVENT else None,
            title=event.get("name") or "",
        )
        for event in span.events[:50]
    ]
    # Beside the bar, where there is room; else in it.
    if left + width <= 85:
        beside, where = "", f"left:{left + width:.2f}%"
    elif left >= 15:
        beside, where = "", f"right:{100 - left:.2f}%"
    else:
        beside, where = "inside", f"left:{left:.2f}%"
    return link(
        address.with_(span=span.span_id),
        tag(
            "span",
            tag("em", class_=f"dot {tone}"),
            span.name or "(no name)",
            tag("small", span.service),
            class_="name",
            style=_indent(depth),
        ),
        tag(
            "span",
            tag("i", class_=tone, style=f"left:{left:.2f}%;width:{width:.2f}%"),
            marks,
            tag("small", span_of(span.duration_ns), style=where, class_=beside or None),
            class_="track",
        ),
        class_="line chosen" if span.span_id == chosen else "line",
        title=f"{span.name} · {span.service} · {span_of(span.duration_ns)}",
        role="treeitem",
    )


def _record(record: Record, depth: int, start: int, length: int, address: Address) -> Markup:
    at = _share(record.time_ns - start, length)
    tone = record.severity.lower()[:5]
    return link(
        address.to("/logs", focus=record.log_id),
        tag(
            "span",
            tag("small", record.severity or "log", class_=f"sev {tone}"),
            record.text or record.event,
            class_="name",
            style=_indent(depth),
        ),
        tag("span", tag("u", style=f"left:{at:.2f}%"), class_="track"),
        class_="line log",
        title=record.text,
    )


def _event(event: dict[str, object], start: int) -> Markup:
    at = event.get("time_ns")
    offset = f"+{span_of(max(0, at - start))}" if isinstance(at, int) else ""
    attributes = event.get("attributes")
    return tag(
        "details",
        tag("summary", str(event.get("name") or ""), " ", tag("small", offset)),
        pairs(attributes) if isinstance(attributes, dict) else None,
        open=True,
    )


def _ruler(length: int) -> Markup:
    marks = [tag("small", span_of(length * at // 4), style=f"left:{at * 25}%") for at in range(4)]
    return tag("div", tag("span", class_="name"), tag("span", marks, class_="track"), class_="line ruler")


def _share(part: int, whole: int) -> float:
    return min(100.0, max(0.0, part / whole * 100))


def _indent(depth: int) -> str:
    return f"padding-left:{8 + 14 * min(depth, MAX_DEPTH)}px"


def _tone(service: str) -> str:
    """Return a colour class that a service has on every page and in every run."""
    return f"c{sum(service.encode()) % 6}"
