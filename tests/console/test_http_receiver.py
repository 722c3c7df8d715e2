"""OTLP/HTTP: what each request is answered, and what of it was stored."""

from __future__ import annotations

import gzip
import json
import socket
import tracemalloc
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from google.rpc.code_pb2 import Code
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_concurrency.console import Receiver, Store
from otel_concurrency.console.http_receiver import Refusal, decompress
from tests.console.conftest import MAX_REQUEST_BYTES, PROTOBUF, Send, send_to, trace_request

JSON = "application/json"
GOOD = trace_request({}).SerializeToString()
GOOD_JSON = {
    "resourceSpans": [
        {
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "5B8EFFF798038103D269B633813FC60C",
                            "spanId": "eee19b7ec3c1b174",
                            "name": "from JSON",
                            "kind": 2,
                            "startTimeUnixNano": "1544712660000000000",
                            "endTimeUnixNano": "1544712661000000000",
                        }
                    ]
                }
            ]
        }
    ]
}


def as_json(value: object) -> bytes:
    return json.dumps(value).encode()


def one_span(**fields: object) -> bytes:
    (span,) = GOOD_JSON["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return as_json({"resourceSpans": [{"scopeSpans": [{"spans": [span | fields]}]}]})


def nested(depth: int) -> bytes:
    value: dict[str, Any] = {"stringValue": "deep"}
    for _ in range(depth):
        value = {"arrayValue": {"values": [value]}}
    return one_span(attributes=[{"key": "deep", "value": value}])


def bomb(size: int) -> bytes:
    """A valid request that is mostly one long attribute."""
    return trace_request({"name": "x" * size}).SerializeToString()


class Case(NamedTuple):
    """A request and its answer; the request is a good one but for what is given."""

    status: int
    stored: int = 0
    code: int = Code.INVALID_ARGUMENT
    says: str = ""
    body: bytes = GOOD
    content_type: str | None = PROTOBUF
    coding: str | None = None


CASES = {
    "protobuf": Case(200, 1),
    "protobuf with a parameter": Case(200, 1, content_type=f"{PROTOBUF}; charset=binary"),
    "protobuf of no spans": Case(200, body=b""),
    "gzip": Case(200, 1, body=gzip.compress(GOOD), coding="gzip"),
    "gzip in capitals": Case(200, 1, body=gzip.compress(GOOD), coding="GZIP"),
    "gzip in two members": Case(
        200, 1, body=gzip.compress(GOOD[:9]) + gzip.compress(GOOD[9:]), coding="gzip"
    ),
    "gzip of nothing at all": Case(200, body=b"", coding="gzip"),
    "deflate": Case(200, 1, body=zlib.compress(GOOD), coding="deflate"),
    "identity": Case(200, 1, coding="identity"),
    "JSON": Case(200, 1, body=as_json(GOOD_JSON), content_type=JSON),
    "JSON in gzip": Case(200, 1, body=gzip.compress(as_json(GOOD_JSON)), content_type=JSON, coding="gzip"),
    "JSON with a charset": Case(200, 1, body=as_json(GOOD_JSON), content_type=f"{JSON};charset=UTF-8"),
    "JSON with unknown keys": Case(200, 1, body=one_span(future={"a": [1]}), content_type=JSON),
    "JSON with nulls": Case(200, 1, body=one_span(attributes=None, status=None), content_type=JSON),
    "JSON times as numbers": Case(
        200, 1, body=one_span(endTimeUnixNano=1544712662000000000), content_type=JSON
    ),
    "JSON kind by name": Case(200, 1, body=one_span(kind="SPAN_KIND_CLIENT"), content_type=JSON),
    "JSON of no spans": Case(200, body=b"{}", content_type=JSON),
    "largest": Case(200, 1, body=bomb(MAX_REQUEST_BYTES - 100)),
    "cut off": Case(400, body=GOOD[:-3], says="not an ExportTraceServiceRequest"),
    "noise": Case(400, body=b"\xff\xfe\x00noise", says="not an ExportTraceServiceRequest"),
    "not gzip": Case(400, coding="gzip", says="damaged gzip"),
    "gzip cut off": Case(400, body=gzip.compress(GOOD)[:-9], coding="gzip", says="it ends too early"),
    "gzip with rubbish behind": Case(
        400, body=gzip.compress(GOOD) + b"rubbish", coding="gzip", says="damaged gzip"
    ),
    "not deflate": Case(400, coding="deflate", says="damaged deflate"),
    "not JSON": Case(400, body=b"{]", content_type=JSON, says="not JSON"),
    "JSON not UTF-8": Case(400, body=b'{"a":"\xff"}', content_type=JSON, says="not JSON"),
    "JSON with NaN": Case(
        400, body=one_span(flags=float("nan")), content_type=JSON, says="NaN outside quotes"
    ),
    "JSON array": Case(400, body=b"[]", content_type=JSON, says="expected an object, not list"),
    "JSON null": Case(400, body=b"null", content_type=JSON, says="expected an object, not null"),
    "JSON object for an array": Case(
        400,
        body=b'{"resourceSpans":{}}',
        content_type=JSON,
        says="resourceSpans: expected an array, not dict",
    ),
    "JSON id not hex": Case(
        400,
        body=one_span(spanId="zzz"),
        content_type=JSON,
        says="resourceSpans[0].scopeSpans[0].spans[0].spanId: expected an id in hex, or bytes in base64, not",
    ),
    "JSON id a number": Case(
        400, body=one_span(traceId=7), content_type=JSON, says="traceId: expected an id in hex"
    ),
    "JSON time negative": Case(
        400,
        body=one_span(startTimeUnixNano="-1"),
        content_type=JSON,
        says='expected an integer in range, not "-1"',
    ),
    "JSON time a fraction": Case(
        400,
        body=one_span(startTimeUnixNano=1.5),
        content_type=JSON,
        says="expected an integer in range, not 1.5",
    ),
    "JSON flags too large": Case(
        400,
        body=one_span(flags=2**32),
        content_type=JSON,
        says="expected an integer in range, not 4294967296",
    ),
    "JSON kind unheard of": Case(
        400, body=one_span(kind="KING"), content_type=JSON, says="expected an enum's integer"
    ),
    "JSON name a number": Case(
        400, body=one_span(name=1), content_type=JSON, says="name: expected a string, not 1"
    ),
    "JSON name half a character": Case(
        400, body=one_span(name="\ud800"), content_type=JSON, says="expected a string"
    ),
    "JSON two values in one": Case(
        400,
        body=one_span(attributes=[{"key": "k", "value": {"intValue": "1", "boolValue": True}}]),
        content_type=JSON,
        says="attributes[0].value.boolValue: a second value where only one can be",
    ),
    "JSON too deep": Case(
        400, body=nested(60), content_type=JSON, says="more than 100 messages inside one another"
    ),
    "JSON bottomless": Case(400, body=b'{"a":' * 20_000, content_type=JSON, says="not JSON"),
    "text": Case(415, content_type="text/plain", says="content type 'text/plain'"),
    "form": Case(415, content_type="application/x-www-form-urlencoded", says="content type"),
    "no content type": Case(415, content_type=None, says="content type ''"),
    "brotli": Case(415, coding="br", says="content encoding 'br'"),
    "two codings": Case(
        415, body=gzip.compress(gzip.compress(GOOD)), coding="gzip, gzip", says="content encoding"
    ),
    "too large": Case(
        413, body=bomb(MAX_REQUEST_BYTES), code=Code.RESOURCE_EXHAUSTED, says="larger than 100000"
    ),
    "gzip bomb": Case(
        413,
        body=gzip.compress(bomb(2**25)),
        coding="gzip",
        code=Code.RESOURCE_EXHAUSTED,
        says="larger than 100000",
    ),
    "gzip bomb in members": Case(
        413,
        body=gzip.compress(bomb(90_000)) * 2,
        coding="gzip",
        code=Code.RESOURCE_EXHAUSTED,
        says="larger than",
    ),
    "deflate bomb": Case(
        413,
        body=zlib.compress(bomb(2**25)),
        coding="deflate",
        code=Code.RESOURCE_EXHAUSTED,
        says="larger than",
    ),
    "JSON bomb": Case(
        413,
        body=gzip.compress(b" " * 2**25),
        content_type=JSON,
        coding="gzip",
        code=Code.RESOURCE_EXHAUSTED,
        says="larger than",
    ),
}


@pytest.fixture(scope="module")
def standing() -> Iterator[Receiver]:
    """One receiver for the whole table: that a bad request harms no later one is part of the claim."""
    with (
        Store() as store,
        Receiver(store, http_port=0, grpc_port=0, max_request_bytes=MAX_REQUEST_BYTES) as receiver,
    ):
        yield receiver


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_request_has_its_answer(case: Case, standing: Receiver) -> None:
    """The status, the body in the request's own encoding, and what was stored, for good and bad requests."""
    before = standing.store.query("SELECT count(*) FROM spans")[0][0]
    answer = send_to(standing, case.body, content_type=case.content_type, coding=case.coding)
    is_protobuf = (case.content_type or "").startswith(PROTOBUF)
    assert (answer.status, answer.media_type) == (case.status, PROTOBUF if is_protobuf else JSON)
    if case.status == 200:
        assert answer.body == (b"" if is_protobuf else b"{}")
    else:
        status = Status.FromString(answer.body) if is_protobuf else Status(**json.loads(answer.body))
        assert status.code == case.code
        assert case.says in status.message
    assert standing.store.query("SELECT count(*) FROM spans") == [(before + case.stored,)]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/traces", 405),
        ("PUT", "/v1/metrics", 405),
        ("DELETE", "/v1/logs", 405),
        ("POST", "/v1/trace", 404),
        ("POST", "/", 404),
        ("POST", "/v1/profiles", 404),
    ],
)
def test_other_methods_and_paths_are_refused(
    method: str, path: str, status: int, send: Send, store: Store
) -> None:
    answer = send(GOOD, method=method, path=path)
    assert answer.status == status
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)
    assert store.query("SELECT count(*) FROM spans") == [(0,)]


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


def test_a_partial_success_is_told_in_json_to_who_speaks_json(send: Send) -> None:
    answer = send(one_span(traceId="00" * 16), content_type=JSON)
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "partialSuccess": {"rejectedSpans": "1", "errorMessage": f"1 with {ALL_ZEROS}"}
    }


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


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_a_bomb_is_not_unpacked(coding: str) -> None:
    """A hundred KB that hold a hundred MB cost a little more than the limit, not a hundred MB."""
    packed = (gzip.compress if coding == "gzip" else zlib.compress)(bytes(100 * 2**20))
    tracemalloc.start()
    try:
        with pytest.raises(Refusal, match="larger than 100000 bytes"):
            decompress(packed, coding, MAX_REQUEST_BYTES)
        assert tracemalloc.get_traced_memory()[1] < 20 * MAX_REQUEST_BYTES
    finally:
        tracemalloc.stop()


def answer_to(receiver: Receiver, head: bytes, chunk: bytes = b"", times: int = 0) -> bytes:
    """Send the head of a request and as much of the body as the receiver takes; return the answer."""
    host, port = receiver.http_endpoint.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as client:
        client.sendall(
            b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-protobuf\r\n" + head
        )
        for _ in range(times):
            client.sendall(chunk)
        with client.makefile("rb") as answer:
            return answer.readline()


def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(receiver: Receiver) -> None:
    head = b"Content-Length: 1000000000\r\n\r\n"
    assert answer_to(receiver, head).startswith(b"HTTP/1.1 413 ")


def test_a_body_that_never_ends_is_refused_when_it_is_too_large(receiver: Receiver) -> None:
    """A chunked request announces no length, so the bytes are counted as they come."""
    chunk = b"2710\r\n" + b"x" * 10_000 + b"\r\n"
    answer = answer_to(receiver, b"Transfer-Encoding: chunked\r\n\r\n", chunk, times=11)
    assert answer.startswith(b"HTTP/1.1 413 ")


def test_a_store_that_is_gone_is_a_reason_to_come_back_later(send: Send, store: Store) -> None:
    store.close()
    answer = send(GOOD)
    assert answer.status == 503
    assert Status.FromString(answer.body).code == Code.UNAVAILABLE
