"""Log records: from an OTLP logs request to rows."""

from __future__ import annotations

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from otel_concurrency.console.attributes import (
    HIGHEST_NS,
    attributes_json,
    bounded_json,
    hex_id,
    name,
    plain,
    resource_key,
    scope_key,
)
from otel_concurrency.console.schema import LOGS, Batch, LogRow

SEVERITIES = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
"""Four severity numbers each, from 1 on."""


def log_batch(request: ExportLogsServiceRequest, size_bytes: int, max_items: int) -> Batch:
    """Turn a request into rows; a record whose ids are malformed is kept, as one that belongs to no trace.

    Args:
        request: What came.
        size_bytes: What it weighed.
        max_items: Records beyond this many are rejected.
    """
    batch = Batch(LOGS, size_bytes)
    for of_resource in request.resource_logs:
        resource = resource_key(of_resource.resource, of_resource.schema_url, batch)
        for of_scope in of_resource.scope_logs:
            scope = scope_key(of_scope.scope, of_scope.schema_url, batch)
            taken = of_scope.log_records[: max(0, max_items - len(batch.rows))]
            if len(taken) < len(of_scope.log_records):
                left_out = len(of_scope.log_records) - len(taken)
                batch.reject(f"more than {max_items} log records in one request", left_out)
            for record in taken:
                _add(record, resource, scope, batch)
    return batch


def _add(record: LogRecord, resource: int, scope: int, batch: Batch) -> None:
    if max(record.time_unix_nano, record.observed_time_unix_nano) > HIGHEST_NS:
        return batch.reject("a time after the year 2262")
    trace_id, span_id = hex_id(record.trace_id, 16), hex_id(record.span_id, 8)
    row = LogRow(
        resource_key=resource,
        scope_key=scope,
        time_ns=record.time_unix_nano or record.observed_time_unix_nano,
        observed_ns=record.observed_time_unix_nano,
        severity_number=max(0, record.severity_number),
        severity=name(record.severity_text) or _severity(record.severity_number),
        body=bounded_json(plain(record.body)),
        event_name=name(record.event_name),
        trace_id=trace_id,
        span_id=span_id if trace_id else None,
        flags=record.flags,
        attributes=attributes_json(record.attributes),
        dropped_attributes=record.dropped_attributes_count,
    )
    return batch.rows.append(row)


def _severity(severity_number: int) -> str:
    return SEVERITIES[(severity_number - 1) // 4] if 1 <= severity_number <= 24 else ""
