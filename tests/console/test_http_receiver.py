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

from otel_concurrency.console import Receiver, Store
from otel_concurrency.console.http_receiver import Refusal, decompress
from tests.console.conftest import (
    GOOD_JSON,
    JSON,
    MAX_REQUEST_BYTES,
    PROTOBUF,
    Send,
    as_json,
    one_span,
    send_to,
    trace_request,
)

GOOD = trace_request({}).SerializeToString()


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


def test_a_partial_success_is_told_in_json_to_who_speaks_json(send: Send) -> None:
    answer = send(one_span(traceId="00" * 16), content_type=JSON)
    assert answer.status == 200
    assert json.loads(answer.body) == {
        "partialSuccess": {
            "rejectedSpans": "1",
            "errorMessage": "1 with a trace_id that is not 16 bytes or all zeros",
        }
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
