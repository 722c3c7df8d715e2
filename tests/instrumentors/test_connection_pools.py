"""Pools of a real PostgreSQL under scenarios that imply what has to be told, within 5 %."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
import sqlalchemy
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from otel_concurrency.instrumentors.connection_pools import ConnectionPoolInstrumentor
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from otel_concurrency.signals import connection_waits
from tests.loops import run
from tests.postgres_server import Postgres

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

HOLD_S = 0.3
SIZE = 2
ASKING = 6
WAITED_S = (0.0, 0.0, HOLD_S, HOLD_S, 2 * HOLD_S, 2 * HOLD_S)
"""What six wait for one of two connections, each of which is kept for a while."""


class Told:
    """What was told of the scenario."""

    def __init__(self, reader: InMemoryMetricReader, logged: list[dict[str, Any]]) -> None:
        self.reader = reader
        self.logged = logged
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def request(self, name: str) -> Any:
        return self.tracer.start_as_current_span(name, kind=SpanKind.SERVER)

    def metrics(self) -> dict[str, dict[tuple[str, ...], Any]]:
        """Every series: instrument to attribute values to data point."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name.removeprefix("db.client.connection."): {
                tuple(str(value) for value in (point.attributes or {}).values()): point
                for point in metric.data.data_points
            }
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name.startswith("db.client.connection.")
        }

    def spans(self) -> dict[str, Any]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def told(reader: InMemoryMetricReader, monkeypatch: pytest.MonkeyPatch) -> Iterator[Told]:
    logged: list[dict[str, Any]] = []

    class Logger:
        def emit(self, **record: Any) -> None:
            logged.append(record)

    monkeypatch.setattr(connection_waits, "get_logger", lambda *_: Logger())
    told = Told(reader, logged)
    instrumentors = (AsyncioTaskInstrumentor(), ConnectionPoolInstrumentor())
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=told.provider)
    yield told
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


def values(points: dict[tuple[str, ...], Any]) -> dict[tuple[str, ...], Any]:
    return {key: point.value for key, point in points.items()}


def check_too_small(told: Told, postgres: Postgres) -> None:
    """Hold what was told against what `WAITED_S` says."""
    name = postgres.pool_name
    metrics = told.metrics()
    waits, uses = metrics["wait_time"][name,], metrics["use_time"][name,]
    assert (waits.count, uses.count) == (ASKING + SIZE, ASKING + SIZE)
    assert metrics["create_time"][name,].count == SIZE
    creating = metrics["create_time"][name,].sum
    assert waits.sum - creating == pytest.approx(sum(WAITED_S), rel=0.05)
    assert waits.max == pytest.approx(WAITED_S[-1], rel=0.05)
    assert uses.sum == pytest.approx(ASKING * HOLD_S, rel=0.05)
    assert values(metrics["count"]) == {(name, "used"): 0, (name, "idle"): SIZE}
    assert values(metrics["max"]) == {(name,): SIZE}
    assert values(metrics["timeouts"]) == {(name,): 0}
    spans = told.spans()
    said = sorted(
        spans[f"request-{number}"].attributes.get("concurrency.wait.db_pool", 0) for number in range(ASKING)
    )
    assert said == pytest.approx(WAITED_S, rel=0.05, abs=0.01)
    events = [
        event.attributes["pool.wait.time"]
        for span in spans.values()
        for event in span.events
        if (event.name, event.attributes["db.client.connection.pool.name"]) == ("pool.wait", name)
    ]
    assert sorted(events)[-4:] == pytest.approx(WAITED_S[2:], rel=0.05)


def test_threads_share_a_pool_that_is_too_small(told: Told, postgres: Postgres) -> None:
    with sync_engine(postgres) as engine:
        warm = [engine.connect() for _ in range(SIZE)]
        for each in warm:
            each.close()

        def request(number: int) -> None:
            with told.request(f"request-{number}"), engine.connect():
                time.sleep(HOLD_S)

        threads = [threading.Thread(target=request, args=(number,)) for number in range(ASKING)]
        for thread in threads:
            thread.start()
        time.sleep(HOLD_S / 2)
        pending = values(told.metrics()["pending_requests"])
        for thread in threads:
            thread.join()
        check_too_small(told, postgres)
    assert pending == {(postgres.pool_name,): ASKING - SIZE}


@contextmanager
def sync_engine(postgres: Postgres, **options: Any) -> Iterator[sqlalchemy.Engine]:
    address = postgres.address.replace("postgresql:", "postgresql+psycopg:")
    engine = sqlalchemy.create_engine(address, pool_size=SIZE, max_overflow=0, **options)
    try:
        yield engine
    finally:
        engine.dispose()


@asynccontextmanager
async def async_engine(postgres: Postgres, **options: Any) -> AsyncIterator[AsyncEngine]:
    """An engine, closed at the end: uvloop's loops wait for ever for connections that are open."""
    address = postgres.address.replace("postgresql:", "postgresql+asyncpg:")
    engine = create_async_engine(address, pool_size=SIZE, max_overflow=0, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


def test_tasks_share_an_engine_that_is_too_small(
    told: Told, postgres: Postgres, lazy_loop_factory: LoopFactory
) -> None:
    async def request(engine: AsyncEngine, number: int) -> None:
        with told.request(f"request-{number}"):
            async with engine.connect():
                await asyncio.sleep(HOLD_S)

    async def scenario() -> None:
        async with async_engine(postgres) as engine:
            warm = [await engine.connect() for _ in range(SIZE)]
            for each in warm:
                await each.close()
            tasks = [asyncio.ensure_future(request(engine, number)) for number in range(ASKING)]
            await asyncio.sleep(HOLD_S / 2)
            pending = values(told.metrics()["pending_requests"])
            await asyncio.gather(*tasks)
            check_too_small(told, postgres)
            assert pending == {(postgres.pool_name,): ASKING - SIZE}

    run(lazy_loop_factory, scenario())


def test_a_leaked_connection_is_told_with_who_has_it(
    told: Told, postgres: Postgres, lazy_loop_factory: LoopFactory
) -> None:
    async def scenario() -> None:
        async with async_engine(postgres, pool_timeout=HOLD_S) as engine:

            async def leak(kept: list[Any]) -> None:
                kept.append(await engine.connect())

            kept: list[Any] = []
            for number in range(SIZE):
                await asyncio.create_task(leak(kept), name=f"leak-{number}")
            await asyncio.sleep(0.1)
            with told.request("request"), pytest.raises(sqlalchemy.exc.TimeoutError):
                await engine.connect()
            metrics = told.metrics()
            name = postgres.pool_name
            assert values(metrics["timeouts"]) == {(name,): 1}
            assert values(metrics["count"]) == {(name, "used"): SIZE, (name, "idle"): 0}
            for each in kept:
                await each.close()

    run(lazy_loop_factory, scenario())
    [record] = told.logged
    assert record["event_name"] == "db.client.connection.pool.exhausted"
    holders = [holder.split(" for ")[0] for holder in record["attributes"]["db.client.connection.holders"]]
    assert holders == ["leak-0", "leak-1"]
    assert record["attributes"]["pool.wait.time"] == pytest.approx(HOLD_S, rel=0.05)
    span = told.spans()["request"]
    assert span.attributes["concurrency.wait.db_pool"] == pytest.approx(HOLD_S, rel=0.05)
    assert [event.name for event in span.events] == ["pool.wait"]


def test_a_connection_held_across_an_await_is_used_all_the_time(
    told: Told, postgres: Postgres, lazy_loop_factory: LoopFactory
) -> None:
    async def scenario() -> tuple[float, float]:
        async with async_engine(postgres) as engine, engine.connect() as connection:
            began = time.perf_counter()
            await connection.execute(text("select 1"))
            queried = time.perf_counter()
            await asyncio.sleep(2 * HOLD_S)
            return queried - began, time.perf_counter() - began

    queried, held = run(lazy_loop_factory, scenario())
    assert queried + 2 * HOLD_S == pytest.approx(held, rel=0.05)
    assert told.metrics()["use_time"][postgres.pool_name,].sum == pytest.approx(held, rel=0.05)


def test_a_cancelled_wait_leaves_nothing_behind(
    told: Told, postgres: Postgres, lazy_loop_factory: LoopFactory
) -> None:
    async def scenario() -> None:
        async with async_engine(postgres) as engine:

            async def request() -> None:
                with told.request("request"):
                    async with engine.connect():
                        pass

            held = [await engine.connect() for _ in range(SIZE)]
            waiting = asyncio.ensure_future(request())
            await asyncio.sleep(HOLD_S)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            metrics = told.metrics()
            name = postgres.pool_name
            assert values(metrics["pending_requests"]) == {(name,): 0}
            assert metrics["wait_time"][name,].count == SIZE
            assert values(metrics["timeouts"]) == {(name,): 0}
            for each in held:
                await each.close()
            async with engine.connect():
                pass
            assert values(told.metrics()["count"]) == {(name, "used"): 0, (name, "idle"): SIZE}

    run(lazy_loop_factory, scenario())
    span = told.spans()["request"]
    assert span.attributes["concurrency.wait.db_pool"] == pytest.approx(HOLD_S, rel=0.05)
