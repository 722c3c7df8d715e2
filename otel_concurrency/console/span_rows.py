"""Spans: from an OTLP trace request to rows."""

from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from otel_concurrency.console.attributes import (
    HIGHEST_NS,
    attributes_json,
    bounded_list_json,
    hex_id,
    name,
    plain,
    resource_key,
    scope_key,
)
from otel_concurrency.console.schema import SPANS, Batch, SpanRow

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
STATUSES = ("unset", "ok", "error")
HIGHEST_COUNT = 2**32 - 1


def span_batch(request: ExportTraceServiceRequest, size_bytes: int, max_items: int) -> Batch:
    """Turn a request into rows, leaving out spans that name no trace, or themselves, properly.

    Args:
        request: What came.
        size_bytes: What it weighed.
        max_items: Spans beyond this many are rejected.
    """
    batch = Batch(SPANS, size_bytes)
    for of_resource in request.resource_spans:
        resource = resource_key(of_resource.resource, of_resource.schema_url, batch)
        for of_scope in of_resource.scope_spans:
            scope = scope_key(of_scope.scope, of_scope.schema_url, batch)
            taken = of_scope.spans[: max(0, max_items - len(batch.rows))]
            if len(taken) < len(of_scope.spans):
                batch.reject(f"more than {max_items} spans in one request", len(of_scope.spans) - len(taken))
            for span in taken:
                _add(span, resource, scope, batch)
    return batch


def _add(span: Span, resource: int, scope: int, batch: Batch) -> None:
    trace_id, span_id = hex_id(span.trace_id, 16), hex_id(span.span_id, 8)
    parent_id = hex_id(span.parent_span_id, 8)
    if trace_id is None:
        return batch.reject("a trace_id that is not 16 bytes or all zeros")
    if span_id is None:
        return batch.reject("a span_id that is not 8 bytes or all zeros")
    if parent_id is None and any(span.parent_span_id):
        return batch.reject("a parent_span_id that is not 8 bytes")
    if max(span.start_time_unix_nano, span.end_time_unix_nano) > HIGHEST_NS:
        return batch.reject("a time after the year 2262")
    events, left_out_events = _events_json(span) if span.events else ("[]", 0)
    links, left_out_links = _links_json(span) if span.links else ("[]", 0)
    row = SpanRow(
        resource_key=resource,
        scope_key=scope,
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=parent_id,
        trace_state=name(span.trace_state),
        flags=span.flags,
        name=name(span.name),
        kind=KINDS[span.kind] if 0 <= span.kind < len(KINDS) else KINDS[0],
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        status=STATUSES[span.status.code] if 0 <= span.status.code < len(STATUSES) else STATUSES[0],
        status_message=name(span.status.message),
        attributes=attributes_json(span.attributes),
        events=events,
        links=links,
        dropped_attributes=span.dropped_attributes_count,
        dropped_events=min(span.dropped_events_count + left_out_events, HIGHEST_COUNT),
        dropped_links=min(span.dropped_links_count + left_out_links, HIGHEST_COUNT),
    )
    return batch.rows.append(row)


def _events_json(span: Span) -> tuple[str, int]:
    return bounded_list_json(
        [
            {
                "time_ns": event.time_unix_nano,
                "name": event.name,
                "attributes": {pair.key: plain(pair.value) for pair in event.attributes},
            }
            for event in span.events
        ]
    )


def _links_json(span: Span) -> tuple[str, int]:
    return bounded_list_json(
        [
            {
                "trace_id": link.trace_id.hex(),
                "span_id": link.span_id.hex(),
                "trace_state": link.trace_state,
                "attributes": {pair.key: plain(pair.value) for pair in link.attributes},
            }
            for link in span.links
        ]
    )
