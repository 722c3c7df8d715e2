"""How full queues are, and the links from who put an item in to who took it out."""

from __future__ import annotations

import asyncio
import queue
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from otel_concurrency.instrumentors.queues import QueueInstrumentor

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def instrument() -> Iterator[Callable[..., None]]:
    instrumentor = QueueInstrumentor()
    yield instrumentor.instrument
    instrumentor.uninstrument()


def queues(reader: InMemoryMetricReader) -> dict[str, list[tuple[str, float]]]:
    """Return the points of each metric: the name of the queue, cut to its module, and the value."""
    data = reader.get_metrics_data()
    return {
        metric.name: [
            (str((point.attributes or {})["asyncio.queue.name"]).split(":")[0], point.value)
            for point in metric.data.data_points
        ]
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("asyncio.queue.")
    }


def test_queues_of_one_place_are_one_series(
    instrument: Callable[..., None], reader: InMemoryMetricReader
) -> None:
    instrument()

    async def main() -> None:
        kept = [asyncio.Queue[int](10) for _ in range(3)]
        unlimited = asyncio.LifoQueue[int]()
        for number, each in enumerate([*kept, unlimited]):
            for item in range(number + 1):
                each.put_nowait(item)
        seen = queues(reader)
        assert sorted(seen["asyncio.queue.size"]) == [(__name__, 4), (__name__, 1 + 2 + 3)]
        assert seen["asyncio.queue.limit"] == [(__name__, 30)]

    asyncio.run(main())


def test_nothing_is_looked_at_where_nobody_asked(
    instrument: Callable[..., None], reader: InMemoryMetricReader
) -> None:
    before = vars(asyncio.Queue)["__init__"], vars(asyncio.Queue)["put_nowait"], vars(queue.Queue)["put"]
    instrument(sync_waits="none")
    assert before == (
        vars(asyncio.Queue)["__init__"],
        vars(asyncio.Queue)["put_nowait"],
        vars(queue.Queue)["put"],
    )


@pytest.fixture
def traced(instrument: Callable[..., None]) -> Iterator[tuple[Any, Callable[[], dict[str, ReadableSpan]]]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    instrument(queue_links=True, tracer_provider=provider)
    yield provider.get_tracer("app"), lambda: {span.name: span for span in exporter.get_finished_spans()}
    provider.shutdown()


def linked(span: ReadableSpan) -> list[int]:
    return [link.context.span_id for link in span.links]


def test_links_of_consumers(
    traced: tuple[Any, Callable[[], dict[str, ReadableSpan]]], loop_factory: LoopFactory
) -> None:
    """Two items are taken before their spans start, one inside of a span."""
    tracer, spans = traced

    async def consume(items: asyncio.Queue[str]) -> None:
        for _ in range(2):
            item = await items.get()
            with tracer.start_as_current_span(f"use {item}"), tracer.start_as_current_span("inner"):
                pass
        with tracer.start_as_current_span("around"):
            await items.get()
        with tracer.start_as_current_span("after"):
            pass

    async def main() -> None:
        items: asyncio.Queue[str] = asyncio.Queue()
        consumer = asyncio.ensure_future(consume(items))
        for name in ("one", "two", "three"):
            with tracer.start_as_current_span(f"put {name}"):
                await items.put(name)
            await asyncio.sleep(0)
        await consumer

    loop = loop_factory()
    loop.run_until_complete(main())
    loop.close()
    seen = spans()
    ids = {name: span.get_span_context().span_id for name, span in seen.items()}
    assert {name: linked(span) for name, span in seen.items() if span.links} == {
        "use one": [ids["put one"]],
        "use two": [ids["put two"]],
        "around": [ids["put three"]],
    }


def test_links_across_threads(traced: tuple[Any, Callable[[], dict[str, ReadableSpan]]]) -> None:
    tracer, spans = traced
    items: queue.Queue[int] = queue.Queue()
    with tracer.start_as_current_span("put"):
        items.put(1)
    assert items.get() == 1
    with tracer.start_as_current_span("use"):
        pass
    assert linked(spans()["use"]) == [spans()["put"].get_span_context().span_id]
