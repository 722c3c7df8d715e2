"""What the request and the current span hear of a wait for a connection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Tracer, use_span

from otel_concurrency.probes.account import DB_POOL, HTTP_POOL, PureAccount
from otel_concurrency.signals.pool_waits import tell_wait
from otel_concurrency.signals.request_times import RequestTimes

MS = 1_000_000


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracer(exporter: InMemorySpanExporter) -> Iterator[Tracer]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(RequestTimes(PureAccount))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("test")
    provider.shutdown()


def test_a_request_hears_of_all_waits_and_its_spans_of_the_long_ones(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    with tracer.start_as_current_span("GET", kind=SpanKind.SERVER):
        tell_wait(DB_POOL, 10 * MS - 1, {"pool": "orders"})
        with tracer.start_as_current_span("inside", kind=SpanKind.CLIENT):
            tell_wait(HTTP_POOL, 10 * MS, {"server.address": "here"})
            tell_wait(HTTP_POOL, 250 * MS, {"server.address": "there"})
    inside, request = exporter.get_finished_spans()
    told = dict(request.attributes or {})
    assert told["concurrency.wait.db_pool"] == pytest.approx(0.009_999_999)
    assert told["concurrency.wait.http_pool"] == pytest.approx(0.26)
    assert request.events == ()
    assert [(event.name, dict(event.attributes or {})) for event in inside.events] == [
        ("pool.wait", {"pool.wait.time": 0.01, "server.address": "here"}),
        ("pool.wait", {"pool.wait.time": 0.25, "server.address": "there"}),
    ]


def test_nobody_hears_where_there_is_no_span() -> None:
    tell_wait(HTTP_POOL, 20 * MS, {})


def test_a_span_that_is_over_or_not_recorded_gets_no_event(
    tracer: Tracer, exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture
) -> None:
    with use_span(tracer.start_span("over")) as span:
        span.end()
        tell_wait(HTTP_POOL, 20 * MS, {})
    assert [span.events for span in exporter.get_finished_spans()] == [()]
    assert caplog.records == []
