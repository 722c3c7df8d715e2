"""Requests that wait for a connection of aiohttp's connector are told of, and how full it is."""

from __future__ import annotations

import asyncio
import inspect
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import aiohttp
import pytest
from aiohttp.connector import BaseConnector, Connection

from otel_concurrency.hooks.pools.aiohttp_connectors import AiohttpConnectorHook
from otel_concurrency.probes.http_pools import HttpPoolLevel, Server, ServerLevel
from tests.conftest import LoopFactory
from tests.loops import run
from tests.slow_server import SlowServer

NAMES = ("__init__", "connect", "_get", "_wait_for_available_connection")


class Key(NamedTuple):
    """Of a connection, as far as it matters here."""

    host: str
    port: int


class Listening:
    """A hook, and what it has told."""

    def __init__(self) -> None:
        self.told: list[tuple[Server, float, bool]] = []
        self.hook = AiohttpConnectorHook(self._waited)

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
    before = {name: vars(BaseConnector).get(name) for name in NAMES}, Connection.__init__
    listening = Listening()
    listening.hook.install()
    yield listening
    listening.hook.remove()
    assert ({name: vars(BaseConnector).get(name) for name in NAMES}, Connection.__init__) == before


@pytest.fixture
def server() -> Iterator[SlowServer]:
    with SlowServer() as server:
        yield server


async def get(session: aiohttp.ClientSession, server: SlowServer, **options: Any) -> str:
    async with session.get(server.url, **options) as response:
        return await response.text()


async def until(condition: Any) -> None:
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError(inspect.getsource(condition))


def test_who_finds_a_connection_waits_for_none(
    listening: Listening, server: SlowServer, loop_factory: LoopFactory
) -> None:
    async def main() -> list[str]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2)) as session:
            return [await get(session, server) for _ in range(3)] + list(
                await asyncio.gather(get(session, server), get(session, server))
            )

    assert run(loop_factory, main()) == ["ok"] * 5
    assert listening.told == []


@pytest.mark.parametrize("limits", [{"limit": 2}, {"limit": 100, "limit_per_host": 2}])
def test_who_waits_waits_for_those_before(
    listening: Listening, server: SlowServer, loop_factory: LoopFactory, limits: dict[str, int]
) -> None:
    """Six at once through two connections, 50 ms each."""
    server.seconds = 0.05

    async def main() -> list[str]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(**limits)) as session:
            return list(await asyncio.gather(*(get(session, server) for _ in range(6))))

    began = time.monotonic()
    assert run(loop_factory, main()) == ["ok"] * 6
    took = time.monotonic() - began
    assert server.most == 2
    assert {(told.address, told.port, timed_out) for told, _, timed_out in listening.told} == {
        ("127.0.0.1", server.port, False)
    }
    one, two, three, four = listening.seconds
    assert 0.045 <= one <= two
    assert 0.095 <= three <= four < took - 0.045


def test_how_full_it_is(listening: Listening, server: SlowServer, loop_factory: LoopFactory) -> None:
    server.seconds = 0.1

    async def main() -> list[HttpPoolLevel]:
        levels = []
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=2, limit_per_host=7)
        ) as session:
            levels.append(listening.level())
            requests = asyncio.gather(*(get(session, server) for _ in range(5)))
            await until(lambda: server.at_work == 2)
            levels.append(listening.level())
            await requests
            levels.append(listening.level())
        assert listening.hook.levels() == []
        return levels

    first, busy, after = run(loop_factory, main())
    here = Server("127.0.0.1", server.port)
    assert first[1:] == (2, 7, None, {})
    assert first.name.partition(":")[0] == __name__
    assert busy.servers == {here: ServerLevel(active=2, idle=0, pending=3)}
    assert after.servers == {here: ServerLevel(active=0, idle=2, pending=0)}


def test_without_limits(listening: Listening, server: SlowServer, loop_factory: LoopFactory) -> None:
    server.seconds = 0.05

    async def main() -> HttpPoolLevel:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            requests = asyncio.gather(*(get(session, server) for _ in range(5)))
            await until(lambda: server.at_work == 5)
            level = listening.level()
            await requests
        return level

    level = run(loop_factory, main())
    assert level[1:4] == (None, None, None)
    assert level.servers == {Server("127.0.0.1", server.port): ServerLevel(active=5)}
    assert listening.told == []


def test_who_gives_up_has_waited_till_then(
    listening: Listening, server: SlowServer, loop_factory: LoopFactory
) -> None:
    """One is cancelled, one meets its timeout, one gets a connection; none waits in the end."""
    server.seconds = 0.5

    def pending() -> list[int]:
        return [level.pending for level in listening.level().servers.values()]

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            first = asyncio.ensure_future(get(session, server))
            await until(lambda: server.at_work == 1)
            late = asyncio.ensure_future(get(session, server, timeout=aiohttp.ClientTimeout(connect=0.1)))
            last = asyncio.ensure_future(get(session, server))
            cancelled = asyncio.ensure_future(get(session, server))
            await until(lambda: pending() == [3])
            await asyncio.sleep(0.05)
            cancelled.cancel()
            ends = await asyncio.gather(first, cancelled, late, last, return_exceptions=True)
            assert pending() == [0]
        assert (ends[0], ends[3]) == ("ok", "ok")
        assert isinstance(ends[1], asyncio.CancelledError)
        assert isinstance(ends[2], aiohttp.ServerTimeoutError)

    began = time.monotonic()
    run(loop_factory, main())
    took = time.monotonic() - began
    cancelled, late, last = listening.seconds
    assert 0.049 <= cancelled < 0.099 <= late < last < took


def test_a_request_that_is_dropped_in_its_wait_tells_nothing(listening: Listening) -> None:
    """It ends wherever the garbage collector runs, in the midst of somebody else's request."""

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=1)
        key: Any = Key("here", 80)
        wait = getattr(connector, "_wait_for_available_connection", None)
        if wait is None:
            pytest.skip("aiohttp before 3.10")
        coroutine = wait(key, [])
        coroutine.send(None)
        coroutine.close()
        await connector.close()

    asyncio.run(main())
    assert listening.told == []


def test_a_closed_or_dropped_connector_is_known_no_more(
    listening: Listening, loop_factory: LoopFactory
) -> None:
    async def main() -> None:
        connector = aiohttp.TCPConnector()
        assert len(listening.hook.levels()) == 1
        await connector.close()
        assert listening.hook.levels() == []

    run(loop_factory, main())
    assert "KnownPools [0]" in repr(listening.hook)


def test_a_connector_is_named_by_who_makes_the_session(
    listening: Listening, loop_factory: LoopFactory
) -> None:
    async def main() -> tuple[str, int]:
        line = inspect.currentframe().f_lineno + 1  # type: ignore[union-attr]
        session = aiohttp.ClientSession()
        name = listening.level().name
        await session.close()
        return name, line

    name, line = run(loop_factory, main())
    assert name == f"{__name__}:{line}"


def test_removed_it_tells_nothing_even_where_somebody_held_the_replacement(
    listening: Listening, server: SlowServer, loop_factory: LoopFactory
) -> None:
    server.seconds = 0.2

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            first, second = (asyncio.ensure_future(get(session, server)) for _ in range(2))
            await until(lambda: server.at_work == 1)
            listening.hook.remove()  # the second is inside
            assert await asyncio.gather(first, second) == ["ok", "ok"]
            await asyncio.gather(get(session, server), get(session, server))

    run(loop_factory, main())
    assert listening.told == []
    assert listening.hook.levels() == []


def test_installed_twice_it_tells_once(
    listening: Listening, server: SlowServer, loop_factory: LoopFactory
) -> None:
    listening.hook.install()
    server.seconds = 0.01

    async def main() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            await asyncio.gather(get(session, server), get(session, server))
            assert len(listening.hook.levels()) == 1

    run(loop_factory, main())
    assert len(listening.told) == 1


def test_our_own_trouble_stays_ours(
    server: SlowServer, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    def waited(server: Server, ns: int, *, timed_out: bool) -> None:
        raise RuntimeError("ours")

    async def main() -> list[str]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1)) as session:
            return list(await asyncio.gather(*(get(session, server) for _ in range(4))))

    hook = AiohttpConnectorHook(waited)
    hook.install()
    try:
        assert run(loop_factory, main()) == ["ok"] * 4
    finally:
        hook.remove()
    assert len([record for record in caplog.records if record.name.startswith("otel_concurrency")]) == 1


LATE = """
import sys
from otel_concurrency.hooks.pools.aiohttp_connectors import AiohttpConnectorHook
hook = AiohttpConnectorHook(print)
hook.install()
imported = [name for name in sys.modules if name.partition(".")[0] == "aiohttp"]
import asyncio, aiohttp
async def main():
    async with aiohttp.ClientSession() as session:
        return len(hook.levels())
print(imported, asyncio.run(main()))
hook.remove()
print(sys.meta_path[0])
"""


def test_aiohttp_is_not_imported_for_our_sake_and_heard_of_when_it_is() -> None:
    ended = subprocess.run([sys.executable, "-c", LATE], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines()[0] == "[] 1"
    assert "otel_concurrency" not in ended.stdout.splitlines()[1]
