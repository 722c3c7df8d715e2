"""Connections of redis-py's pools, on a real Redis: who waits, who has one, what it takes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import redis
import redis.asyncio as redis_asyncio
from redis import sentinel

from otel_concurrency.hooks.pools.redis_pools import RedisPoolHook, name_of
from otel_concurrency.probes.connections import ConnectionLevel, ConnectionProbe
from tests.hooks.lending import Heard, SixOfTwo, in_threads, level, levels, row, until, until_async
from tests.loops import run
from tests.redis_server import running_redis

LoopFactory = Callable[[], asyncio.AbstractEventLoop]

COMMAND = () if tuple(map(int, redis.__version__.split(".")[:2])) >= (5, 3) else ("PING",)
"""What `get_connection` wants to hear."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_redis(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture
def probe() -> Iterator[ConnectionProbe]:
    probe = ConnectionProbe()
    hook = RedisPoolHook(probe)
    hook.install()
    yield probe
    hook.remove()


@pytest.fixture
def heard(probe: ConnectionProbe) -> Heard:
    heard = probe.observer = Heard()
    return heard


@contextlib.contextmanager
def pool_of(kind: str, address: str, size: int, **options: Any) -> Iterator[Any]:
    """Return a pool for threads, disconnected at the end."""
    pool = getattr(redis, kind).from_url(address, max_connections=size, **options)
    try:
        yield pool
    finally:
        pool.disconnect()


@contextlib.asynccontextmanager
async def async_pool_of(kind: str, address: str, size: int, **options: Any) -> AsyncIterator[Any]:
    """Return a pool for tasks, disconnected at the end."""
    pool = getattr(redis_asyncio, kind).from_url(address, max_connections=size, **options)
    try:
        yield pool
    finally:
        await pool.disconnect()


@contextlib.contextmanager
def lent(pool: Any) -> Iterator[Any]:
    connection = pool.get_connection(*COMMAND)
    try:
        yield connection
    finally:
        pool.release(connection)


@contextlib.asynccontextmanager
async def lent_async(pool: Any) -> AsyncIterator[Any]:
    connection = await pool.get_connection(*COMMAND)
    try:
        yield connection
    finally:
        await pool.release(connection)


def test_threads_wait_for_a_pool_that_is_too_small(
    address: str, probe: ConnectionProbe, heard: Heard
) -> None:
    six = SixOfTwo()
    with pool_of("BlockingConnectionPool", address, 2) as pool:
        six.in_threads(lambda: lent(pool))
        assert level(probe) == ConnectionLevel(used=0, idle=2, pending=0, limit=2)
    six.compare(row(probe), heard)
    assert row(probe).name == address.removeprefix("redis://")


def test_tasks_wait_for_a_pool_that_is_too_small(
    address: str, probe: ConnectionProbe, heard: Heard, loop_factory: LoopFactory
) -> None:
    six = SixOfTwo()

    async def main() -> list[ConnectionLevel]:
        async with async_pool_of("BlockingConnectionPool", address, 2) as pool:
            all_of_them = six.in_tasks(lambda: lent_async(pool))
            await until_async(lambda: six.has_begun)
            meanwhile = level(probe)
            await all_of_them
            return [meanwhile, level(probe)]

    assert run(loop_factory, main()) == [
        ConnectionLevel(used=2, idle=0, pending=4, limit=2),
        ConnectionLevel(used=0, idle=2, pending=0, limit=2),
    ]
    six.compare(row(probe), heard)


def test_a_leaked_connection_is_in_use_and_who_leaked_it_is_told(
    address: str, probe: ConnectionProbe, heard: Heard
) -> None:
    """One of two is never given back; the next but one is sent away after 0.2 s, and hears who has them."""
    kept: list[Any] = []
    with pool_of("BlockingConnectionPool", address, 2, timeout=0.2) as pool:
        for thread in in_threads(lambda: kept.append(pool.get_connection(*COMMAND)), 1):
            thread.join()
        with lent(pool), pytest.raises(redis.ConnectionError, match="No connection available"):
            redis.Redis(connection_pool=pool).ping()
        assert level(probe) == ConnectionLevel(used=1, idle=1, pending=0, limit=2)
        pool.release(kept.pop())
        assert level(probe).used == 0
    seen = row(probe)
    assert (seen.timeouts, seen.wait_times.count, seen.use_times.count) == (1, 2, 2)
    ((name, ns, holders),) = heard.timeouts
    assert (name, holders) == (address.removeprefix("redis://"), ["holder-0", threading.main_thread().name])
    assert ns == pytest.approx(0.2e9, rel=0.05)


def test_a_task_that_is_sent_away_hears_who_has_the_connections(
    address: str, probe: ConnectionProbe, heard: Heard, loop_factory: LoopFactory
) -> None:
    async def keep(pool: Any) -> Any:
        return await pool.get_connection(*COMMAND)

    async def main() -> None:
        async with async_pool_of("BlockingConnectionPool", address, 1, timeout=0.2) as pool:
            connection = await asyncio.get_running_loop().create_task(keep(pool), name="leaks it")
            with pytest.raises(redis.ConnectionError, match="No connection available"):
                await redis_asyncio.Redis(connection_pool=pool).ping()
            assert level(probe) == ConnectionLevel(used=1, idle=0, pending=0, limit=1)
            await pool.release(connection)

    run(loop_factory, main())
    assert (row(probe).timeouts, row(probe).use_times.count) == (1, 1)
    ((_, ns, holders),) = heard.timeouts
    assert holders == ["leaks it"]
    assert ns == pytest.approx(0.2e9, rel=0.05)


def test_a_pool_that_never_waits_sends_away_at_once(
    address: str, probe: ConnectionProbe, heard: Heard, loop_factory: LoopFactory
) -> None:
    """What the plain pools do: there is no waiting, and yet nobody gets a connection."""

    async def main() -> None:
        async with async_pool_of("ConnectionPool", address, 1) as pool, lent_async(pool):
            with pytest.raises(redis.ConnectionError, match="Too many connections"):
                await pool.get_connection(*COMMAND)
            assert level(probe) == ConnectionLevel(used=1, idle=0, pending=0, limit=1)

    with pool_of("ConnectionPool", address, 1) as pool, lent(pool):
        with pytest.raises(redis.ConnectionError, match="Too many connections"):
            redis.Redis(connection_pool=pool).ping()
        assert level(probe) == ConnectionLevel(used=1, idle=0, pending=0, limit=1)
    assert row(probe).timeouts == 1
    del pool
    run(loop_factory, main())
    assert row(probe).timeouts == 2
    assert max(ns for _, ns, _ in heard.timeouts) < 10e6


@pytest.mark.parametrize("kind", ["ConnectionPool", "BlockingConnectionPool"])
def test_a_command_takes_a_connection_and_gives_it_back(
    address: str, probe: ConnectionProbe, kind: str
) -> None:
    """The client of threads, the one of asyncio, and their pipelines: one connection each, made once."""

    async def main() -> None:
        async with async_pool_of(kind, address, 3) as pool:
            client = redis_asyncio.Redis(connection_pool=pool)
            for _ in range(3):
                await client.set("a", 1)
            await client.pipeline().get("a").get("a").execute()
            assert level(probe) == ConnectionLevel(used=0, idle=1, pending=0, limit=3)

    with pool_of(kind, address, 3) as pool:
        client = redis.Redis(connection_pool=pool)
        for _ in range(3):
            client.set("a", 1)
        client.pipeline().get("a").get("a").execute()
        assert level(probe) == ConnectionLevel(used=0, idle=1, pending=0, limit=3)
    assert level(probe).idle == 0  # a pool that is disconnected has no open connection
    del client, pool
    asyncio.run(main())
    seen = row(probe)
    assert (seen.wait_times.count, seen.use_times.count, seen.create_times.count) == (8, 8, 2)
    assert seen.create_times.sum_ns <= seen.wait_times.sum_ns


def test_who_is_cancelled_in_the_middle_of_a_wait_does_not_wait_any_more(
    address: str, probe: ConnectionProbe, loop_factory: LoopFactory
) -> None:
    """It has waited for nothing that it got, and its pool has not failed it."""

    async def main() -> None:
        async with async_pool_of("BlockingConnectionPool", address, 1) as pool:
            async with lent_async(pool):
                waiting = asyncio.ensure_future(pool.get_connection(*COMMAND))
                await until_async(lambda: level(probe).pending == 1)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                assert level(probe).pending == 0
            async with lent_async(pool):
                pass
            assert level(probe) == ConnectionLevel(used=0, idle=1, pending=0, limit=1)

    run(loop_factory, main())
    seen = row(probe)
    assert (seen.timeouts, seen.wait_times.count, seen.use_times.count) == (0, 2, 2)


def test_a_server_that_is_not_there_is_no_timeout(probe: ConnectionProbe, heard: Heard) -> None:
    """Nobody has a connection then, and none was made."""
    with pool_of("BlockingConnectionPool", "redis://127.0.0.1:1/0", 1) as pool:
        with pytest.raises(redis.ConnectionError):
            pool.get_connection(*COMMAND)
        assert level(probe) == ConnectionLevel(used=0, idle=0, pending=0, limit=1)
    seen = row(probe)
    assert (seen.timeouts, seen.wait_times.count, seen.create_times.count) == (0, 0, 0)
    assert heard.timeouts == []


def test_a_connection_that_connects_again_is_made_again(address: str, probe: ConnectionProbe) -> None:
    with pool_of("ConnectionPool", address, 1) as pool:
        for _ in range(2):
            with lent(pool):
                pass
            pool.disconnect()
    assert row(probe).create_times.count == 2


def test_a_pool_is_called_by_its_server() -> None:
    watch = sentinel.Sentinel([("127.0.0.1", 1)])
    pools = [
        redis.ConnectionPool(),
        redis.ConnectionPool.from_url("redis://user:secret@db:6380/3"),
        redis_asyncio.BlockingConnectionPool(host="::1"),
        redis.ConnectionPool.from_url("unix:///run/redis.sock?db=2"),
        sentinel.SentinelConnectionPool("orders", watch),
    ]
    assert [name_of(pool) for pool in pools] == [
        "localhost:6379/0",
        "db:6380/3",
        "[::1]:6379/0",
        "/run/redis.sock/2",
        "orders/0",
    ]


def test_a_pool_without_a_limit_has_none(address: str, probe: ConnectionProbe) -> None:
    with pool_of("ConnectionPool", address, 2**31) as pool, lent(pool):
        assert level(probe).limit is None


def test_what_a_pool_releases_that_is_not_its_own_is_not_counted(
    address: str, probe: ConnectionProbe
) -> None:
    with (
        pool_of("ConnectionPool", address, 1) as one,
        pool_of("ConnectionPool", address, 1) as other,
        lent(one) as connection,
    ):
        other.release(connection)
        assert [full.used for _, full in levels(probe)] == [1]
    assert row(probe).use_times.count == 1


def test_a_pool_keeps_its_face(address: str, probe: ConnectionProbe) -> None:
    """What the functions look like; and a pool that has gone is no pool any more."""
    pools = (redis_asyncio.ConnectionPool, redis_asyncio.BlockingConnectionPool)
    assert [inspect.iscoroutinefunction(each.get_connection) for each in pools] == [True, True]
    assert [inspect.iscoroutinefunction(each.release) for each in pools] == [True, True]
    assert inspect.signature(redis.ConnectionPool.release).parameters.keys() == {"self", "connection"}
    with pool_of("BlockingConnectionPool", address, 1) as pool, lent(pool):
        assert levels(probe) != []
    del pool
    assert levels(probe) == []


def test_who_waits_in_a_thread_is_seen_waiting(address: str, probe: ConnectionProbe) -> None:
    with pool_of("BlockingConnectionPool", address, 1) as pool:
        with lent(pool):
            threads = in_threads(lambda: redis.Redis(connection_pool=pool).ping(), 1)
            until(lambda: level(probe) == ConnectionLevel(used=1, idle=0, pending=1, limit=1))
        threads[0].join()


def test_what_is_put_back_is_what_was_there(address: str) -> None:
    def functions() -> list[Any]:
        return [
            vars(getattr(module, kind))[name]
            for module in (redis.connection, redis_asyncio.connection)
            for kind, name in [
                ("ConnectionPool", "get_connection"),
                ("ConnectionPool", "release"),
                ("BlockingConnectionPool", "get_connection"),
                ("BlockingConnectionPool", "release"),
                ("Connection", "_connect"),
                ("UnixDomainSocketConnection", "_connect"),
            ]
        ]

    before = functions()
    probe = ConnectionProbe()
    hook = RedisPoolHook(probe)
    hook.install()
    hook.install()
    now = functions()
    # The blocking pool of asyncio hands on to the plain one (redis-py 5.0 but for its first releases).
    handed_on = before[9].__code__.co_freevars == ("__class__",)
    assert [now[place] is before[place] for place in range(12)] == [
        place == 9 and handed_on for place in range(12)
    ]
    with pool_of("ConnectionPool", address, 1) as pool:
        connection = pool.get_connection(*COMMAND)
        hook.remove()
        pool.release(connection)
        with lent(pool):
            pass
    assert functions() == before
    assert (row(probe).wait_times.count, row(probe).use_times.count) == (1, 0)
