"""One trace, whole: its spans with all that they carry, its log records, and who links to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from otel_concurrency.console.queries.scope import Reader

MAX_SPANS = 5_000
MAX_LOGS = 2_000
MAX_LINKED = 50


@dataclass(frozen=True, slots=True)
class Record:
    """A log record of the trace.

    Attributes:
        log_id: Its row.
        span_id: The span it was written in.
        time_ns: When, ns since the epoch.
        severity: Such as `INFO`.
        text: What it says.
        event: The name of the event, or empty.
    """

    log_id: int
    span_id: str | None
    time_ns: int
    severity: str
    text: str
    event: str


@dataclass(slots=True)
class Span:
    """A span, and what hangs under it.

    Attributes:
        span_id: Its id, hex.
        parent_id: Its parent's; none at a root.
        service: Who made it.
        instance: Which of its processes.
        name: Its name.
        kind: `server`, `client`, `internal`, …
        start_ns: Start, ns since the epoch.
        end_ns: End.
        status: `ok`, `error` or `unset`.
        message: What the status says.
        attributes: Its own.
        events: As stored: `name`, `time_ns`, `attributes`.
        links: As stored: `trace_id`, `span_id`, `attributes`.
        scope: Which library made it.
        resource: What its process told of itself.
        dropped: Attributes, events and links that its process left out.
        children: The spans under it, oldest first.
        records: The log records written inside it, oldest first.
    """

    span_id: str
    parent_id: str | None
    service: str
    instance: str
    name: str
    kind: str
    start_ns: int
    end_ns: int
    status: str
    message: str
    attributes: dict[str, Any]
    events: list[dict[str, Any]]
    links: list[dict[str, Any]]
    scope: str
    resource: dict[str, Any]
    dropped: int
    children: list[Span] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    @property
    def duration_ns(self) -> int:
        """Return the time from start to end; 0 where the clock went back."""
        return max(0, self.end_ns - self.start_ns)

    @property
    def is_error(self) -> bool:
        """Whether its status says so."""
        return self.status == "error"


@dataclass(frozen=True, slots=True)
class Linked:
    """A span elsewhere that links to this trace."""

    trace_id: str
    span_id: str
    name: str
    to_span_id: str


@dataclass(frozen=True, slots=True)
class WholeTrace:
    """A trace.

    Attributes:
        trace_id: Its id, hex.
        roots: Spans without a parent that was received; the earliest first.
        spans: All of them by id, oldest first.
        unplaced: Log records whose span was not received.
        span_count: How many spans are stored; more than `spans` where they are too many.
        linked: Spans of other traces that link here.
    """

    trace_id: str
    roots: list[Span]
    spans: dict[str, Span]
    unplaced: list[Record]
    span_count: int
    linked: list[Linked]

    @property
    def start_ns(self) -> int:
        """Return when the first span began."""
        return min(span.start_ns for span in self.spans.values())

    @property
    def end_ns(self) -> int:
        """Return when the last span ended, and never before the start."""
        return max(max(span.end_ns for span in self.spans.values()), self.start_ns + 1)


def whole_trace(reader: Reader, trace_id: str) -> WholeTrace | None:
    """Read a trace; none where nothing of it is stored."""
    rows = reader.query(
        """
        SELECT span_id, parent_span_id, service, instance, spans.name, kind, start_ns, end_ns, status,
            status_message, spans.attributes, events, links, scopes.name, resources.attributes,
            dropped_attributes + dropped_events + dropped_links
        FROM spans JOIN resources USING (resource_key) JOIN scopes USING (scope_key)
        WHERE trace_id = ? ORDER BY start_ns, id LIMIT ?
        """,
        [trace_id, MAX_SPANS],
    )
    if not rows:
        return None
    spans: dict[str, Span] = {}
    for row in rows:
        told = list(row)
        for at in (10, 11, 12, 14):
            told[at] = json.loads(told[at])
        spans.setdefault(row[0], Span(*told))  # an exporter that retried may have sent it twice
    unplaced: list[Record] = []
    for record in _records(reader, trace_id):
        holder = spans.get(record.span_id or "")
        (holder.records if holder else unplaced).append(record)
    total = len(rows)
    if total == MAX_SPANS:
        total = reader.query("SELECT count(*) FROM spans WHERE trace_id = ?", [trace_id])[0][0]
    return WholeTrace(trace_id, _grow(spans), spans, unplaced, total, _linked(reader, trace_id))


def log_text(body: str) -> str:
    """Return a stored log record's body as a person reads it."""
    value = json.loads(body)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _records(reader: Reader, trace_id: str) -> Iterator[Record]:
    for log_id, span_id, time_ns, severity, body, event in reader.query(
        "SELECT id, span_id, time_ns, severity, body, event_name FROM logs WHERE trace_id = ?"
        " ORDER BY time_ns, id LIMIT ?",
        [trace_id, MAX_LOGS],
    ):
        yield Record(log_id, span_id, time_ns, severity, log_text(body), event)


def _linked(reader: Reader, trace_id: str) -> list[Linked]:
    rows = reader.query(
        "SELECT trace_id, span_id, name, links FROM spans"
        " WHERE links <> '[]' AND contains(links::VARCHAR, ?) AND trace_id <> ? LIMIT ?",
        [trace_id, trace_id, MAX_LINKED],
    )
    return [
        Linked(other, span_id, name, link.get("span_id") or "")
        for other, span_id, name, links in rows
        for link in json.loads(links)
        if link.get("trace_id") == trace_id
    ]


def _grow(spans: dict[str, Span]) -> list[Span]:
    """Hang the spans under their parents and return the roots; a circle is cut at its first span."""
    roots: list[Span] = []
    for span in spans.values():
        parent = spans.get(span.parent_id or "")
        (parent.children if parent and parent is not span else roots).append(span)
    reached: set[str] = set()
    for root in roots:
        _reach(root, reached)
    for span in spans.values():
        if span.span_id not in reached:
            parent = spans[span.parent_id or ""]
            parent.children.remove(span)
            roots.append(span)
            _reach(span, reached)
    return sorted(roots, key=lambda root: root.start_ns)


def _reach(root: Span, reached: set[str]) -> None:
    pending = [root]
    while pending:
        span = pending.pop()
        reached.add(span.span_id)
        pending.extend(span.children)
