"""Open requests, as a list and as a metric, which comes from one source alone."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import SpanKind
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from otel_concurrency.instrumentors.http_servers import HttpServerInstrumentor, active_requests

NAME = "http.server.active_requests"


@pytest.fixture
def instrumentor() -> Iterator[HttpServerInstrumentor]:
    instrumentor = HttpServerInstrumentor()
    instrumentor.instrument()
    yield instrumentor
    instrumentor.uninstrument()


def told(reader: InMemoryMetricReader) -> dict[tuple[Any, ...], Any]:
    data = reader.get_metrics_data()
    return {
        tuple((point.attributes or {}).values()): point.value
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == NAME
        for point in metric.data.data_points
    }


async def call(app: Starlette, method: str, kind: str = "http") -> None:
    scope = {"type": kind, "method": method, "scheme": "http", "path": "/1", "headers": []}
    scope |= {"query_string": b"", "root_path": ""}

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        pass

    await app(scope, receive, send)


def test_those_that_are_open(
    instrumentor: HttpServerInstrumentor,
    reader: InMemoryMetricReader,
) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    spans: list[trace.SpanContext] = []

    async def main() -> None:
        began, go = asyncio.Semaphore(0), asyncio.Event()

        async def handle(request: Any) -> PlainTextResponse:
            with tracer.start_as_current_span("GET", kind=SpanKind.SERVER) as span:
                spans.append(span.get_span_context())
                began.release()
                await go.wait()
            return PlainTextResponse("ok")

        methods = ["GET", "GET", "BREW"]
        app = Starlette(routes=[Route("/{number}", handle, methods=["GET", "BREW"])])
        assert told(reader) == {}
        since = time.monotonic_ns()
        tasks = [asyncio.create_task(call(app, method), name=f"serve {method}") for method in methods]
        for _ in methods:
            await began.acquire()
        assert told(reader) == {("GET", "http"): 2, ("_OTHER", "http"): 1}
        now = active_requests()
        assert [(each.method, each.scheme, each.task) for each in now] == [
            (method, "http", f"serve {method}") for method in methods
        ]
        assert all(0 < each.age_ns <= time.monotonic_ns() - since for each in now)
        if sys.version_info >= (3, 12):
            assert [(each.trace_id, each.span_id) for each in now] == [
                (f"{span.trace_id:032x}", f"{span.span_id:016x}") for span in spans
            ]
        go.set()
        await asyncio.gather(*tasks)
        assert active_requests() == []
        assert told(reader) == {("GET", "http"): 0, ("_OTHER", "http"): 0}

    asyncio.run(main())


def test_the_span_around_is_the_request_s_until_it_has_one(instrumentor: HttpServerInstrumentor) -> None:
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("test")
    seen = []

    async def handle(request: Any) -> PlainTextResponse:
        seen.extend(active_requests())
        return PlainTextResponse("ok")

    async def main() -> trace.SpanContext:
        with tracer.start_as_current_span("GET", kind=SpanKind.SERVER) as span:
            await call(Starlette(routes=[Route("/{number}", handle)]), "GET")
        return span.get_span_context()

    span = asyncio.run(main())
    assert [(each.trace_id, each.span_id) for each in seen] == [
        (f"{span.trace_id:032x}", f"{span.span_id:016x}")
    ]


def test_what_somebody_else_counts_we_do_not(
    instrumentor: HttpServerInstrumentor, reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has made an instrument of that name, of whatever scope, is the one source."""
    provider = MeterProvider()
    monkeypatch.setattr(metrics, "get_meter_provider", lambda: provider)
    seen: list[Any] = []

    async def handle(request: Any) -> PlainTextResponse:
        seen.append(told(reader))
        provider.get_meter("theirs").create_up_down_counter(NAME, "{request}", "Theirs")
        seen.append(told(reader))
        return PlainTextResponse("ok")

    asyncio.run(call(Starlette(routes=[Route("/{number}", handle)]), "GET"))
    assert seen == [{("GET", "http"): 1}, {}]
    provider.shutdown()


def test_uninstrumented_there_are_none(
    instrumentor: HttpServerInstrumentor, reader: InMemoryMetricReader
) -> None:
    seen: list[Any] = []

    async def handle(request: Any) -> PlainTextResponse:
        instrumentor.uninstrument()
        seen.extend((active_requests(), told(reader)))
        return PlainTextResponse("ok")

    asyncio.run(call(Starlette(routes=[Route("/{number}", handle)]), "GET"))
    assert seen == [[], {}]
