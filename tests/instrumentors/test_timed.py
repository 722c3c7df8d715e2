"""Timed functions on their way to a reader: values, outcomes, exemplars; and tasks' names beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider

import otel_concurrency
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from otel_concurrency.instrumentors.timed import TimedFunctionInstrumentor
from otel_concurrency.probes import function_times

NAME = "python.function.duration"


@pytest.fixture
def instrumented() -> Iterator[None]:
    function_times.default.reset()
    instrumentor = TimedFunctionInstrumentor()
    instrumentor.instrument()
    yield
    instrumentor.uninstrument()


def points(reader: InMemoryMetricReader, name: str) -> list[Any]:
    data = reader.get_metrics_data()
    scopes = data.resource_metrics[0].scope_metrics if data else ()
    metrics = [metric for scope in scopes for metric in scope.metrics if metric.name == name]
    return [point for metric in metrics for point in metric.data.data_points]


@otel_concurrency.timed(name="halve")
def halve(number: int) -> int:
    if number % 2:
        raise ValueError(number)
    return number // 2


@otel_concurrency.timed
async def check_out() -> None:
    await asyncio.sleep(0)


@pytest.mark.usefixtures("instrumented")
def test_a_reader_hears_how_long_and_how(reader: InMemoryMetricReader) -> None:
    with TracerProvider().get_tracer("t").start_as_current_span("order") as span:
        assert halve(4) == 2
    with pytest.raises(ValueError, match="3"):
        halve(3)
    asyncio.run(check_out())
    found = {tuple(sorted(point.attributes.items())): point for point in points(reader, NAME)}
    check_out_name = f"{check_out.__module__}.check_out"
    assert {key: point.count for key, point in found.items()} == {
        (("code.function.name", "halve"), ("python.function.outcome", "finished")): 1,
        (
            ("code.function.name", "halve"),
            ("error.type", "ValueError"),
            ("python.function.outcome", "failed"),
        ): 1,
        (("code.function.name", check_out_name), ("python.function.outcome", "finished")): 1,
    }
    halved = found[("code.function.name", "halve"), ("python.function.outcome", "finished")]
    context = span.get_span_context()
    assert [(each.trace_id, each.span_id) for each in halved.exemplars] == [
        (context.trace_id, context.span_id)
    ]
    assert halved.exemplars[0].value == halved.sum > 0


def test_nothing_is_counted_before_and_after(reader: InMemoryMetricReader) -> None:
    function_times.default.reset()
    halve(4)
    instrumentor = TimedFunctionInstrumentor()
    instrumentor.instrument()
    instrumentor.uninstrument()
    halve(4)
    assert function_times.default.read() == []
    assert points(reader, NAME) == []


@pytest.mark.parametrize("native", [True, False])
def test_tasks_of_a_timed_coroutine_count_by_its_own_name(native: bool, reader: InMemoryMetricReader) -> None:
    instrumentor = AsyncioTaskInstrumentor()
    instrumentor.instrument(native=native)
    try:

        async def main() -> None:
            await asyncio.get_running_loop().create_task(check_out())

        asyncio.run(main())
        names = {point.attributes["code.function.name"] for point in points(reader, "asyncio.task.created")}
    finally:
        instrumentor.uninstrument()
    assert f"{check_out.__module__}.check_out" in names


def test_the_current_span_is_the_callers_inside() -> None:
    """Nothing is attached around the function."""
    with TracerProvider().get_tracer("t").start_as_current_span("order") as span:
        seen = otel_concurrency.timed(lambda: trace.get_current_span())()
    assert seen is span
