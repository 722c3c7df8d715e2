"""Connections of psycopg_pool's pools, on a real PostgreSQL: who waits, who has one, what it takes."""

from __future__ import annotations

import asyncio
import inspect
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg_pool
import pytest

from otel_concurrency.hooks.pools.psycopg_pools import PsycopgPoolHook, name_of
from otel_concurrency.probes.connections import ConnectionLevel, ConnectionProbe
from tests.hooks.lending import HELD_S, Heard, SixOfTwo, in_threads, level, levels, row, until, until_async
from tests.loops import run
from tests.postgres_server import Postgres

LOSES_CANCELLED = psycopg_pool.__version__ == "3.1"
"""It hands the next connection to who was cancelled."""

LoopFactory = Callable[[], asyncio.AbstractEventLoop]


@pytest.fixture
def probe() -> Iterator[ConnectionProbe]:
    probe = ConnectionProbe()
    hook = PsycopgPoolHook(probe)
    hook.install()
    yield probe
    hook.remove()


@pytest.fixture
def heard(probe: ConnectionProbe) -> Heard:
    heard = probe.observer = Heard()
    return heard


def pool_of(postgres: Postgres, size: int, **options: Any) -> Any:
    """Return an open pool that has all its connections."""
    pool = psycopg_pool.ConnectionPool(postgres.address, min_size=size, max_size=size, open=True, **options)
    pool.wait()
    return pool


def async_pool_of(postgres: Postgres, size: int, **options: Any) -> Any:
    """Return a pool that is to be entered."""
    return psycopg_pool.AsyncConnectionPool(
        postgres.address, min_size=size, max_size=size, open=False, **options
    )


def test_threads_wait_for_a_pool_that_is_too_small(
    postgres: Postgres, probe: ConnectionProbe, heard: Heard
) -> None:
    six = SixOfTwo()
    with pool_of(postgres, 2) as pool:
        six.in_threads(pool.connection)
        assert level(probe) == ConnectionLevel(used=0, idle=2, pending=0, limit=2, idle_min=2)
    six.compare(row(probe), heard)
    assert row(probe).name == postgres.pool_name


def test_tasks_wait_for_a_pool_that_is_too_small(
    postgres: Postgres, probe: ConnectionProbe, heard: Heard, loop_factory: LoopFactory
) -> None:
    six = SixOfTwo()

    async def main() -> list[ConnectionLevel]:
        async with async_pool_of(postgres, 2) as pool:
            await pool.wait()
            all_of_them = six.in_tasks(pool.connection)
            await until_async(lambda: six.has_begun)
            meanwhile = level(probe)
            await all_of_them
            return [meanwhile, level(probe)]

    assert run(loop_factory, main()) == [
        ConnectionLevel(used=2, idle=0, pending=4, limit=2, idle_min=2),
        ConnectionLevel(used=0, idle=2, pending=0, limit=2, idle_min=2),
    ]
    six.compare(row(probe), heard)


def test_a_leaked_connection_is_in_use_and_who_leaked_it_is_told(
    postgres: Postgres, probe: ConnectionProbe, heard: Heard
) -> None:
    """One of two is never given back; the next but one is sent away after 0.2 s, and hears who has them."""
    kept: list[Any] = []
    with pool_of(postgres, 2, timeout=0.2) as pool:
        for thread in in_threads(lambda: kept.append(pool.getconn()), 1):
            thread.join()
        with pool.connection(), pytest.raises(psycopg_pool.PoolTimeout, match="couldn't get a connection"):
            pool.getconn()
        assert level(probe) == ConnectionLevel(used=1, idle=1, pending=0, limit=2, idle_min=2)
        pool.putconn(conn=kept.pop())
        assert level(probe).used == 0
    seen = row(probe)
    assert (seen.timeouts, seen.wait_times.count, seen.use_times.count) == (1, 2, 2)
    ((name, ns, holders),) = heard.timeouts
    assert (name, holders) == (postgres.pool_name, ["holder-0", threading.main_thread().name])
    assert ns == pytest.approx(0.2e9, rel=0.05)


def test_a_task_that_is_sent_away_hears_who_has_the_connections(
    postgres: Postgres, probe: ConnectionProbe, heard: Heard, loop_factory: LoopFactory
) -> None:
    async def keep(pool: Any) -> Any:
        return await pool.getconn()

    async def main() -> None:
        async with async_pool_of(postgres, 1, timeout=0.2) as pool:
            await pool.wait()
            task = asyncio.get_running_loop().create_task(keep(pool), name="leaks it")
            connection = await task
            with pytest.raises(psycopg_pool.PoolTimeout, match="couldn't get a connection"):
                async with pool.connection():
                    pass
            assert level(probe) == ConnectionLevel(used=1, idle=0, pending=0, limit=1, idle_min=1)
            await pool.putconn(connection)

    run(loop_factory, main())
    assert (row(probe).timeouts, row(probe).use_times.count) == (1, 1)
    ((_, ns, holders),) = heard.timeouts
    assert holders == ["leaks it"]
    assert ns == pytest.approx(0.2e9, rel=0.05)


def test_who_is_cancelled_in_the_middle_of_a_wait_does_not_wait_any_more(
    postgres: Postgres, probe: ConnectionProbe, loop_factory: LoopFactory
) -> None:
    """It has waited for nothing that it got, and its pool has not failed it."""

    async def main() -> None:
        async with async_pool_of(postgres, 1) as pool:
            await pool.wait()
            async with pool.connection():
                waiting = asyncio.ensure_future(pool.getconn())
                await until_async(lambda: level(probe).pending == 1)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert level(probe).pending == 0
            if LOSES_CANCELLED:
                return
            async with pool.connection():
                pass
            assert level(probe) == ConnectionLevel(used=0, idle=1, pending=0, limit=1, idle_min=1)

    run(loop_factory, main())
    times = 1 if LOSES_CANCELLED else 2
    seen = row(probe)
    assert (seen.timeouts, seen.wait_times.count, seen.use_times.count) == (0, times, times)


def test_whom_a_closing_pool_sends_away_it_did_not_fail(postgres: Postgres, probe: ConnectionProbe) -> None:
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            pool.getconn()
        except psycopg_pool.PoolClosed as error:
            errors.append(error)

    pool = pool_of(postgres, 1)
    connection = pool.getconn()
    threads = in_threads(ask, 1)
    until(lambda: level(probe).pending == 1)
    pool.close()
    threads[0].join()
    assert len(errors) == 1
    pool.putconn(connection)
    assert level(probe) == ConnectionLevel(used=0, idle=0, pending=0, limit=1, idle_min=1)
    assert row(probe).timeouts == 0


def test_too_many_requests_are_sent_away_at_once(
    postgres: Postgres, probe: ConnectionProbe, heard: Heard
) -> None:
    with pool_of(postgres, 1, max_waiting=1) as pool, pool.connection():
        threads = in_threads(lambda: pool.putconn(pool.getconn()), 1)
        until(lambda: level(probe).pending == 1)
        with pytest.raises(psycopg_pool.TooManyRequests):
            pool.getconn()
        assert (row(probe).timeouts, level(probe).pending) == (1, 1)
    threads[0].join()
    assert [holders for _, _, holders in heard.timeouts] == [[threading.main_thread().name]]


def test_connections_are_made_once_and_timed(postgres: Postgres, probe: ConnectionProbe) -> None:
    """By a worker of the pool's, and the callback that configures them counts: it is awaited, too."""
    with pool_of(postgres, 3, configure=lambda connection: time.sleep(0.1)) as pool:
        for _ in range(10):
            with pool.connection():
                pass
    created = row(probe).create_times
    assert created.count == 3
    assert created.min_ns >= 0.1e9
    assert created.sum_ns == pytest.approx(pool.get_stats()["connections_ms"] * 1e6 + 0.3e9, rel=0.05)


@pytest.mark.parametrize("is_async", [False, True], ids=["threads", "tasks"])
def test_a_null_pool_makes_connections_while_somebody_waits(
    postgres: Postgres, probe: ConnectionProbe, is_async: bool
) -> None:
    """It keeps none; a connection is as used as any other, and handed on to who waits."""

    waited: list[float] = []

    async def main() -> None:
        async with psycopg_pool.AsyncNullConnectionPool(
            postgres.address, max_size=1, open=False, configure=lambda connection: asyncio.sleep(HELD_S)
        ) as pool:

            async def hold() -> None:
                began = time.monotonic()
                async with pool.connection():
                    waited.append(time.monotonic() - began)
                    await asyncio.sleep(HELD_S)

            await asyncio.gather(hold(), hold())
            assert level(probe) == ConnectionLevel(used=0, idle=0, pending=0, limit=1, idle_min=0)

    def hold() -> None:
        began = time.monotonic()
        with pool.connection():
            waited.append(time.monotonic() - began)
            time.sleep(HELD_S)

    if is_async:
        asyncio.run(main())
    else:
        with psycopg_pool.NullConnectionPool(
            postgres.address, max_size=1, open=True, configure=lambda connection: time.sleep(HELD_S)
        ) as pool:
            for thread in in_threads(hold, 2):
                thread.join()
            assert level(probe) == ConnectionLevel(used=0, idle=0, pending=0, limit=1, idle_min=0)
    seen = row(probe)
    assert (seen.create_times.count, seen.wait_times.count, seen.use_times.count) == (1, 2, 2)
    # Both wait while the connection is made, and the second for the first.
    assert seen.wait_times.sum_ns == pytest.approx(sum(waited) * 1e9, rel=0.05)
    assert seen.wait_times.min_ns >= seen.create_times.sum_ns >= HELD_S * 1e9
    assert seen.wait_times.max_ns >= HELD_S * 1e9


def test_a_pool_is_called_by_its_name_or_by_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    def name(conninfo: str, **options: Any) -> str:
        pool = psycopg_pool.ConnectionPool(conninfo, min_size=0, max_size=1, open=False, **options)
        return name_of(pool)

    for variable in ("PGHOST", "PGPORT", "PGDATABASE", "PGUSER"):
        monkeypatch.delenv(variable, raising=False)
    assert name("postgresql://me:secret@db:6432/shop") == "db:6432/shop"
    assert name("postgresql://db/shop", name="orders") == "orders"
    assert name("user=me password=secret") == "localhost:5432/me"
    assert name("", kwargs={"host": "::1", "dbname": "shop", "autocommit": True}) == "[::1]:5432/shop"
    monkeypatch.setenv("PGHOST", "/run/postgresql")
    assert name("dbname=shop") == "/run/postgresql:5432/shop"


def test_a_pool_keeps_its_face(postgres: Postgres, probe: ConnectionProbe) -> None:
    """What the functions look like, and what they raise; and a pool that has gone is no pool any more."""
    pools = (psycopg_pool.ConnectionPool, psycopg_pool.AsyncConnectionPool)
    assert [list(inspect.signature(each.getconn).parameters) for each in pools] == [["self", "timeout"]] * 2
    assert [inspect.iscoroutinefunction(each.putconn) for each in pools] == [False, True]
    pool, other = pool_of(postgres, 1), pool_of(postgres, 1)
    with pool.connection() as connection, pytest.raises(ValueError, match="can't return connection to pool"):
        other.putconn(connection)
    assert row(probe).use_times.count == 1
    pool.close()
    other.close()
    del pool, other, connection
    assert levels(probe) == []


def test_what_is_put_back_is_what_was_there(postgres: Postgres) -> None:
    from psycopg_pool.pool import ConnectionPool
    from psycopg_pool.pool_async import AsyncConnectionPool

    functions = ("getconn", "putconn", "_connect")
    before = [vars(each)[name] for each in (ConnectionPool, AsyncConnectionPool) for name in functions]
    probe = ConnectionProbe()
    hook = PsycopgPoolHook(probe)
    hook.install()
    hook.install()
    with pool_of(postgres, 1) as pool:
        connection = pool.getconn()
        hook.remove()
        pool.putconn(connection)
        with pool.connection():
            pass
    after = [vars(each)[name] for each in (ConnectionPool, AsyncConnectionPool) for name in functions]
    assert after == before
    assert (row(probe).wait_times.count, row(probe).use_times.count) == (1, 0)


def test_a_library_of_another_shape_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    module = sys.modules["psycopg_pool.pool"]
    before = vars(module.ConnectionPool)["getconn"]
    monkeypatch.delattr(module.ConnectionPool, "_connect")
    hook = PsycopgPoolHook(ConnectionProbe())
    hook.install()
    assert vars(module.ConnectionPool)["getconn"] is before
    hook.remove()
