"""What the store holds, as OTLP's JSON: a line a request, as collectors' file exporters write it.

Values are what JSON keeps of them: bytes come back as base64 texts, infinities and NaN of attributes as their
names.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from typing import Any

from otel_concurrency.console.attributes import to_json
from otel_concurrency.console.point_rows import TEMPORALITIES
from otel_concurrency.console.schema import LOGS, POINTS, SPANS, Table
from otel_concurrency.console.span_rows import KINDS, STATUSES
from otel_concurrency.console.store import Store

PER_LINE = 1_000
Row = dict[str, Any]

_TEMPORALITY_NUMBERS = {name: number for number, name in TEMPORALITIES.items()}


def export_otlp(store: Store, trace_id: str | None = None) -> Iterator[str]:
    """Yield lines of JSON.

    Args:
        store: What to export.
        trace_id: Only this trace, its spans and log records.
    """
    tables = (
        (SPANS, "Spans", "spans", _spans),
        (LOGS, "Logs", "logRecords", _logs),
        (POINTS, "Metrics", "metrics", _metrics),
    )
    for table, word, field, items in tables if trace_id is None else tables[:2]:
        for rows in _pages(store, table, trace_id):
            of_resources = []
            for resource, of_one in groupby(sorted(rows, key=_by_resource), _by_resource):
                of_scopes = [
                    {"scope": _scope(scope[1]), field: items(list(group)), "schemaUrl": scope[2]}
                    for scope, group in groupby(sorted(of_one, key=_by_scope), _by_scope)
                ]
                described = {"attributes": _attributes(resource[1])}
                of_resources.append(
                    {"resource": described, f"scope{word}": of_scopes, "schemaUrl": resource[2]}
                )
            yield to_json({f"resource{word}": of_resources}) + "\n"


def _pages(store: Store, table: Table, trace_id: str | None) -> Iterator[list[Row]]:
    names = [name for name in table.columns if name not in ("received_ns", "size_bytes")]
    columns = ", ".join(f"{table.name}.{name}" for name in names)
    names += ["resource_attributes", "resource_schema"]
    names += ["scope_name", "scope_version", "scope_attributes", "scope_schema"]
    only = "" if trace_id is None else "AND trace_id = $trace_id"
    query = (
        f"SELECT {columns}, resources.attributes, resources.schema_url, scopes.name, scopes.version, "
        f"scopes.attributes, scopes.schema_url FROM {table.name} JOIN resources USING (resource_key) "
        f"JOIN scopes USING (scope_key) WHERE {table.name}.id > $after {only} "
        f"ORDER BY {table.name}.id LIMIT {PER_LINE}"
    )
    after = -1
    while True:
        given: dict[str, object] = {"after": after}
        if trace_id is not None:
            given["trace_id"] = trace_id
        rows = [dict(zip(names, row, strict=True)) for row in store.query(query, given)]
        if not rows:
            return
        yield rows
        after = rows[-1]["id"]


def _by_resource(row: Row) -> tuple[int, str, str]:
    return row["resource_key"], row["resource_attributes"], row["resource_schema"]


def _by_scope(row: Row) -> tuple[int, tuple[str, str, str], str]:
    described = row["scope_name"], row["scope_version"], row["scope_attributes"]
    return row["scope_key"], described, row["scope_schema"]


def _scope(described: tuple[str, str, str]) -> Row:
    name, version, attributes = described
    return {"name": name, "version": version, "attributes": _attributes(attributes)}


def _spans(rows: list[Row]) -> list[Row]:
    return [
        {
            "traceId": row["trace_id"],
            "spanId": row["span_id"],
            "parentSpanId": row["parent_span_id"] or "",
            "traceState": row["trace_state"],
            "flags": row["flags"],
            "name": row["name"],
            "kind": KINDS.index(row["kind"]),
            "startTimeUnixNano": str(row["start_ns"]),
            "endTimeUnixNano": str(row["end_ns"]),
            "attributes": _attributes(row["attributes"]),
            "droppedAttributesCount": row["dropped_attributes"],
            "events": [
                {
                    "timeUnixNano": str(event["time_ns"]),
                    "name": event["name"],
                    "attributes": _pairs(event["attributes"]),
                }
                for event in json.loads(row["events"])
            ],
            "droppedEventsCount": row["dropped_events"],
            "links": [
                {
                    "traceId": link["trace_id"],
                    "spanId": link["span_id"],
                    "traceState": link["trace_state"],
                    "attributes": _pairs(link["attributes"]),
                }
                for link in json.loads(row["links"])
            ],
            "droppedLinksCount": row["dropped_links"],
            "status": {"code": STATUSES.index(row["status"]), "message": row["status_message"]},
        }
        for row in rows
    ]


def _logs(rows: list[Row]) -> list[Row]:
    return [
        {
            "timeUnixNano": str(row["time_ns"]),
            "observedTimeUnixNano": str(row["observed_ns"]),
            "severityNumber": row["severity_number"],
            "severityText": row["severity"],
            "body": _value(json.loads(row["body"])),
            "eventName": row["event_name"],
            "traceId": row["trace_id"] or "",
            "spanId": row["span_id"] or "",
            "flags": row["flags"],
            "attributes": _attributes(row["attributes"]),
            "droppedAttributesCount": row["dropped_attributes"],
        }
        for row in rows
    ]


def _metrics(rows: list[Row]) -> list[Row]:
    of_metric = itemgetter("name", "unit", "description", "kind", "temporality", "monotonic")
    metrics = []
    for described, points in groupby(rows, of_metric):
        name, unit, description, kind, temporality, monotonic = described
        data: Row = {"dataPoints": [_point(row) for row in points]}
        if temporality is not None:
            data["aggregationTemporality"] = _TEMPORALITY_NUMBERS[temporality]
        if monotonic is not None:
            data["isMonotonic"] = monotonic
        kind = "exponentialHistogram" if kind == "exponential_histogram" else kind
        metrics.append({"name": name, "unit": unit, "description": description, kind: data})
    return metrics


def _point(row: Row) -> Row:
    point: Row = {
        "attributes": _attributes(row["attributes"]),
        "startTimeUnixNano": str(row["start_ns"]),
        "timeUnixNano": str(row["time_ns"]),
        "flags": row["flags"],
    }
    if row["kind"] != "summary":
        point["exemplars"] = [_exemplar(exemplar) for exemplar in json.loads(row["exemplars"])]
    held = json.loads(row["distribution"] or "{}")
    if row["kind"] in ("sum", "gauge"):
        if row["int_value"] is not None:
            return point | {"asInt": str(row["int_value"])}
        value = held.get("value", row["value"])
        return point if value is None else point | {"asDouble": value}
    point["count"] = str(row["value_count"])
    statistics = {"sum": row["value_sum"], "min": row["value_min"], "max": row["value_max"]}
    point |= {name: value for name, value in statistics.items() if value is not None}
    if "quantiles" in held:
        point["quantileValues"] = [{"quantile": at, "value": value} for at, value in held["quantiles"]]
    elif "bounds" in held:
        point |= {"explicitBounds": held["bounds"], "bucketCounts": list(map(str, held["counts"]))}
    elif "scale" in held:
        point |= {
            "scale": held["scale"],
            "zeroCount": str(held["zero_count"]),
            "zeroThreshold": held["zero_threshold"],
            **{
                side: {"offset": held[side]["offset"], "bucketCounts": list(map(str, held[side]["counts"]))}
                for side in ("positive", "negative")
            },
        }
    return point


def _exemplar(exemplar: Row) -> Row:
    value = exemplar["value"]
    return {
        "timeUnixNano": str(exemplar["time_ns"]),
        **({"asInt": str(value)} if isinstance(value, int) else {"asDouble": value}),
        "traceId": exemplar["trace_id"] or "",
        "spanId": exemplar["span_id"] or "",
        "filteredAttributes": _pairs(exemplar["attributes"]),
    }


def _attributes(text: str) -> list[Row]:
    return _pairs(json.loads(text))


def _pairs(attributes: Row) -> list[Row]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> Row:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_value(item) for item in value]}}
    return {} if value is None else {"kvlistValue": {"values": _pairs(value)}}
