"""The receiver as exporters meet it: the real ones, every signal, both protocols, plain and compressed."""

from __future__ import annotations

import json
import logging
import math
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import grpc
import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogExporter
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.instrumentation.logging.handler import LoggingHandler
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import AggregationTemporality, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode

from otel_concurrency.console import PortTaken, Receiver, Store
from otel_concurrency.console.schema import Batch
from tests.console.conftest import send_to, trace_request

RESOURCE = Resource(
    {"service.name": "shop", "service.instance.id": "shop-1", "answer": 42}, "https://example.test/1"
)


@pytest.fixture(params=["http", "http gzip", "http deflate", "grpc", "grpc gzip"])
def way(request: pytest.FixtureRequest, receiver: Receiver) -> tuple[str, Callable[[str], dict[str, Any]]]:
    """A protocol and the exporter's arguments for it, given the signal."""
    protocol, _, coding = request.param.partition(" ")
    if protocol == "grpc":
        compression = grpc.Compression.Gzip if coding else grpc.Compression.NoCompression
        options = {"endpoint": receiver.grpc_endpoint, "insecure": True, "compression": compression}
        return protocol, lambda _: options
    compressed = Compression(coding or "none")
    return protocol, lambda signal: {
        "endpoint": f"{receiver.http_endpoint}/v1/{signal}",
        "compression": compressed,
    }


def test_spans_arrive_as_they_were(way: Any, store: Store) -> None:
    protocol, options = way
    exporter = (GrpcSpanExporter if protocol == "grpc" else HttpSpanExporter)(**options("traces"))
    provider = TracerProvider(resource=RESOURCE, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("tests.tracer", "1.2", attributes={"scoped": True})
    linked = SpanContext(trace_id=7, span_id=8, is_remote=True)
    with tracer.start_as_current_span("parent", kind=SpanKind.SERVER, start_time=1000) as parent:
        child = tracer.start_span(
            "child", kind=SpanKind.CLIENT, start_time=2000, links=[Link(linked, {"l": 1})]
        )
        child.set_attributes({"text": "é", "int": 2**62, "float": 0.1, "bool": False, "list": ["a", "b"]})
        child.add_event("exception", {"exception.type": "ValueError"}, timestamp=2500)
        child.set_status(Status(StatusCode.ERROR, "it broke"))
        child.end(end_time=3000)
        parent.end(end_time=4000)
    provider.shutdown()
    columns = (
        "trace_id, span_id, parent_span_id, spans.name, kind, start_ns, end_ns, status, status_message,"
        " spans.attributes, events, links, service, instance, resources.attributes, resources.schema_url,"
        " scopes.name, version, scopes.attributes"
    )
    tables = "spans JOIN resources USING (resource_key) JOIN scopes USING (scope_key)"
    rows = [
        [json.loads(cell) if str(cell).startswith(("{", "[")) else cell for cell in row]
        for row in store.query(f"SELECT {columns} FROM {tables} ORDER BY start_ns")
    ]
    trace_id = f"{parent.get_span_context().trace_id:032x}"
    parent_id = f"{parent.get_span_context().span_id:016x}"
    child_id = f"{child.get_span_context().span_id:016x}"
    source = [
        "shop",
        "shop-1",
        {"service.name": "shop", "service.instance.id": "shop-1", "answer": 42},
        "https://example.test/1",
        "tests.tracer",
        "1.2",
        {"scoped": True},
    ]
    assert rows == [
        [trace_id, parent_id, None, "parent", "server", 1000, 4000, "unset", "", {}, [], [], *source],
        [
            trace_id,
            child_id,
            parent_id,
            "child",
            "client",
            2000,
            3000,
            "error",
            "it broke",
            {"text": "é", "int": 2**62, "float": 0.1, "bool": False, "list": ["a", "b"]},
            [{"time_ns": 2500, "name": "exception", "attributes": {"exception.type": "ValueError"}}],
            [{"trace_id": f"{7:032x}", "span_id": f"{8:016x}", "trace_state": "", "attributes": {"l": 1}}],
            *source,
        ],
    ]


def test_log_records_arrive_as_they_were(way: Any, store: Store) -> None:
    protocol, options = way
    exporter = (GrpcLogExporter if protocol == "grpc" else HttpLogExporter)(**options("logs"))
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    provider.get_logger("my.logger").emit(
        LogRecord(
            timestamp=1000,
            observed_timestamp=2000,
            severity_number=SeverityNumber.WARN,
            severity_text="WARNING",
            body={"a": [1, 2.5, None]},
            attributes={"thread.name": "MainThread"},
            event_name="it.happened",
        )
    )
    provider.shutdown()
    ((*columns, body, attributes),) = store.query(
        "SELECT time_ns, observed_ns, severity_number, severity, event_name, trace_id, span_id, service,"
        " scopes.name, body, logs.attributes"
        " FROM logs JOIN resources USING (resource_key) JOIN scopes USING (scope_key)"
    )
    assert columns == [1000, 2000, 13, "WARNING", "it.happened", None, None, "shop", "my.logger"]
    assert json.loads(body) == {"a": [1, 2.5, None]}
    assert json.loads(attributes) == {"thread.name": "MainThread"}


def test_a_log_record_keeps_its_span(receiver: Receiver, store: Store) -> None:
    provider = LoggerProvider(RESOURCE, shutdown_on_exit=False)
    provider.add_log_record_processor(
        SimpleLogRecordProcessor(HttpLogExporter(endpoint=f"{receiver.http_endpoint}/v1/logs"))
    )
    logger = logging.Logger("a.logger")
    logger.addHandler(LoggingHandler(logger_provider=provider))
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("s") as span:
        logger.error("order %d", 7)
    provider.shutdown()
    context = span.get_span_context()
    expected = ("order 7", f"{context.trace_id:032x}", f"{context.span_id:016x}", "ERROR")
    assert store.query("SELECT body->>'$', trace_id, span_id, severity FROM logs") == [expected]


@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_metrics_of_every_kind_arrive_as_they_were(way: Any, temporality: str, store: Store) -> None:
    protocol, options = way
    chosen = AggregationTemporality[temporality.upper()]
    instruments = (Counter, Histogram)
    exporter = (GrpcMetricExporter if protocol == "grpc" else HttpMetricExporter)(
        preferred_temporality=dict.fromkeys(instruments, chosen), **options("metrics")
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=math.inf)
    exponential = View(
        instrument_name="exponential", aggregation=ExponentialBucketHistogramAggregation(max_scale=3)
    )
    provider = MeterProvider([reader], RESOURCE, views=[exponential], shutdown_on_exit=False)
    meter = provider.get_meter("tests.meter")
    with TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("s") as span:
        meter.create_counter("counter", "{task}", "Tasks made").add(2**60 + 1, {"b": 1, "a": "x"})
        meter.create_up_down_counter("up.down").add(-3)
        meter.create_gauge("gauge", "s").set(0.25)
        bounded = meter.create_histogram("explicit", "s", explicit_bucket_boundaries_advisory=[1.0, 2.0])
        exponential_histogram = meter.create_histogram("exponential", "s")
        for value in (0.5, 1.5, 1.75, 8.0):
            bounded.record(value)
            exponential_histogram.record(value)
    provider.force_flush()
    provider.shutdown()
    columns = (
        "name, unit, description, kind, temporality, monotonic, attributes::VARCHAR, value, int_value,"
        " value_count, value_sum, value_min, value_max, distribution"
    )
    rows = {
        name: [*rest, json.loads(distribution) if distribution else None]
        for name, *rest, distribution in store.query(f"SELECT DISTINCT {columns} FROM metric_points")
    }
    # (base ** i, base ** (i + 1)] with base = 2 ** (1 / 8): 0.5 is in -9, 1.5 in 4, 1.75 in 6, 8.0 in 23
    scaled = rows["exponential"].pop()
    offset, counts = scaled["positive"].values()
    assert {index: count for index, count in enumerate(counts, offset) if count} == {-9: 1, 4: 1, 6: 1, 23: 1}
    assert (scaled["scale"], scaled["zero_count"], sum(scaled["negative"]["counts"])) == (3, 0, 0)
    assert rows == {
        "counter": [
            *("{task}", "Tasks made", "sum", temporality, True, '{"a":"x","b":1}'),
            *(float(2**60), 2**60 + 1, None, None, None, None, None),
        ],
        "up.down": ["", "", "sum", "cumulative", False, "{}", -3.0, -3, None, None, None, None, None],
        "gauge": ["s", "", "gauge", None, None, "{}", 0.25, None, None, None, None, None, None],
        "explicit": [
            *("s", "", "histogram", temporality, None, "{}", None, None, 4, 11.75, 0.5, 8.0),
            {"bounds": [1.0, 2.0], "counts": [1, 2, 1]},
        ],
        "exponential": [
            *("s", "", "exponential_histogram", temporality, None, "{}", None, None, 4, 11.75, 0.5, 8.0),
        ],
    }
    ((exemplars,),) = store.query("SELECT DISTINCT exemplars FROM metric_points WHERE name = 'counter'")
    context = span.get_span_context()
    assert [
        (exemplar["value"], exemplar["trace_id"], exemplar["span_id"]) for exemplar in json.loads(exemplars)
    ] == [(2**60 + 1, f"{context.trace_id:032x}", f"{context.span_id:016x}")]


def test_a_summary_is_stored_too(receiver: Receiver, store: Store) -> None:
    """The SDK sends none; collectors that scrape Prometheus do."""
    request = ExportMetricsServiceRequest()
    summary = request.resource_metrics.add().scope_metrics.add().metrics.add(name="old").summary
    point = summary.data_points.add(count=5, sum=2.5, time_unix_nano=9)
    point.quantile_values.add(quantile=0.5, value=0.25)
    point.quantile_values.add(quantile=0.99, value=math.nan)
    send_to(receiver, request.SerializeToString(), path="/v1/metrics")
    ((*columns, distribution),) = store.query(
        "SELECT kind, temporality, time_ns, value_count, value_sum, distribution FROM metric_points"
    )
    assert columns == ["summary", None, 9, 5, 2.5]
    assert json.loads(distribution) == {"quantiles": [[0.5, 0.25], [0.99, "NaN"]]}


def test_many_exporters_at_once_lose_nothing(receiver: Receiver, store: Store) -> None:
    """Both protocols, twelve threads, hundreds of requests: every span is stored once."""
    requests, threads = 20, 12

    def send(thread: int) -> None:
        channel = grpc.insecure_channel(urlsplit(receiver.grpc_endpoint).netloc) if thread % 2 else None
        for number in range(requests):
            request = trace_request(*[{"name": f"{thread} {number} {span}"} for span in range(10)])
            if channel:
                TraceServiceStub(channel).Export(request, timeout=60)
            else:
                assert send_to(receiver, request.SerializeToString()).status == 200
        if channel:
            channel.close()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(send, range(threads)))
    assert store.counts()["spans"].received == requests * threads * 10
    distinct = "SELECT count(*), count(DISTINCT name) FROM spans"
    assert store.query(distinct) == [(requests * threads * 10, requests * threads * 10)]


def listens(endpoint: str) -> bool:
    split = urlsplit(endpoint)
    with socket.socket() as client:
        return client.connect_ex((split.hostname, split.port)) == 0


def test_it_listens_when_entered_and_nothing_is_left_afterwards(store: Store) -> None:
    before = set(threading.enumerate())
    with Receiver(store, http_port=0, grpc_port=0) as receiver:
        endpoints = (receiver.http_endpoint, receiver.grpc_endpoint)
        assert [listens(endpoint) for endpoint in endpoints] == [True, True]
        assert repr(receiver) == f"<Receiver listening on {endpoints[0]} and {endpoints[1]}>"
        assert send_to(receiver, trace_request({}).SerializeToString()).status == 200
    assert [listens(endpoint) for endpoint in endpoints] == [False, False]
    assert set(threading.enumerate()) == before
    assert repr(receiver) == "<Receiver not running>"
    assert store.query("SELECT count(*) FROM spans") == [(1,)]
    receiver.stop()


def test_it_starts_again_on_the_ports_it_was_asked_for(store: Store) -> None:
    with Receiver(store, http_port=0, grpc_port=0) as first:
        ports = [urlsplit(endpoint).port for endpoint in (first.http_endpoint, first.grpc_endpoint)]
    again = Receiver(store, http_port=ports[0], grpc_port=ports[1])
    for _ in range(2):
        with again:
            assert (again.http_endpoint, again.grpc_endpoint) == (first.http_endpoint, first.grpc_endpoint)
            assert send_to(again, trace_request({}).SerializeToString()).status == 200
            with pytest.raises(RuntimeError, match="runs already"):
                again.start()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_taken_port_is_named_and_nothing_stays_open(protocol: str, store: Store) -> None:
    before = set(threading.enumerate())
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        receiver = Receiver(store, **{"http_port": 0, "grpc_port": 0, f"{protocol}_port": port})
        with pytest.raises(PortTaken, match=f"port {port} for OTLP/{protocol} is taken") as caught:
            receiver.start()
    assert (caught.value.protocol, caught.value.port) == (protocol, port)
    assert set(threading.enumerate()) == before
    with receiver:
        assert listens(receiver.http_endpoint)


def test_two_receivers_do_not_share_a_port(receiver: Receiver, store: Store) -> None:
    """Left alone, gRPC would let two servers listen on one port and give each a part of the requests."""
    second = Receiver(store, http_port=0, grpc_port=urlsplit(receiver.grpc_endpoint).port or 0)
    with pytest.raises(PortTaken):
        second.start()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_a_request_on_its_way_is_answered_before_the_end(protocol: str, store: Store) -> None:
    """Stopping waits for what was accepted: what an exporter was told is stored, is stored."""
    entered, leave = threading.Event(), threading.Event()
    insert = store.insert

    def slow_insert(batch: Batch) -> None:
        entered.set()
        assert leave.wait(20)
        insert(batch)

    store.insert = slow_insert  # type: ignore[method-assign]
    receiver = Receiver(store, http_port=0, grpc_port=0)
    receiver.start()
    channel = grpc.insecure_channel(urlsplit(receiver.grpc_endpoint).netloc)
    with ThreadPoolExecutor(2) as pool, channel:
        if protocol == "http":
            answer = pool.submit(send_to, receiver, trace_request({}).SerializeToString())
        else:
            answer = pool.submit(TraceServiceStub(channel).Export, trace_request({}), timeout=20)
        assert entered.wait(20)
        stopping = pool.submit(receiver.stop)
        endpoint = receiver.http_endpoint if protocol == "http" else receiver.grpc_endpoint
        deadline = time.monotonic() + 20
        while listens(endpoint):
            assert time.monotonic() < deadline
        leave.set()
        assert getattr(answer.result(20), "status", 200) == 200
        stopping.result(20)
    assert store.query("SELECT count(*) FROM spans") == [(1,)]


def test_only_loopback_is_listened_on(receiver: Receiver) -> None:
    assert {urlsplit(endpoint).hostname for endpoint in (receiver.http_endpoint, receiver.grpc_endpoint)} == {
        "127.0.0.1"
    }
