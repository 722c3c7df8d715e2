"""One trace as a tree: its spans under one another, its log records under their spans."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from otel_concurrency.console.store import Store


@dataclass(frozen=True, slots=True)
class LogLine:
    """A log record of the trace.

    Attributes:
        time_ns: When, ns since the epoch.
        severity: Such as `INFO`.
        text: What it says.
    """

    time_ns: int
    severity: str
    text: str


@dataclass(slots=True)
class SpanNode:
    """A span with what hangs under it, oldest first.

    Attributes:
        span_id: Its id, hex.
        parent_id: Its parent's, none at a root.
        service: Who made it.
        name: Its name.
        kind: `server`, `client`, `internal`, ...
        target: What a client asked for, where its name does not tell: the path of the URL; else empty.
        start_ns: Start, ns since the epoch.
        end_ns: End, ns since the epoch.
        is_error: Whether its status says so.
        problem: The status message, or the exceptions recorded on it; empty without either.
        children: The spans under it.
        logs: The log records written inside it.
    """

    span_id: str
    parent_id: str | None
    service: str
    name: str
    kind: str
    target: str
    start_ns: int
    end_ns: int
    is_error: bool
    problem: str
    children: list[SpanNode] = field(default_factory=list)
    logs: list[LogLine] = field(default_factory=list)

    @property
    def duration_ns(self) -> int:
        """Return the time from start to end; 0 where the clock went back."""
        return max(0, self.end_ns - self.start_ns)


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace, as far as it was received.

    Attributes:
        trace_id: Its id, hex.
        roots: Spans without a parent, or whose parent was not received; the longest first.
        spans: All the spans.
        unplaced_logs: Log records of the trace whose span was not received.
    """

    trace_id: str
    roots: list[SpanNode]
    spans: list[SpanNode]
    unplaced_logs: list[LogLine]

    @property
    def services(self) -> list[str]:
        """Return the services in it, by name."""
        return sorted({span.service for span in self.spans})

    @property
    def log_count(self) -> int:
        """Count its log records."""
        return len(self.unplaced_logs) + sum(len(span.logs) for span in self.spans)


def slowest_trace_id(store: Store) -> str | None:
    """Return the trace of the longest root span; of the longest span, where no root was received."""
    found = store.query(
        """
        SELECT trace_id FROM spans
        ORDER BY parent_span_id IS NULL DESC, end_ns - start_ns DESC, trace_id LIMIT 1
        """
    )
    return found[0][0] if found else None


def read_trace(store: Store, trace_id: str) -> Trace:
    """Read a trace; it has no roots where nothing of it was received."""
    rows = store.query(
        """
        SELECT span_id, parent_span_id, service, name, kind,
            coalesce(spans.attributes->>'$."url.full"', spans.attributes->>'$."http.url"', ''),
            start_ns, end_ns, status = 'error', status_message, events
        FROM spans JOIN resources USING (resource_key) WHERE trace_id = ? ORDER BY start_ns, id
        """,
        [trace_id],
    )
    nodes: dict[str, SpanNode] = {}
    for span_id, parent_id, service, name, kind, url, start_ns, end_ns, is_error, message, events in rows:
        target = urlsplit(url).path if kind == "client" and "/" not in name else ""
        problem = _problem(message, json.loads(events))
        node = SpanNode(span_id, parent_id, service, name, kind, target, start_ns, end_ns, is_error, problem)
        nodes.setdefault(span_id, node)  # an exporter that retried may have sent it twice
    unplaced: list[LogLine] = []
    for span_id, time_ns, severity, body in store.query(
        "SELECT span_id, time_ns, severity, body FROM logs WHERE trace_id = ? ORDER BY time_ns, id",
        [trace_id],
    ):
        line = LogLine(time_ns, severity, _text(json.loads(body)))
        (nodes[span_id].logs if span_id in nodes else unplaced).append(line)
    return Trace(trace_id, _grow(nodes), list(nodes.values()), unplaced)


def _grow(nodes: dict[str, SpanNode]) -> list[SpanNode]:
    """Hang the spans under their parents and return those that have none."""
    roots = []
    for node in nodes.values():
        if node.parent_id in nodes:
            nodes[node.parent_id].children.append(node)
        else:
            roots.append(node)
    # What no root reaches goes in a circle; the first of each circle is cut off and becomes a root.
    reached: set[str] = set()
    for root in roots:
        _mark(root, reached)
    for node in nodes.values():
        if node.span_id not in reached:
            nodes[node.parent_id or ""].children.remove(node)
            roots.append(node)
            _mark(node, reached)
    return sorted(roots, key=lambda root: -root.duration_ns)


def _mark(root: SpanNode, reached: set[str]) -> None:
    pending = [root]
    while pending:
        node = pending.pop()
        reached.add(node.span_id)
        pending.extend(node.children)


def _problem(message: str, events: list[dict[str, Any]]) -> str:
    exceptions = [event["attributes"] for event in events if event["name"] == "exception"]
    told = [
        ": ".join(str(part) for part in (it.get("exception.type"), it.get("exception.message")) if part)
        for it in exceptions
    ]
    return message or "; ".join(filter(None, told))


def _text(body: object) -> str:
    return body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
