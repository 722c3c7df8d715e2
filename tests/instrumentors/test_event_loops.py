"""From a loop that runs to data points, through the whole house, and the way back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_concurrency.instrumentors.event_loops import EventLoopInstrumentor
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from tests.loops import run

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture(params=[True, False], ids=["native", "pure"])
def native(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def instrumentor(native: bool) -> Iterator[EventLoopInstrumentor]:
    instrumentor = EventLoopInstrumentor()
    instrumentor.instrument(native=native)
    yield instrumentor
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


def points(reader: InMemoryMetricReader, prefix: str) -> dict[str, list[Any]]:
    data = reader.get_metrics_data()
    return {
        metric.name: list(metric.data.data_points)
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith(prefix)
    }


async def work() -> None:
    for _ in range(3):
        time.sleep(0.01)
        await asyncio.sleep(0.01)


def test_a_run_is_told_in_seconds(
    instrumentor: EventLoopInstrumentor,
    native: bool,
    reader: InMemoryMetricReader,
    lazy_loop_factory: LoopFactory,
) -> None:
    run(lazy_loop_factory, work())
    told = points(reader, "asyncio.eventloop.")
    times = {
        point.attributes["asyncio.eventloop.state"]: point.value for point in told["asyncio.eventloop.time"]
    }
    assert times["active"] >= 0.03 * 0.99
    assert times["idle"] >= 0.03 * 0.9
    kinds = {point.attributes["asyncio.eventloop.type"] for point in told["asyncio.eventloop.time"]}
    if kinds == {"selector"} or native:
        (durations,) = told["asyncio.eventloop.iteration.duration"]
        assert durations.count >= 3
        assert durations.max >= 0.01 * 0.99
    else:
        assert "asyncio.eventloop.iteration.duration" not in told
    (share,) = told["asyncio.eventloop.utilization"]
    assert share.value == pytest.approx(times["active"] / (times["active"] + times["idle"]), abs=1e-6)


def test_ids_are_those_of_the_task_metrics(
    instrumentor: EventLoopInstrumentor,
    native: bool,
    reader: InMemoryMetricReader,
    lazy_loop_factory: LoopFactory,
) -> None:
    """A loop that has no task yet, and one that never runs, are counted by one of them alone."""
    tasks = AsyncioTaskInstrumentor()
    tasks.instrument(native=native)
    loops = [lazy_loop_factory() for _ in range(3)]
    seen: list[tuple[set[object], set[object]]] = []

    def look() -> None:
        ids = [
            {point.attributes["asyncio.eventloop.id"] for point in found[name]}
            for found, name in (
                (points(reader, "asyncio.task.count"), "asyncio.task.count"),
                (points(reader, "asyncio.eventloop.cpu"), "asyncio.eventloop.cpu.time"),
            )
        ]
        seen.append((ids[0], ids[1]))

    async def here() -> None:
        look()

    try:
        loops[0].call_soon(loops[0].stop)
        loops[0].run_forever()
        task = loops[1].create_task(work())
        loops[2].run_until_complete(here())
        loops[1].run_until_complete(task)
    finally:
        tasks.uninstrument()
        for loop in loops:
            loop.close()
    ((with_tasks, with_runs),) = seen
    assert len(with_tasks) == len(with_runs) == 2
    assert len(with_tasks & with_runs) == 1


def test_uninstrumented_it_tells_nothing(
    instrumentor: EventLoopInstrumentor, reader: InMemoryMetricReader, loop_factory: LoopFactory
) -> None:
    run(loop_factory, work())
    assert points(reader, "asyncio.eventloop.")
    instrumentor.uninstrument()
    run(loop_factory, work())
    assert points(reader, "asyncio.eventloop.") == {}
    instrumentor.instrument()
    run(loop_factory, work())
    assert points(reader, "asyncio.eventloop.")
