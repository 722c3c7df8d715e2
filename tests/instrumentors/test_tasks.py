"""From a task in a span to a data point with an exemplar, through the whole house, and the way back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
HERE = __name__


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def instrumentor(request: pytest.FixtureRequest) -> Iterator[AsyncioTaskInstrumentor]:
    instrumentor = AsyncioTaskInstrumentor()
    instrumentor.instrument(native=request.param, max_coroutines=50)
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def points(reader: InMemoryMetricReader, name: str) -> list[Any]:
    """Return the data points of a metric that speak of this module's coroutines."""
    data = reader.get_metrics_data()
    return [
        point
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
        if metric.name == name and str(point.attributes.get("code.function.name", "")).startswith(HERE)
    ]


async def works() -> None:
    await asyncio.sleep(0)


async def breaks() -> None:
    raise ConnectionError("x")


async def serve() -> None:
    await asyncio.gather(works(), works(), breaks(), return_exceptions=True)


def test_tasks_of_a_span_are_counted_and_lead_to_it(
    instrumentor: AsyncioTaskInstrumentor, reader: InMemoryMetricReader, loop_factory: LoopFactory
) -> None:
    with TracerProvider().get_tracer("test").start_as_current_span("request") as span:
        run(loop_factory, serve())
    context = span.get_span_context()
    completed = {
        (
            point.attributes["code.function.name"].rpartition(".")[2],
            point.attributes["asyncio.task.outcome"],
            point.attributes.get("error.type"),
        ): point.value
        for point in points(reader, "asyncio.task.completed")
    }
    assert completed == {
        ("serve", "finished", None): 1,
        ("works", "finished", None): 2,
        ("breaks", "finished", None): 0,
        ("breaks", "failed", "ConnectionError"): 1,
    }
    run(loop_factory, serve())
    with TracerProvider().get_tracer("test").start_as_current_span("another") as span:
        run(loop_factory, serve())
    context = span.get_span_context()
    exemplars = [
        exemplar
        for point in points(reader, "asyncio.task.duration")
        if point.attributes["code.function.name"] == f"{HERE}.works"
        for exemplar in point.exemplars
    ]
    assert {(exemplar.trace_id, exemplar.span_id) for exemplar in exemplars} == {
        (context.trace_id, context.span_id)
    }


def test_uninstrumented_it_counts_and_tells_nothing(
    instrumentor: AsyncioTaskInstrumentor, reader: InMemoryMetricReader, loop_factory: LoopFactory
) -> None:
    run(loop_factory, serve())
    assert len(points(reader, "asyncio.task.created")) == 3
    instrumentor.uninstrument()
    run(loop_factory, serve())
    assert points(reader, "asyncio.task.created") == []
