"""The list of traces: one row a trace that has a span in the scope, with filters on any of its spans."""

from __future__ import annotations

from dataclasses import dataclass

from otel_concurrency.console.queries.scope import Reader, Scope

MAX_TRACES = 200
ORDERS = {
    "newest": "start_ns DESC",
    "slowest": "longest_ns DESC",
    "spans": "spans DESC",
    "errors": "errors DESC",
}


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """Which traces; a trace is kept if one of its spans fits.

    Attributes:
        name: Part of a span's name.
        text: Part of a span's attributes, keys or values.
        only_errors: A span with an error status.
        min_duration_s: At least this long.
        order: One of `ORDERS`.
    """

    name: str = ""
    text: str = ""
    only_errors: bool = False
    min_duration_s: float = 0.0
    order: str = "newest"


@dataclass(frozen=True, slots=True)
class TraceRow:
    """A trace in the list.

    Attributes:
        trace_id: Its id, hex.
        service: Of its first span.
        name: Its first span's: the root, where it was received.
        start_ns: When that began.
        duration_ns: From the first start to the last end of its spans.
        spans: How many.
        errors: How many with an error status.
        services: How many services.
    """

    trace_id: str
    service: str
    name: str
    start_ns: int
    duration_ns: int
    spans: int
    errors: int
    services: int


def traces(
    reader: Reader, scope: Scope, wanted: TraceFilter = TraceFilter(), limit: int = MAX_TRACES
) -> list[TraceRow]:
    """Return the traces that have a fitting span in the scope."""
    claims = ["start_ns BETWEEN $from AND $to", scope.of_resource]
    parameters = {**scope.parameters, "limit": limit}
    having = ""
    if wanted.name:
        claims.append("contains(lower(name), lower($name))")
        parameters["name"] = wanted.name
    if wanted.text:
        claims.append("(contains(lower(attributes::VARCHAR), lower($text)) OR trace_id = lower($text))")
        parameters["text"] = wanted.text
    if wanted.only_errors:
        claims.append("status = 'error'")
    if wanted.min_duration_s:
        having = "HAVING max(end_ns) - min(start_ns) >= $least"
        parameters["least"] = int(wanted.min_duration_s * 1e9)
    order = ORDERS.get(wanted.order, ORDERS["newest"])
    # First which traces, from narrow columns; then the rest of what is shown, of those few only.
    sql = f"""
        WITH chosen AS (
            SELECT trace_id, max(end_ns) - min(start_ns) AS longest_ns, min(start_ns) AS start_ns,
                count(*) AS spans, count(*) FILTER (status = 'error') AS errors
            FROM spans WHERE {" AND ".join(claims)} GROUP BY trace_id {having}
            ORDER BY {order}, trace_id LIMIT $limit)
        SELECT trace_id, arg_min(service, (parent_span_id IS NOT NULL, spans.start_ns)),
            arg_min(name, (parent_span_id IS NOT NULL, spans.start_ns)), min(spans.start_ns) AS start_ns,
            greatest(0, max(end_ns) - min(spans.start_ns)) AS longest_ns, count(*) AS spans,
            count(*) FILTER (status = 'error') AS errors, count(DISTINCT service)
        FROM spans JOIN resources USING (resource_key)
        WHERE trace_id IN (SELECT trace_id FROM chosen)
        GROUP BY trace_id ORDER BY {order}, trace_id
    """
    return [TraceRow(*row) for row in reader.query(sql, parameters)]
