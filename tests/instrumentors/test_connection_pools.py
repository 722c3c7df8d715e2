"""Pools of a real PostgreSQL under scenarios that imply what has to be told, within 5 % of what they took."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from typing import Any

import asyncpg
import pytest
import sqlalchemy
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

from otel_concurrency.instrumentors.connection_pools import ConnectionPoolInstrumentor
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from otel_concurrency.signals import connection_waits
from tests.loops import run
from tests.postgres_server import Postgres

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

HOLD_S = 0.3
PATIENCE_S = 3 * HOLD_S
SIZE = 2
ASKING = 6
WAITED_S = (0.0, 0.0, HOLD_S, HOLD_S, 2 * HOLD_S, 2 * HOLD_S)
"""What six wait at least for one of two connections, each of which is kept for a while."""


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


class Taken:
    """What those who ask for a connection find out themselves: how long they waited, how long they had it."""

    def __init__(self, told: Told) -> None:
        self.told = told
        self.waited: dict[str, float] = {}
        self.held: dict[str, float] = {}

    @contextmanager
    def request(self, number: int) -> Iterator[Callable[[], None]]:
        """A request that calls what it gets once it has a connection, and ends when that is given back."""
        name = f"request-{number}"
        with self.told.request(name):
            asked = time.perf_counter()

            def has() -> None:
                self.waited[name] = time.perf_counter() - asked

            yield has
            self.held[name] = time.perf_counter() - asked - self.waited[name]


def check_too_small(taken: Taken, postgres: Postgres, before: tuple[float, float]) -> None:
    """Hold what was told against what `WAITED_S` says, and against what it really took.

    Args:
        taken: By those who shared the pool.
        postgres: The server.
        before: What the pool's first users waited, and for how long they used it.
    """
    told, name = taken.told, postgres.pool_name
    metrics = told.metrics()
    waits, uses = metrics["wait_time"][name,], metrics["use_time"][name,]
    assert (waits.count, uses.count) == (ASKING + SIZE, ASKING + SIZE)
    assert metrics["create_time"][name,].count == SIZE
    assert sum(taken.waited.values()) >= 0.95 * sum(WAITED_S)
    assert waits.sum - before[0] == pytest.approx(sum(taken.waited.values()), rel=0.05)
    assert uses.sum - before[1] == pytest.approx(sum(taken.held.values()), rel=0.05)
    assert values(metrics["count"]) == {(name, "used"): 0, (name, "idle"): SIZE}
    assert values(metrics["max"]) == {(name,): SIZE}
    assert values(metrics["timeouts"]) == {(name,): 0}
    spans = told.spans()
    said = {each: spans[each].attributes.get("concurrency.wait.db_pool", 0.0) for each in taken.waited}
    assert said == pytest.approx(taken.waited, rel=0.05, abs=0.005)
    for each, waited in taken.waited.items():
        events = [event.attributes["pool.wait.time"] for event in spans[each].events]
        assert events == ([pytest.approx(waited, rel=0.05)] if waited > 0.02 else events)


def so_far(told: Told, postgres: Postgres) -> tuple[float, float]:
    metrics, name = told.metrics(), postgres.pool_name
    return metrics["wait_time"][name,].sum, metrics["use_time"][name,].sum


def test_threads_share_a_pool_that_is_too_small(told: Told, postgres: Postgres) -> None:
    with sync_engine(postgres) as engine:
        warm = [engine.connect() for _ in range(SIZE)]
        for each in warm:
            each.close()

        before, taken = so_far(told, postgres), Taken(told)

        def request(number: int) -> None:
            with taken.request(number) as has, engine.connect():
                has()
                time.sleep(HOLD_S)

        threads = [threading.Thread(target=request, args=(number,)) for number in range(ASKING)]
        for thread in threads:
            thread.start()
        time.sleep(HOLD_S / 2)
        pending = values(told.metrics()["pending_requests"])
        for thread in threads:
            thread.join()
        check_too_small(taken, postgres, before)
    assert pending == {(postgres.pool_name,): ASKING - SIZE}


@contextmanager
def sync_engine(postgres: Postgres, **options: Any) -> Iterator[sqlalchemy.Engine]:
    address = postgres.address.replace("postgresql:", "postgresql+psycopg:")
    engine = sqlalchemy.create_engine(address, pool_size=SIZE, max_overflow=0, **options)
    try:
        yield engine
    finally:
        engine.dispose()


class Engine:
    """SQLAlchemy's, for asyncio."""

    sent_away = sqlalchemy.exc.TimeoutError

    def __init__(self, postgres: Postgres) -> None:
        address = postgres.address.replace("postgresql:", "postgresql+asyncpg:")
        self._engine = create_async_engine(address, pool_size=SIZE, max_overflow=0, pool_timeout=PATIENCE_S)

    async def open(self) -> None:
        opened = [await self.acquire() for _ in range(SIZE)]
        for each in opened:
            await each.close()

    async def acquire(self) -> Any:
        return await self._engine.connect()

    async def release(self, connection: Any) -> None:
        await connection.close()

    async def query(self, connection: Any) -> None:
        await connection.execute(text("select 1"))

    async def close(self) -> None:
        await self._engine.dispose()


class Pool:
    """asyncpg's own."""

    sent_away = asyncio.TimeoutError

    def __init__(self, postgres: Postgres) -> None:
        self._pool = asyncpg.create_pool(postgres.address, min_size=SIZE, max_size=SIZE)

    async def open(self) -> None:
        await self._pool
        opened = [await self.acquire() for _ in range(SIZE)]
        for each in opened:
            await self.release(each)

    async def acquire(self) -> Any:
        return await self._pool.acquire(timeout=PATIENCE_S)

    async def release(self, connection: Any) -> None:
        await self._pool.release(connection)

    async def query(self, connection: Any) -> None:
        await connection.execute("select 1")

    async def close(self) -> None:
        self._pool.terminate()


Source = Engine | Pool


@pytest.fixture(params=[Engine, Pool], ids=["sqlalchemy", "asyncpg"])
def lend(
    request: pytest.FixtureRequest, postgres: Postgres
) -> Callable[[], AbstractAsyncContextManager[Source]]:
    """Makes a pool of two, both open, closed at the end: uvloop's loops wait for ever for what is open."""

    @asynccontextmanager
    async def lend() -> AsyncIterator[Source]:
        source: Source = request.param(postgres)
        try:
            await source.open()
            yield source
        finally:
            await source.close()

    return lend


Lend = Callable[[], AbstractAsyncContextManager[Source]]


def test_tasks_share_a_pool_that_is_too_small(
    told: Told, postgres: Postgres, lend: Lend, lazy_loop_factory: LoopFactory
) -> None:
    taken = Taken(told)

    async def request(source: Source, number: int) -> None:
        with taken.request(number) as has:
            connection = await source.acquire()
            has()
            await asyncio.sleep(HOLD_S)
            await source.release(connection)

    async def scenario() -> None:
        async with lend() as source:
            before = so_far(told, postgres)
            tasks = [asyncio.ensure_future(request(source, number)) for number in range(ASKING)]
            await asyncio.sleep(HOLD_S / 2)
            pending = values(told.metrics()["pending_requests"])
            await asyncio.gather(*tasks)
            check_too_small(taken, postgres, before)
            assert pending == {(postgres.pool_name,): ASKING - SIZE}

    run(lazy_loop_factory, scenario())


def test_leaked_connections_are_told_with_who_has_them(
    told: Told, postgres: Postgres, lend: Lend, lazy_loop_factory: LoopFactory
) -> None:
    waited: list[float] = []

    async def scenario() -> None:
        async with lend() as source:
            kept: list[Any] = []

            async def leak() -> None:
                kept.append(await source.acquire())

            for number in range(SIZE):
                await asyncio.create_task(leak(), name=f"leak-{number}")
            began = time.perf_counter()
            with told.request("request"), pytest.raises(source.sent_away):
                await source.acquire()
            waited.append(time.perf_counter() - began)
            metrics, name = told.metrics(), postgres.pool_name
            assert values(metrics["timeouts"]) == {(name,): 1}
            assert values(metrics["count"]) == {(name, "used"): SIZE, (name, "idle"): 0}
            for each in kept:
                await source.release(each)

    run(lazy_loop_factory, scenario())
    [record] = told.logged
    assert record["event_name"] == "db.client.connection.pool.exhausted"
    holders = [holder.split(" for ")[0] for holder in record["attributes"]["db.client.connection.holders"]]
    assert holders == ["leak-0", "leak-1"]
    assert record["attributes"]["pool.wait.time"] == pytest.approx(waited[0], rel=0.05)
    span = told.spans()["request"]
    assert span.attributes["concurrency.wait.db_pool"] == pytest.approx(waited[0], rel=0.05)
    assert [event.name for event in span.events] == ["pool.wait"]


def test_a_connection_held_across_an_await_is_used_all_the_time(
    told: Told, postgres: Postgres, lend: Lend, lazy_loop_factory: LoopFactory
) -> None:
    async def scenario() -> tuple[float, float]:
        async with lend() as source:
            connection = await source.acquire()
            began = time.perf_counter()
            await source.query(connection)
            queried = time.perf_counter()
            await asyncio.sleep(2 * HOLD_S)
            held = time.perf_counter() - began
            await source.release(connection)
            return queried - began, held

    queried, held = run(lazy_loop_factory, scenario())
    assert held >= queried + 0.95 * 2 * HOLD_S
    assert told.metrics()["use_time"][postgres.pool_name,].max == pytest.approx(held, rel=0.05)


def test_a_cancelled_wait_leaves_nothing_behind(
    told: Told, postgres: Postgres, lend: Lend, lazy_loop_factory: LoopFactory
) -> None:
    waited: list[float] = []

    async def scenario() -> None:
        async with lend() as source:

            async def request() -> None:
                began = time.perf_counter()
                try:
                    with told.request("request"):
                        await source.acquire()
                finally:
                    waited.append(time.perf_counter() - began)

            held = [await source.acquire() for _ in range(SIZE)]
            waiting = asyncio.ensure_future(request())
            await asyncio.sleep(HOLD_S)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            metrics, name = told.metrics(), postgres.pool_name
            assert values(metrics["pending_requests"]) == {(name,): 0}
            assert metrics["wait_time"][name,].count == 2 * SIZE
            assert values(metrics["timeouts"]) == {(name,): 0}
            for each in held:
                await source.release(each)
            assert values(told.metrics()["count"]) == {(name, "used"): 0, (name, "idle"): SIZE}

    run(lazy_loop_factory, scenario())
    assert waited[0] >= 0.95 * HOLD_S
    said = told.spans()["request"].attributes["concurrency.wait.db_pool"]
    assert said == pytest.approx(waited[0], rel=0.05)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_begins_at_zero(told: Told, postgres: Postgres) -> None:
    """What its parent has is not in it, and what it takes is."""
    with sync_engine(postgres) as engine, engine.connect():
        child = os.fork()
        if not child:
            status = 1
            try:
                engine.dispose(close=False)
                with engine.connect():
                    metrics, name = told.metrics(), postgres.pool_name
                    used = metrics["count"][name, "used"].value
                    status = 0 if (used, metrics["wait_time"][name,].count) == (1, 1) else 2
                engine.dispose()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert told.metrics()["wait_time"][postgres.pool_name,].count == 1
