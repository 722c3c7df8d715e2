"""What is told of waiting for locks, by what was asked for."""

from __future__ import annotations

import asyncio
import inspect
from asyncio import mixins
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def instrument() -> Iterator[Callable[..., None]]:
    instrumentor = AsyncioTaskInstrumentor()
    yield instrumentor.instrument
    instrumentor.uninstrument()


def told(reader: InMemoryMetricReader) -> dict[str, list[tuple[dict[str, Any], int]]]:
    """Return attributes and value, or number of values, of each point of a metric."""
    data = reader.get_metrics_data()
    return {
        metric.name.removeprefix("asyncio.sync."): [
            (dict(point.attributes or {}), getattr(point, "value", None) or getattr(point, "count", 0))
            for point in metric.data.data_points
        ]
        for resource in (data.resource_metrics if data else [])
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name.startswith("asyncio.sync.")
    }


def convoy(loop_factory: LoopFactory) -> str:
    """Let four tasks take a lock in turn; return where it was made."""

    async def main() -> str:
        lock = asyncio.Lock()
        frame = inspect.currentframe()
        assert frame is not None
        made = f"{__name__}:{frame.f_lineno - 3}"

        async def hold() -> None:
            async with lock:
                await asyncio.sleep(0.001)

        await asyncio.gather(*(hold() for _ in range(4)))
        return made

    loop = loop_factory()
    try:
        return loop.run_until_complete(main())
    finally:
        loop.close()


@pytest.mark.parametrize("native", [True, False], ids=["native", "pure"])
def test_names_and_hold_times_on_request(
    instrument: Callable[..., None], reader: InMemoryMetricReader, loop_factory: LoopFactory, native: bool
) -> None:
    instrument(sync_waits="names", native=native)
    labels = {"asyncio.sync.type": "lock", "asyncio.sync.name": convoy(loop_factory)}
    seen = told(reader)
    assert seen["contentions"] == [(labels, 3)]
    assert seen["wait.duration"] == [(labels, 3)]
    assert seen["hold.duration"] == [(labels, 4)]
    assert seen["waiting"] == [(labels, 0)]


def test_by_type_as_a_rule(
    instrument: Callable[..., None], reader: InMemoryMetricReader, loop_factory: LoopFactory
) -> None:
    acquire = vars(asyncio.Lock)["acquire"]
    instrument()
    convoy(loop_factory)
    seen = told(reader)
    assert seen["contentions"] == [({"asyncio.sync.type": "lock"}, 3)]
    assert "hold.duration" not in seen
    assert vars(asyncio.Lock)["acquire"] is acquire


def test_nothing_where_nobody_asked(
    instrument: Callable[..., None], reader: InMemoryMetricReader, loop_factory: LoopFactory
) -> None:
    before = vars(mixins._LoopBoundMixin)["_get_loop"]
    instrument(sync_waits="none")
    convoy(loop_factory)
    assert told(reader) == {}
    assert vars(mixins._LoopBoundMixin)["_get_loop"] is before
