"""Rows: what each kind of item becomes, and which items are left out, sent as bytes to see the whole way."""

from __future__ import annotations

import json
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_concurrency.console import Store
from tests.console.conftest import JSON, Send, one_span, trace_request

ALL_ZEROS = "a trace_id that is not 16 bytes or all zeros"
INVALID_SPANS = {
    "trace_id short": ({"trace_id": b"\1" * 15}, ALL_ZEROS),
    "trace_id long": ({"trace_id": b"\1" * 17}, ALL_ZEROS),
    "trace_id missing": ({"trace_id": b""}, ALL_ZEROS),
    "trace_id all zeros": ({"trace_id": bytes(16)}, ALL_ZEROS),
    "span_id short": ({"span_id": b"\1" * 7}, "a span_id that is not 8 bytes or all zeros"),
    "span_id all zeros": ({"span_id": bytes(8)}, "a span_id that is not 8 bytes or all zeros"),
    "parent_span_id long": ({"parent_span_id": b"\1" * 9}, "a parent_span_id that is not 8 bytes"),
    "start too late": ({"start_time_unix_nano": 2**63}, "a time after the year 2262"),
    "end too late": ({"end_time_unix_nano": 2**64 - 1}, "a time after the year 2262"),
}


@pytest.mark.parametrize(("fields", "reason"), INVALID_SPANS.values(), ids=INVALID_SPANS.keys())
def test_an_invalid_span_is_left_out_and_the_others_are_kept(
    fields: dict[str, Any], reason: str, send: Send, store: Store
) -> None:
    answer = send(trace_request({"name": "before"}, fields, {"name": "after"}).SerializeToString())
    assert answer.status == 200
    told = ExportTraceServiceResponse.FromString(answer.body).partial_success
    assert (told.rejected_spans, told.error_message) == (1, f"1 with {reason}")
    assert store.query("SELECT name FROM spans ORDER BY id") == [("before",), ("after",)]
    assert store.counts()["spans"].rejected == 1


def test_a_root_may_send_a_parent_of_zeros(send: Send, store: Store) -> None:
    send(trace_request({"parent_span_id": bytes(8)}).SerializeToString())
    assert store.query("SELECT parent_span_id FROM spans") == [(None,)]


def test_what_json_says_is_what_is_stored(send: Send, store: Store) -> None:
    """Ids in hex of either case, integers as strings, doubles by name, bytes in base64, nested values."""
    attributes = [
        {"key": "text", "value": {"stringValue": "a\u0000b é 漢"}},
        {"key": "largest", "value": {"intValue": "-9223372036854775808"}},
        {"key": "double", "value": {"doubleValue": 0.1}},
        {"key": "whole double", "value": {"doubleValue": 3}},
        {"key": "endless", "value": {"doubleValue": "-Infinity"}},
        {"key": "no number", "value": {"doubleValue": "NaN"}},
        {"key": "yes", "value": {"boolValue": True}},
        {"key": "bytes", "value": {"bytesValue": "AAH/"}},
        {"key": "list", "value": {"arrayValue": {"values": [{"intValue": 1}, {}, {"stringValue": ""}]}}},
        {"key": "map", "value": {"kvlistValue": {"values": [{"key": "k", "value": {"intValue": "2"}}]}}},
        {"key": "nothing", "value": {}},
    ]
    body = one_span(
        attributes=attributes,
        status={"code": 2, "message": "broke"},
        parentSpanId="00000000000000AB",
        span_id="ffffffffffffffff",
        events=[{"timeUnixNano": "5", "name": "e", "attributes": [{"key": "k", "value": {"intValue": "1"}}]}],
        links=[{"traceId": "0a" * 16, "spanId": "0b" * 8}],
    )
    assert send(body, content_type=JSON).status == 200
    ((*columns, attributes_json, events, links),) = store.query(
        "SELECT trace_id, span_id, parent_span_id, kind, status, status_message, end_ns - start_ns,"
        " attributes, events, links FROM spans"
    )
    ids = ["5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174", "00000000000000ab"]
    assert columns == [*ids, "server", "error", "broke", 10**9]
    assert json.loads(attributes_json) == {
        "text": "a\u0000b é 漢",
        "largest": -(2**63),
        "double": 0.1,
        "whole double": 3.0,
        "endless": "-Infinity",
        "no number": "NaN",
        "yes": True,
        "bytes": "AAH/",
        "list": [1, None, ""],
        "map": {"k": 2},
        "nothing": None,
    }
    assert json.loads(events) == [{"time_ns": 5, "name": "e", "attributes": {"k": 1}}]
    assert json.loads(links) == [
        {"trace_id": "0a" * 16, "span_id": "0b" * 8, "trace_state": "", "attributes": {}}
    ]


def test_a_log_record_without_a_valid_trace_is_kept_without(send: Send, store: Store) -> None:
    """OTLP lets a record belong to no trace; a malformed id means just that."""
    request = ExportLogsServiceRequest()
    records = request.resource_logs.add().scope_logs.add().log_records
    records.add(trace_id=b"\1" * 15, span_id=b"\2" * 8).body.string_value = "short"
    records.add(trace_id=bytes(16), span_id=bytes(8)).body.string_value = "zeros"
    records.add(trace_id=b"\1" * 16).body.string_value = "trace only"
    records.add(time_unix_nano=2**63).body.string_value = "too late"
    answer = send(request.SerializeToString(), path="/v1/logs")
    told = ExportLogsServiceResponse.FromString(answer.body).partial_success
    assert (told.rejected_log_records, told.error_message) == (1, "1 with a time after the year 2262")
    assert store.query("SELECT body->>'$', trace_id, span_id FROM logs ORDER BY id") == [
        ("short", None, None),
        ("zeros", None, None),
        ("trace only", "01" * 16, None),
    ]


def test_a_log_record_is_stored_whole(send: Send, store: Store) -> None:
    request = ExportLogsServiceRequest()
    of_scope = request.resource_logs.add().scope_logs.add()
    of_scope.scope.name = "my.logger"
    record = of_scope.log_records.add(
        observed_time_unix_nano=77, severity_number=17, event_name="asyncio.stall", flags=1
    )
    record.body.kvlist_value.values.add(key="k").value.int_value = 1
    record.attributes.add(key="line").value.int_value = 12
    send(request.SerializeToString(), path="/v1/logs")
    assert store.query(
        "SELECT time_ns, observed_ns, severity_number, severity, body::VARCHAR, event_name, flags,"
        " logs.attributes::VARCHAR, scopes.name FROM logs JOIN scopes USING (scope_key)"
    ) == [(77, 77, 17, "ERROR", '{"k":1}', "asyncio.stall", 1, '{"line":12}', "my.logger")]


def test_metric_points_that_cannot_mean_anything_are_left_out(send: Send, store: Store) -> None:
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="empty")
    metrics.add(name="no temporality").sum.data_points.add(as_int=1)
    metrics.add().gauge.data_points.add(as_int=1)
    histograms = metrics.add(name="histogram").histogram
    histograms.aggregation_temporality = 2
    histograms.data_points.add(count=3, bucket_counts=[1, 2], explicit_bounds=[1.0, 2.0])
    histograms.data_points.add(count=3, bucket_counts=[1, 1, 1], explicit_bounds=[2.0, 1.0])
    histograms.data_points.add(count=3, bucket_counts=[1, 1, 1], explicit_bounds=[1.0, 2.0])
    histograms.data_points.add(count=3)
    scaled = metrics.add(name="exponential").exponential_histogram
    scaled.aggregation_temporality = 1
    scaled.data_points.add(count=1, scale=21)
    scaled.data_points.add(count=1, scale=20)
    metrics.add(name="gauge").gauge.data_points.add(as_double=1.5, time_unix_nano=2**63)
    answer = send(request.SerializeToString(), path="/v1/metrics")
    told = ExportMetricsServiceResponse.FromString(answer.body).partial_success
    assert told.rejected_data_points == 6
    assert told.error_message == (
        "1 with no aggregation temporality; 1 with no metric name; "
        "1 with bucket counts that do not fit the bounds; 1 with bounds that do not grow; "
        "1 with a scale outside -10 to 20; 1 with a time after the year 2262"
    )
    stored = [("histogram", "cumulative")] * 2 + [("exponential", "delta")]
    assert store.query("SELECT name, temporality FROM metric_points ORDER BY id") == stored


def test_items_beyond_the_limit_of_a_request_are_left_out(
    send: Send, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty log record is two bytes on the wire and a whole row here, so rows are counted too."""
    monkeypatch.setattr("otel_concurrency.console.signals.MAX_ITEMS_PER_REQUEST", 10)
    logs = ExportLogsServiceRequest()
    for _ in range(2):
        records = logs.resource_logs.add().scope_logs.add().log_records
        for _ in range(8):
            records.add()
    told = ExportLogsServiceResponse.FromString(send(logs.SerializeToString(), path="/v1/logs").body)
    assert told.partial_success.rejected_log_records == 6
    assert told.partial_success.error_message == "6 with more than 10 log records in one request"
    spans = ExportTraceServiceResponse.FromString(send(trace_request(*[{}] * 12).SerializeToString()).body)
    assert spans.partial_success.rejected_spans == 2
    metrics = ExportMetricsServiceRequest()
    gauge = metrics.resource_metrics.add().scope_metrics.add().metrics.add(name="gauge").gauge
    for _ in range(13):
        gauge.data_points.add(as_int=1)
    points = ExportMetricsServiceResponse.FromString(
        send(metrics.SerializeToString(), path="/v1/metrics").body
    )
    assert points.partial_success.rejected_data_points == 3
    assert {name: count.stored for name, count in store.counts().items()} == {
        "spans": 10,
        "logs": 10,
        "metric_points": 10,
    }
