"""Where the connections of asyncpg's pools are, told by the hook; the database is a real one."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import asyncpg
import pytest
from asyncpg import pool as module

from otel_concurrency.hooks.pools.asyncpg_pools import AsyncpgPoolHook
from otel_concurrency.probes.connections import ConnectionLevel, ConnectionProbe, ConnectionRow
from tests.loops import run
from tests.postgres_server import Postgres

LoopFactory = Callable[[], asyncio.AbstractEventLoop]
Scenario = Callable[[Callable[[asyncpg.Pool], Coroutine[Any, Any, None]]], None]

PLACES = (
    (module.Pool, "_acquire"),
    (module.PoolConnectionHolder, "_release"),
    (module.PoolConnectionHolder, "connect"),
)
ORIGINALS = [vars(owner)[name] for owner, name in PLACES]
FLOOR = hasattr(asyncpg.Pool, "get_init_size")  # since 0.32 `min_size` is kept


@pytest.fixture
def probe() -> ConnectionProbe:
    return ConnectionProbe()


@pytest.fixture
def hook(probe: ConnectionProbe) -> Iterator[AsyncpgPoolHook]:
    hook = AsyncpgPoolHook(probe)
    hook.install()
    yield hook
    hook.remove()
    assert [vars(owner)[name] for owner, name in PLACES] == ORIGINALS


def only(probe: ConnectionProbe) -> ConnectionRow:
    [row] = probe.read()
    return row


def level(probe: ConnectionProbe) -> ConnectionLevel:
    [(_, found)] = probe.levels()
    return found


def counts(probe: ConnectionProbe) -> tuple[int, int, int, int]:
    """Waits, uses, connections made, timeouts."""
    row = only(probe)
    return row.wait_times.count, row.use_times.count, row.create_times.count, row.timeouts


def with_pool(
    postgres: Postgres,
    loop_factory: LoopFactory,
    work: Callable[[Any], Coroutine[Any, Any, None]],
    **options: Any,
) -> None:
    """Run something with a pool of one to two connections."""

    async def scenario() -> None:
        made = await asyncpg.create_pool(postgres.address, **({"min_size": 1, "max_size": 2} | options))
        try:
            await work(made)
        finally:
            made.terminate()

    run(loop_factory, scenario())


def test_a_connection_goes_out_and_comes_back(
    hook: AsyncpgPoolHook, probe: ConnectionProbe, postgres: Postgres, lazy_loop_factory: LoopFactory
) -> None:
    floor = 1 if FLOOR else None

    async def work(made: Any) -> None:
        assert level(probe) == ConnectionLevel(0, 1, 0, limit=2, idle_min=floor)
        async with made.acquire() as one:
            assert await one.fetchval("select 1") == 1
            assert level(probe) == ConnectionLevel(1, 0, 0, limit=2, idle_min=floor)
            two = await made.acquire()
            assert level(probe) == ConnectionLevel(2, 0, 0, limit=2, idle_min=floor)
            await made.release(two)
        assert await made.fetchval("select 2") == 2
        assert level(probe) == ConnectionLevel(0, 2, 0, limit=2, idle_min=floor)

    with_pool(postgres, lazy_loop_factory, work)
    assert counts(probe) == (3, 3, 2, 0)
    assert only(probe).name == postgres.pool_name
    assert probe.levels() == []


def test_a_pool_that_opens_nothing_goes_by_what_it_was_told(
    hook: AsyncpgPoolHook, probe: ConnectionProbe, postgres: Postgres
) -> None:
    async def work(made: Any) -> None:
        await made.fetchval("select 1")

    with_pool(postgres, asyncio.new_event_loop, work, min_size=0)
    assert (only(probe).name, counts(probe)) == (postgres.pool_name, (1, 1, 1, 0))


def test_a_connection_that_is_closed_comes_back_all_the_same(
    hook: AsyncpgPoolHook, probe: ConnectionProbe, postgres: Postgres, lazy_loop_factory: LoopFactory
) -> None:
    async def work(made: Any) -> None:
        async with made.acquire() as one:
            await one.close()
            assert level(probe).used == 0
        async with made.acquire() as one:
            one.terminate()
        assert (level(probe).used, level(probe).idle) == (0, 0)

    with_pool(postgres, lazy_loop_factory, work, min_size=0)
    assert counts(probe) == (2, 2, 2, 0)


def test_who_is_sent_away_counts_as_a_timeout(
    hook: AsyncpgPoolHook, probe: ConnectionProbe, postgres: Postgres, lazy_loop_factory: LoopFactory
) -> None:
    async def work(made: Any) -> None:
        async with made.acquire():
            with pytest.raises(asyncio.TimeoutError):
                await made.acquire(timeout=0.05)
            assert level(probe).pending == 0

    with_pool(postgres, lazy_loop_factory, work, max_size=1)
    assert counts(probe) == (1, 1, 1, 1)


def test_a_connection_that_cannot_be_made_counts_nowhere(
    hook: AsyncpgPoolHook, probe: ConnectionProbe, postgres: Postgres
) -> None:
    async def work(made: Any) -> None:
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await made.acquire()

    with_pool(postgres, asyncio.new_event_loop, work, min_size=0, database="nowhere")
    assert counts(probe) == (0, 0, 0, 0)
    assert only(probe).name == f"{postgres.host}:{postgres.port}/nowhere"


def test_a_wait_that_is_let_go_of_is_told_nobody(
    hook: AsyncpgPoolHook, probe: ConnectionProbe, postgres: Postgres
) -> None:
    told: list[object] = []

    class Heard:
        def waited(self, *wait: object) -> None:
            told.append(wait)

        def timed_out(self, *wait: object) -> None:
            told.append(wait)

    async def work(made: Any) -> None:
        async with made.acquire():
            probe.observer = Heard()
            waiting = made._acquire(None)
            waiting.send(None)
            await asyncio.sleep(0.001)
            assert level(probe).pending == 1
            waiting.close()
            assert level(probe).pending == 0
            probe.observer = None

    with_pool(postgres, asyncio.new_event_loop, work, max_size=1)
    assert told == []


def test_pools_of_before_are_seen_and_all_is_put_back(probe: ConnectionProbe, postgres: Postgres) -> None:
    hook = AsyncpgPoolHook(probe)

    async def work(made: Any) -> None:
        before = await made.acquire()
        hook.install()
        hook.install()
        async with made.acquire():
            await made.release(before)
            assert level(probe).used == 1
        out = await made.acquire()
        hook.remove()
        hook.remove()
        assert [vars(owner)[name] for owner, name in PLACES] == ORIGINALS
        assert not [name for name in vars(made._queue) if name.startswith("_otel")]
        await made.release(out)
        await made.fetchval("select 1")

    with_pool(postgres, asyncio.new_event_loop, work)
    assert counts(probe) == (2, 1, 1, 0)


def test_a_pool_that_is_gone_is_not_kept(
    hook: AsyncpgPoolHook, probe: ConnectionProbe, postgres: Postgres, small_heap: None
) -> None:
    async def work(made: Any) -> None:
        await made.fetchval("select 1")

    with_pool(postgres, asyncio.new_event_loop, work)
    gc.collect()
    assert repr(probe) == "<ConnectionProbe [0 pools of 1 names]>"


def test_another_shape_is_left_alone(monkeypatch: pytest.MonkeyPatch, probe: ConnectionProbe) -> None:
    monkeypatch.delattr(module.PoolConnectionHolder, "_release")
    hook = AsyncpgPoolHook(probe)
    hook.install()
    assert vars(module.Pool)["_acquire"] is ORIGINALS[0]
    hook.remove()
