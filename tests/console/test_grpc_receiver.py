"""OTLP/gRPC: what each request is answered, and what of it was stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub

from otel_concurrency.console import Receiver, Store
from tests.console.conftest import MAX_REQUEST_BYTES, trace_request

EXPORT = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
GOOD = trace_request({}).SerializeToString()

Call = Callable[..., bytes]


@pytest.fixture
def channel(receiver: Receiver) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(urlsplit(receiver.grpc_endpoint).netloc) as channel:
        yield channel


@pytest.fixture
def call(channel: grpc.Channel) -> Call:
    """Send bytes as they are: `call(body, method=..., compression=...)`."""

    def call(
        body: bytes, *, method: str = EXPORT, compression: grpc.Compression = grpc.Compression.NoCompression
    ) -> bytes:
        answer: bytes = channel.unary_unary(method)(body, timeout=20, compression=compression)
        return answer

    return call


@pytest.mark.parametrize("compression", list(grpc.Compression), ids=lambda compression: compression.name)
def test_a_request_is_stored_however_compressed(
    compression: grpc.Compression, call: Call, store: Store
) -> None:
    assert call(GOOD, compression=compression) == b""
    assert store.query("SELECT trace_id, name FROM spans") == [(bytes(range(1, 17)).hex(), "span 1")]


def test_an_invalid_span_is_left_out_and_told(channel: grpc.Channel, store: Store) -> None:
    request = trace_request({"name": "kept"}, {"trace_id": bytes(16)}, {"trace_id": b"short"})
    answer: ExportTraceServiceResponse = TraceServiceStub(channel).Export(request, timeout=20)
    assert answer.partial_success.rejected_spans == 2
    assert answer.partial_success.error_message == "2 with a trace_id that is not 16 bytes or all zeros"
    assert store.query("SELECT name FROM spans") == [("kept",)]


BOMB = trace_request({"name": "x" * 2**25}).SerializeToString()
REFUSED = {
    "noise": (b"\xff\xfe\x00noise", {}, grpc.StatusCode.INVALID_ARGUMENT, "not an ExportTraceServiceRequest"),
    "cut off": (GOOD[:-3], {}, grpc.StatusCode.INVALID_ARGUMENT, "not an ExportTraceServiceRequest"),
    "too large": (b"x" * (MAX_REQUEST_BYTES + 1), {}, grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than max"),
    "bomb": (BOMB, {"compression": grpc.Compression.Gzip}, grpc.StatusCode.RESOURCE_EXHAUSTED, "larger than"),
    "other method": (GOOD, {"method": EXPORT + "ed"}, grpc.StatusCode.UNIMPLEMENTED, ""),
}


@pytest.mark.parametrize(("body", "options", "code", "says"), REFUSED.values(), ids=REFUSED.keys())
def test_bad_requests_are_refused_with_their_code(
    body: bytes, options: dict[str, object], code: grpc.StatusCode, says: str, call: Call, store: Store
) -> None:
    """Neither code is one that exporters retry, as they would INTERNAL or UNAVAILABLE."""
    with pytest.raises(grpc.RpcError) as caught:
        call(body, **options)
    assert caught.value.code() == code
    assert says in caught.value.details()
    assert store.query("SELECT count(*) FROM spans") == [(0,)]


def test_a_store_that_is_gone_is_a_reason_to_come_back_later(call: Call, store: Store) -> None:
    store.close()
    with pytest.raises(grpc.RpcError) as caught:
        call(GOOD)
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
