"""Requests that wait for a connection of httpcore's pools are told of, and how full the pools are."""

from __future__ import annotations

import inspect
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpcore
import httpx
import pytest
from httpcore._async import connection_pool as async_pools
from httpcore._sync import connection_pool as sync_pools

from otel_concurrency.hooks.pools.httpcore_pools import HttpcorePoolHook
from otel_concurrency.probes.http_pools import HttpPoolLevel, Server, ServerLevel
from tests.slow_server import SlowServer

Run = Callable[[Callable[[], Any]], Any]


def patched() -> list[Any]:
    return [
        vars(owner)[name]
        for module in (sync_pools, async_pools)
        for owner in vars(module).values()
        if inspect.isclass(owner) and owner.__module__ == module.__name__
        for name in ("__init__", "wait_for_connection")
        if name in vars(owner)
    ]


class Listening:
    """A hook, and what it has told."""

    def __init__(self) -> None:
        self.told: list[tuple[Server, float, bool]] = []
        self.hook = HttpcorePoolHook(self._waited)

    def _waited(self, server: Server, ns: int, *, timed_out: bool) -> None:
        self.told.append((server, ns / 1e9, timed_out))

    @property
    def seconds(self) -> list[float]:
        return sorted(seconds for _, seconds, _ in self.told)

    def level(self) -> HttpPoolLevel:
        (level,) = self.hook.levels()
        return level


@pytest.fixture
def listening() -> Iterator[Listening]:
    before = patched()
    listening = Listening()
    listening.hook.install()
    yield listening
    listening.hook.remove()
    assert patched() == before


@pytest.fixture
def server() -> Iterator[SlowServer]:
    with SlowServer() as server:
        yield server


@pytest.fixture(params=["asyncio", "uvloop", "trio"])
def run(request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function to its end."""
    if request.param == "trio":
        trio = pytest.importorskip("trio")
        return lambda main: trio.run(main)
    if request.param == "uvloop":
        uvloop = pytest.importorskip("uvloop")
        return lambda main: anyio.run(main, backend_options={"loop_factory": uvloop.new_event_loop})
    return lambda main: anyio.run(main)


def client(limit: int | None, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        limits=httpx.Limits(max_connections=limit, max_keepalive_connections=20),
        trust_env=False,
        timeout=httpx.Timeout(10, **options),
    )


async def at_once(client: httpx.AsyncClient, server: SlowServer, count: int) -> list[str]:
    got: list[str] = []

    async def get() -> None:
        got.append((await client.get(server.url)).text)

    async with anyio.create_task_group() as group:
        for _ in range(count):
            group.start_soon(get)
    return got


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        await anyio.sleep(0.001)
    raise AssertionError(inspect.getsource(condition))


def test_who_finds_a_connection_waits_for_none(listening: Listening, server: SlowServer, run: Run) -> None:
    async def main() -> list[str]:
        async with client(2) as pool:
            return [(await pool.get(server.url)).text] + await at_once(pool, server, 2)

    assert run(main) == ["ok"] * 3
    assert listening.told == []


def test_who_waits_waits_for_those_before(listening: Listening, server: SlowServer, run: Run) -> None:
    """Six at once through two connections, 50 ms each. Who tries in vain goes on with the same wait."""
    server.seconds = 0.05

    async def main() -> list[str]:
        async with client(2) as pool:
            return await at_once(pool, server, 6)

    began = time.monotonic()
    assert run(main) == ["ok"] * 6
    took = time.monotonic() - began
    assert server.most == 2
    assert {(told.address, told.port, timed_out) for told, _, timed_out in listening.told} == {
        ("127.0.0.1", server.port, False)
    }
    one, two, three, four = listening.seconds
    assert 0.045 <= one <= two
    assert 0.095 <= three <= four < took - 0.045


def test_how_full_it_is(listening: Listening, server: SlowServer, run: Run) -> None:
    server.seconds = 0.1

    async def main() -> list[HttpPoolLevel]:
        levels = []
        async with client(2) as pool:
            levels.append(listening.level())
            async with anyio.create_task_group() as group:
                group.start_soon(at_once, pool, server, 5)
                await until(lambda: server.at_work == 2)
                levels.append(listening.level())
            levels.append(listening.level())
        return levels

    first, busy, after = run(main)
    here = Server("127.0.0.1", server.port)
    assert first[1:] == (2, None, 2, {})
    assert first.name.partition(":")[0] == __name__
    assert busy.servers == {here: ServerLevel(active=2, idle=0, pending=3)}
    assert after.servers == {here: ServerLevel(active=0, idle=2, pending=0)}


def test_without_a_limit(listening: Listening, run: Run) -> None:
    async def main() -> HttpPoolLevel:
        async with client(None):
            return listening.level()

    assert run(main)[1:] == (None, None, 20, {})


def test_who_gives_up_has_waited_till_then(listening: Listening, server: SlowServer, run: Run) -> None:
    """One is cancelled, one meets its timeout, one gets a connection; none waits in the end."""
    server.seconds = 0.5
    here = Server("127.0.0.1", server.port)
    ends: dict[str, object] = {}

    async def get(name: str, pool: httpx.AsyncClient, timeout: float | None = None) -> None:
        try:
            ends[name] = (await pool.get(server.url, timeout=httpx.Timeout(10, pool=timeout))).text
        except httpx.PoolTimeout as error:
            ends[name] = type(error)

    async def main() -> None:
        async with client(1) as pool, anyio.create_task_group() as group:
            group.start_soon(get, "first", pool)
            await until(lambda: server.at_work == 1)
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as waiting:
                    group.start_soon(get, "late", pool, 0.1)
                    group.start_soon(get, "last", pool)
                    waiting.start_soon(get, "cancelled", pool)
                    await until(lambda: listening.level().servers[here].pending == 3)
                    await anyio.sleep(0.05)
                    scope.cancel()

    began = time.monotonic()
    run(main)
    took = time.monotonic() - began
    assert ends == {"first": "ok", "late": httpx.PoolTimeout, "last": "ok"}
    cancelled, late, last = listening.seconds
    assert 0.049 <= cancelled < 0.099 <= late < last
    assert last < took
    assert [timed_out for _, _, timed_out in sorted(listening.told, key=lambda told: told[1])] == [
        False,
        True,
        False,
    ]


def test_a_request_that_is_dropped_in_its_wait_tells_nothing(listening: Listening) -> None:
    """It ends wherever the garbage collector runs, in the midst of somebody else's request."""

    async def main() -> None:
        async with httpcore.AsyncConnectionPool(max_connections=0) as pool:
            coroutine = pool.handle_async_request(httpcore.Request("GET", "http://here/"))
            coroutine.send(None)
            coroutine.close()

    anyio.run(main)
    assert listening.told == []


def test_threads_wait_as_tasks_do(listening: Listening, server: SlowServer) -> None:
    server.seconds = 0.2  # threads may ask some ms after each other
    barrier = threading.Barrier(6)
    limits = httpx.Limits(max_connections=2)
    with httpx.Client(limits=limits, trust_env=False, timeout=10) as pool, ThreadPoolExecutor(6) as threads:

        def get() -> str:
            barrier.wait()
            return pool.get(server.url).text

        assert [future.result() for future in [threads.submit(get) for _ in range(6)]] == ["ok"] * 6
        assert server.most == 2
        assert listening.level().servers == {
            Server("127.0.0.1", server.port): ServerLevel(active=0, idle=2, pending=0)
        }
    one, two, three, four = listening.seconds
    assert 0.15 <= one <= two
    assert 0.35 <= three <= four


def test_a_thread_that_waits_too_long(listening: Listening, server: SlowServer) -> None:
    server.seconds = 0.2
    limits = httpx.Limits(max_connections=1)
    with httpx.Client(limits=limits, trust_env=False, timeout=10) as pool, ThreadPoolExecutor(1) as threads:
        first = threads.submit(pool.get, server.url)
        while not server.at_work:
            time.sleep(0.001)
        with pytest.raises(httpx.PoolTimeout):
            pool.get(server.url, timeout=httpx.Timeout(10, pool=0.05))
        assert first.result().text == "ok"
    ((_, seconds, timed_out),) = listening.told
    assert 0.05 <= seconds < 0.1
    assert timed_out


def test_a_pool_is_named_by_who_makes_the_client(listening: Listening) -> None:
    line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
    with httpx.Client(trust_env=False):
        assert listening.level().name == f"{__name__}:{line}"
    with httpcore.ConnectionPool():
        assert {level.name.partition(":")[0] for level in listening.hook.levels()} == {__name__}


def test_a_dropped_pool_is_known_no_more(listening: Listening) -> None:
    pool = httpcore.ConnectionPool()
    assert len(listening.hook.levels()) == 1
    del pool
    assert listening.hook.levels() == []


def test_removed_it_tells_nothing(listening: Listening, server: SlowServer, run: Run) -> None:
    server.seconds = 0.01
    listening.hook.remove()

    async def main() -> list[str]:
        async with client(1) as pool:
            return await at_once(pool, server, 3)

    assert run(main) == ["ok"] * 3
    assert listening.told == []
    assert listening.hook.levels() == []


def test_installed_twice_it_tells_once(listening: Listening, server: SlowServer, run: Run) -> None:
    listening.hook.install()
    server.seconds = 0.01

    async def main() -> list[str]:
        async with client(1) as pool:
            return await at_once(pool, server, 2)

    assert run(main) == ["ok"] * 2
    assert len(listening.told) == 1


def test_our_own_trouble_stays_ours(server: SlowServer, run: Run, caplog: pytest.LogCaptureFixture) -> None:
    def waited(server: Server, ns: int, *, timed_out: bool) -> None:
        raise RuntimeError("ours")

    async def main() -> list[str]:
        async with client(1) as pool:
            return await at_once(pool, server, 4)

    hook = HttpcorePoolHook(waited)
    hook.install()
    try:
        assert run(main) == ["ok"] * 4
    finally:
        hook.remove()
    assert len([record for record in caplog.records if record.name.startswith("otel_concurrency")]) == 1


LATE = """
import sys
from otel_concurrency.hooks.pools.httpcore_pools import HttpcorePoolHook
hook = HttpcorePoolHook(print)
hook.install()
imported = [name for name in sys.modules if name.partition(".")[0] in ("httpx", "httpcore")]
import httpx
client = httpx.Client(trust_env=False)
print(imported, len(hook.levels()))
client.close()
"""


def test_httpcore_is_not_imported_for_our_sake_and_heard_of_when_it_is() -> None:
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert ended.stdout == "[] 1\n"
