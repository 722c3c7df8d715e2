"""A store, a receiver on free ports, and OTLP messages to send."""

from __future__ import annotations

import functools
import http.client
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from otel_concurrency.console import Receiver, Store

MAX_REQUEST_BYTES = 100_000
TRACE_ID = bytes(range(1, 17))
PROTOBUF = "application/x-protobuf"
JSON = "application/json"


@pytest.fixture
def store() -> Iterator[Store]:
    with Store() as store:
        yield store


@pytest.fixture
def receiver(store: Store) -> Iterator[Receiver]:
    """A receiver on free ports that takes requests of up to `MAX_REQUEST_BYTES`."""
    with Receiver(store, http_port=0, grpc_port=0, max_request_bytes=MAX_REQUEST_BYTES) as receiver:
        yield receiver


@dataclass(frozen=True)
class Answer:
    """An HTTP answer."""

    status: int
    media_type: str
    body: bytes
    headers: Mapping[str, str]


def send_to(
    receiver: Receiver,
    body: bytes,
    *,
    method: str = "POST",
    path: str = "/v1/traces",
    content_type: str | None = PROTOBUF,
    coding: str | None = None,
) -> Answer:
    """Send one HTTP request on a connection of its own."""
    connection = http.client.HTTPConnection(urlsplit(receiver.http_endpoint).netloc, timeout=20)
    headers = {"Content-Type": content_type, "Content-Encoding": coding}
    given = {name: value for name, value in headers.items() if value is not None}
    try:
        connection.request(method, path, body, given)
        response = connection.getresponse()
        media_type = response.getheader("content-type", "").partition(";")[0]
        return Answer(response.status, media_type, response.read(), dict(response.getheaders()))
    finally:
        connection.close()


Send = Callable[..., Answer]


@pytest.fixture
def send(receiver: Receiver) -> Send:
    """`send_to` the test's own receiver."""
    return functools.partial(send_to, receiver)


def pairs(**attributes: str | int | float | bool) -> list[KeyValue]:
    """Return attributes as OTLP has them; underscores in names stand for dots."""
    return [KeyValue(key=name.replace("_", "."), value=_any(value)) for name, value in attributes.items()]


def _any(value: str | int | float | bool) -> AnyValue:
    if isinstance(value, bool):
        return AnyValue(bool_value=value)
    if isinstance(value, int):
        return AnyValue(int_value=value)
    return AnyValue(double_value=value) if isinstance(value, float) else AnyValue(string_value=value)


def trace_request(*spans: Mapping[str, Any], service: str = "shop") -> ExportTraceServiceRequest:
    """Return a request of spans, which are valid but for what is given."""
    request = ExportTraceServiceRequest()
    of_resource = request.resource_spans.add()
    of_resource.resource.attributes.extend(pairs(service_name=service))
    of_scope = of_resource.scope_spans.add()
    of_scope.scope.name = "tests"
    for number, fields in enumerate(spans, 1):
        valid = {
            "trace_id": TRACE_ID,
            "span_id": number.to_bytes(8, "big"),
            "name": f"span {number}",
            "start_time_unix_nano": number * 1000,
            "end_time_unix_nano": number * 1000 + 500,
        }
        of_scope.spans.add(**valid | dict(fields))
    return request


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
    """Return a value as a JSON body."""
    return json.dumps(value).encode()


def one_span(**fields: object) -> bytes:
    """Return `GOOD_JSON` with other fields in its span."""
    (span,) = GOOD_JSON["resourceSpans"][0]["scopeSpans"][0]["spans"]
    return as_json({"resourceSpans": [{"scopeSpans": [{"spans": [span | fields]}]}]})
