"""The connector limit: requests that wait for a connection, in the metrics and on the spans that suffered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import aiohttp
import httpx
import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, Tracer

from otel_concurrency.instrumentors.http_clients import HttpClientInstrumentor
from otel_concurrency.probes.account import PureAccount
from otel_concurrency.signals.request_times import RequestTimes
from tests.conftest import LoopFactory
from tests.loops import run
from tests.slow_server import SlowServer

SECONDS = 0.4
REQUESTS, LIMIT = 12, 4
IMPLIED = [SECONDS] * 4 + [2 * SECONDS] * 4  # of the second and the third round

Get = Callable[[str], Any]


@pytest.fixture
def instrumentor() -> Iterator[HttpClientInstrumentor]:
    instrumentor = HttpClientInstrumentor()
    instrumentor.instrument()
    yield instrumentor
    instrumentor.uninstrument()


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


def read(reader: InMemoryMetricReader) -> dict[str, list[tuple[Mapping[str, Any], Any]]]:
    """Return the points of each `http.client.*` metric."""
    data = reader.get_metrics_data()
    return {
        metric.name.removeprefix("http.client."): [
            (dict(point.attributes or {}), point) for point in metric.data.data_points
        ]
        for resource in (data.resource_metrics if data is not None else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("http.client.")
    }


class Aiohttp:
    def __init__(self) -> None:
        self.session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=LIMIT))

    async def get(self, url: str) -> None:
        async with self.session.get(url) as response:
            assert await response.text() == "ok"

    async def close(self) -> None:
        await self.session.close()


class Httpx:
    def __init__(self) -> None:
        limits = httpx.Limits(max_connections=LIMIT)
        self.client = httpx.AsyncClient(limits=limits, trust_env=False, timeout=10)

    async def get(self, url: str) -> None:
        assert (await self.client.get(url)).text == "ok"

    async def close(self) -> None:
        await self.client.aclose()


@pytest.mark.parametrize("make_client", [Aiohttp, Httpx])
def test_the_connector_limit(
    make_client: Callable[[], Aiohttp | Httpx],
    instrumentor: HttpClientInstrumentor,
    reader: InMemoryMetricReader,
    tracer: Tracer,
    exporter: InMemorySpanExporter,
    lazy_loop_factory: LoopFactory,
) -> None:
    """Twelve requests come at once, four may be under way, each takes 0.4 s."""
    under_way: dict[str, list[tuple[Mapping[str, Any], Any]]] = {}

    async def main(server: SlowServer) -> list[float]:
        client = make_client()

        async def handle() -> None:
            with (
                tracer.start_as_current_span("GET /", kind=SpanKind.SERVER),
                tracer.start_as_current_span("GET", kind=SpanKind.CLIENT),
            ):
                await client.get(server.url)

        await asyncio.gather(*(client.get(server.url) for _ in range(LIMIT)))
        server.seconds = SECONDS
        asked = time.monotonic()
        requests = asyncio.gather(*(handle() for _ in range(REQUESTS)))
        await asyncio.sleep(SECONDS / 4)
        assert server.at_work == LIMIT
        under_way.update(read(reader))
        await requests
        await client.close()
        return [arrival - asked for arrival in sorted(server.arrivals)[-len(IMPLIED) :]]

    with SlowServer() as server:
        truth = run(lazy_loop_factory, main(server))
        here = {"server.address": "127.0.0.1", "server.port": server.port}
    pool = {"http.client.connection.pool.name": under_way["connection.limit"][0][0].popitem()[1]}
    assert pool["http.client.connection.pool.name"].startswith(f"{__name__}:")
    assert [(at, point.value) for at, point in under_way["open_connections"]] == [
        ({**here, **pool, "http.connection.state": "active"}, LIMIT),
        ({**here, **pool, "http.connection.state": "idle"}, 0),
    ]
    assert [(at, point.value) for at, point in under_way["connection.pending_requests"]] == [
        ({**here, **pool}, REQUESTS - LIMIT)
    ]
    assert [point.value for _, point in under_way["connection.limit"]] == [LIMIT]

    def check(waits: Iterable[float]) -> None:
        """Hold waits against what is implied, and against what the server saw: later on a busy machine."""
        bounds = zip(IMPLIED, sorted(waits), truth, strict=True)
        assert [
            each for each in bounds if not 0.95 * each[0] <= each[1] <= 1.05 * max(each[0], each[2])
        ] == []

    ((at, waits),) = read(reader)["connection.wait_time"]
    assert (at, waits.count) == (here, REQUESTS - LIMIT)
    assert 0.95 * sum(IMPLIED) <= waits.sum <= 1.05 * sum(truth)

    spans = exporter.get_finished_spans()
    told = sorted(
        float(str((span.attributes or {}).get("concurrency.wait.http_pool", 0)))
        for span in spans
        if span.kind is SpanKind.SERVER
    )
    assert told[:LIMIT] == [0.0] * LIMIT
    check(told[LIMIT:])
    events = [
        (event.name, dict(event.attributes or {}))
        for span in spans
        if span.kind is SpanKind.CLIENT
        for event in span.events
    ]
    assert [name for name, _ in events] == ["pool.wait"] * (REQUESTS - LIMIT)
    check(float(str(event.pop("pool.wait.time"))) for _, event in events)
    assert [event for _, event in events] == [here] * (REQUESTS - LIMIT)


def test_uninstrumented_nothing_is_told(
    instrumentor: HttpClientInstrumentor, reader: InMemoryMetricReader
) -> None:
    async def main() -> None:
        async with aiohttp.ClientSession():
            assert set(read(reader)) == {"connection.limit"}
            instrumentor.uninstrument()
            assert read(reader) == {}

    asyncio.run(main())
