"""Requests that wait for connections of psycopg_pool and redis-py: what their spans say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg_pool
import pytest
import redis
import redis.asyncio as redis_asyncio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from otel_concurrency.instrumentors.connection_pools import ConnectionPoolInstrumentor
from otel_concurrency.instrumentors.tasks import AsyncioTaskInstrumentor
from tests.loops import run
from tests.postgres_server import Postgres
from tests.redis_server import running_redis

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

HOLD_S = 0.3
PATIENCE_S = 2.5 * HOLD_S


class Psycopg:
    """A pool of one connection."""

    sent_away: type[Exception] = psycopg_pool.PoolTimeout

    def __init__(self, address: str) -> None:
        self._pool = psycopg_pool.AsyncConnectionPool(
            address, min_size=1, max_size=1, open=False, timeout=PATIENCE_S
        )

    async def open(self) -> None:
        await self._pool.open(wait=True)

    async def acquire(self) -> Any:
        return await self._pool.getconn()

    async def release(self, connection: Any) -> None:
        await self._pool.putconn(connection)

    async def close(self) -> None:
        await self._pool.close()


class Redis:
    """The same of redis-py."""

    sent_away: type[Exception] = redis.ConnectionError

    def __init__(self, address: str) -> None:
        self._pool = redis_asyncio.BlockingConnectionPool.from_url(
            address, max_connections=1, timeout=PATIENCE_S
        )

    async def open(self) -> None:
        await self.release(await self.acquire())

    async def acquire(self) -> Any:
        return await self._pool.get_connection()

    async def release(self, connection: Any) -> None:
        await self._pool.release(connection)

    async def close(self) -> None:
        await self._pool.disconnect()


Source = Psycopg | Redis
Lend = Callable[[], AbstractAsyncContextManager[Source]]


@pytest.fixture(params=[Psycopg, Redis])
def lend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lend]:
    """Makes a pool whose one connection is open, closed at the end."""

    def of(address: str) -> Lend:
        @asynccontextmanager
        async def lend() -> AsyncIterator[Source]:
            source: Source = request.param(address)
            try:
                await source.open()
                yield source
            finally:
                await source.close()

        return lend

    if request.param is Psycopg:
        postgres: Postgres = request.getfixturevalue("postgres")
        yield of(postgres.address)
    else:
        with running_redis(tmp_path) as address:
            yield of(address)


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def request_span(exporter: InMemorySpanExporter) -> Iterator[Callable[[str], Any]]:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    instrumentors = (AsyncioTaskInstrumentor(), ConnectionPoolInstrumentor())
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=provider)
    yield lambda name: tracer.start_as_current_span(name, kind=SpanKind.SERVER)
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


def test_requests_say_how_long_they_waited_for_a_connection(
    lend: Lend,
    request_span: Callable[[str], Any],
    exporter: InMemorySpanExporter,
    lazy_loop_factory: LoopFactory,
) -> None:
    """Four want the one connection for 0.3 s each, and wait for 0.75 s at most: the last is sent away.

    It is the same time that they wait inside the pool, for its condition: that is not told again.
    """

    async def handle(source: Source, number: int) -> None:
        with request_span(f"request-{number}"):
            connection = await source.acquire()
            await asyncio.sleep(HOLD_S)
            await source.release(connection)

    async def scenario() -> list[BaseException | None]:
        async with lend() as source:
            handled = (asyncio.ensure_future(handle(source, number)) for number in range(4))
            return list(await asyncio.gather(*handled, return_exceptions=True))

    outcomes = run(lazy_loop_factory, scenario())
    finished = exporter.get_finished_spans()
    spans = sorted((span for span in finished if span.kind is SpanKind.SERVER), key=lambda span: span.name)
    waited = [dict(span.attributes or {}).get("concurrency.wait.db_pool", 0) for span in spans]
    assert waited == pytest.approx([0, HOLD_S, 2 * HOLD_S, PATIENCE_S], rel=0.05, abs=0.01)
    assert [len(span.events) for span in spans] == [0, 1, 1, 2]
    assert [span.events[0].name for span in spans[1:]] == ["pool.wait"] * 3
    assert [type(outcome) for outcome in outcomes][:3] == [type(None)] * 3
    assert isinstance(outcomes[3], (psycopg_pool.PoolTimeout, redis.ConnectionError))
    assert [dict(span.attributes or {}).get("concurrency.wait.lock") for span in spans] == [None] * 4
