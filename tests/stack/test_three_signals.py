"""The stack itself: what a plain SDK sends arrives, and the three signals find each other by trace id.

Nothing of ours takes part, so a failure here is the stack's and not the distro's.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import get_current
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

from tests.stack.backend import Backend, Exemplar, Record, Series, Span, eventually

pytestmark = pytest.mark.stack

DURATIONS_S = (0.001, 0.01, 0.02, 0.5, 3.0)


@dataclass(frozen=True)
class Sdk:
    """The three providers of one service."""

    spans: TracerProvider
    metrics: MeterProvider
    logs: LoggerProvider


@contextmanager
def sdk(backend: Backend, protocol: str, service: str) -> Iterator[Sdk]:
    """Providers that export to the collector; everything is flushed at the end."""
    if protocol == "grpc":
        address = backend.endpoints["otlp_grpc"]
        spans, metrics, logs = GrpcSpans(address), GrpcMetrics(address), GrpcLogs(address)
    else:
        address = backend.endpoints["otlp_http"]
        spans = HttpSpans(f"{address}/v1/traces")
        metrics, logs = HttpMetrics(f"{address}/v1/metrics"), HttpLogs(f"{address}/v1/logs")
    resource = Resource({"service.name": service, "service.instance.id": "one"})
    exponential = View(instrument_type=Histogram, aggregation=ExponentialBucketHistogramAggregation())
    reader = PeriodicExportingMetricReader(metrics, export_interval_millis=60_000)
    providers = Sdk(
        TracerProvider(resource=resource, shutdown_on_exit=False),
        MeterProvider([reader], resource=resource, views=[exponential], shutdown_on_exit=False),
        LoggerProvider(resource=resource, shutdown_on_exit=False),
    )
    providers.spans.add_span_processor(BatchSpanProcessor(spans))
    providers.logs.add_log_record_processor(BatchLogRecordProcessor(logs))
    try:
        yield providers
    finally:
        providers.spans.shutdown()
        providers.metrics.shutdown()
        providers.logs.shutdown()


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_the_stack_links_three_signals(backend: Backend, protocol: str) -> None:
    """A trace in Jaeger, a series with an exemplar in Prometheus and a log record share one trace id."""
    service = f"sender-{secrets.token_hex(4)}"
    function = {"code.function.name": "sender.work"}
    with sdk(backend, protocol, service) as providers:
        meter = providers.metrics.get_meter("otel_concurrency")
        created = meter.create_counter("asyncio.task.created", "{task}")
        duration = meter.create_histogram("asyncio.task.duration", "s")
        tracer = providers.spans.get_tracer("tests")
        with (
            tracer.start_as_current_span("request", kind=SpanKind.SERVER) as request,
            tracer.start_as_current_span("work") as work,
        ):
            created.add(7, function)
            for value in DURATIONS_S:
                duration.record(value, {**function, "asyncio.task.outcome": "finished"})
            record = LogRecord(
                timestamp=time.time_ns(),
                context=get_current(),
                severity_number=SeverityNumber.INFO,
                body=f"{service} works",
            )
            providers.logs.get_logger("tests").emit(record)
        trace_id = format(request.get_span_context().trace_id, "032x")
        request_id, work_id = (format(one.get_span_context().span_id, "016x") for one in (request, work))

    spans = eventually("two spans in Jaeger", lambda: backend.trace(trace_id), lambda spans: len(spans) == 2)
    assert sorted(spans, key=lambda span: span.name) == [
        Span(service, "request", "server", trace_id, request_id, ""),
        Span(service, "work", "internal", trace_id, work_id, request_id),
    ]

    identity = {
        "job": service,
        "instance": "one",
        "service_name": service,
        "service_instance_id": "one",
        "code_function_name": "sender.work",
    }
    counter = {"__name__": "asyncio_task_created_total", **identity}
    query = f'asyncio_task_created_total{{job="{service}"}}'
    assert eventually("the counter", lambda: backend.series(query)) == [Series(counter, value=7)]

    histogram = {"__name__": "asyncio_task_duration_seconds", "asyncio_task_outcome": "finished", **identity}
    selector = f'asyncio_task_duration_seconds{{job="{service}"}}'
    assert eventually("the histogram", lambda: backend.series(selector)) == [
        Series(histogram, count=5, sum=pytest.approx(sum(DURATIONS_S)), buckets=5)
    ]
    assert eventually("exemplars", lambda: backend.exemplars(selector)) == [
        Exemplar(histogram, value, trace_id, work_id) for value in DURATIONS_S
    ]

    records = eventually("the log record", lambda: backend.records(trace_id))
    assert records == [Record(f"{service} works", trace_id, work_id)]


def test_jaeger_does_not_know_a_trace_that_nobody_sent(backend: Backend) -> None:
    """An empty answer means absence, or every test that waits for a trace would pass on an error."""
    assert backend.trace(secrets.token_hex(16)) == []


def test_prometheus_has_no_series_that_nobody_sent(backend: Backend) -> None:
    """The same for a series."""
    assert backend.series('asyncio_task_created_total{job="nobody"}') == []
