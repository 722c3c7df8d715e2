"""Waits for a connection of aiohttp's client, whose connector has as many of them as it may.

Leans on `BaseConnector` of aiohttp 3.9 to 3.14, `aiohttp/connector.py`: `_limit`, `_limit_per_host`,
`_acquired`, `_conns`, `_waiters`, and `_wait_for_available_connection`, which it calls only for who has to
wait; before 3.10 that is part of `connect`, which then calls `_get`. `TraceConfig` would tell of waits, too,
but its signals are awaited inside `connect`. aiohttp is never imported for our sake.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Patches, Switch, switched
from otel_concurrency.hooks.pools.http_pools import KnownPools, Waited, by_server
from otel_concurrency.hooks.threads.pool_items import Fence, now_ns
from otel_concurrency.probes.http_pools import HttpPoolLevel, Server

_SERVER = "_otel_concurrency_server"  # attribute of a connection's protocol: whom it talks to


class AiohttpConnectorHook:
    """Knows aiohttp's connectors, and tells of requests that have to wait for a connection.

    Args:
        waited: Is told.
    """

    def __init__(self, waited: Waited) -> None:
        self._waited = waited
        self._fence = Fence("aiohttp's connections")
        self._connectors = KnownPools()
        self._waits: dict[Any, tuple[Any, int]] = {}  # by task, before aiohttp 3.10
        self._patches = Patches(
            [
                self._patch("BaseConnector", "__init__", self._know),
                self._patch("Connection", "__init__", self._mark),
                self._patch("BaseConnector", "_wait_for_available_connection", self._time),
                self._patch("BaseConnector", "connect", self._time_old, is_old=True),
                self._patch("BaseConnector", "_get", self._end_old, is_old=True),
            ]
        )

    def __repr__(self) -> str:
        return f"<AiohttpConnectorHook {self._connectors} {self._patches}>"

    def install(self) -> None:
        """Patch the connector, now or when it is imported; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put everything back, last first."""
        self._patches.remove()
        self._connectors.clear()

    def levels(self) -> list[HttpPoolLevel]:
        """Return how full each live connector is; from any thread."""
        return self._connectors.read(_level)

    def _patch(
        self, owner: str, name: str, make: Callable[[Any, Switch], Any], *, is_old: bool = False
    ) -> LatePatch:
        def patch(module: ModuleType) -> Patch:
            if is_old and hasattr(module.BaseConnector, "_wait_for_available_connection"):
                raise AttributeError(name)  # it is newer
            return Patch(getattr(module, owner), name, switched(make))

        return LatePatch("aiohttp.connector", patch, loss=f"{name} does not tell of its connections")

    def _know(self, original: Callable[..., None], switch: Switch) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(connector: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(connector, *args, **kwargs)
            if switch.is_on:
                self._connectors.add(connector)

        return __init__

    def _mark(self, original: Callable[..., None], switch: Switch) -> Callable[..., None]:
        """Let a connection in use know its server: a connector without a limit per host does not."""

        @functools.wraps(original)
        def __init__(connection: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(connection, *args, **kwargs)
            if switch.is_on:
                try:
                    connection._protocol._otel_concurrency_server = connection._key
                except AttributeError:  # a protocol of somebody's own
                    pass

        return __init__

    def _time(self, original: Callable[..., Awaitable[Any]], switch: Switch) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(original)
        async def _wait_for_available_connection(connector: Any, key: Any, *args: Any, **kwargs: Any) -> Any:
            began_ns, is_dropped = now_ns(), False
            try:
                return await original(connector, key, *args, **kwargs)
            except GeneratorExit:  # wherever the collector runs, among others' spans
                is_dropped = True
                raise
            finally:
                if switch.is_on and not is_dropped:
                    self._fence(self._tell, key, now_ns() - began_ns)

        return _wait_for_available_connection

    def _time_old(
        self, original: Callable[..., Awaitable[Any]], switch: Switch
    ) -> Callable[..., Awaitable[Any]]:
        async def waiting(connector: Any, req: Any, args: Any, kwargs: Any) -> Any:
            task = asyncio.current_task()
            self._waits[task] = req.connection_key, now_ns()
            try:
                return await original(connector, req, *args, **kwargs)
            except GeneratorExit:  # as above
                self._waits.pop(task, None)
                raise
            finally:
                self._end_wait(task, switch)

        @functools.wraps(original)
        def connect(connector: Any, req: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
            if switch.is_on:
                key = req.connection_key
                if connector._available_connections(key) <= 0 or key in connector._waiters:
                    return waiting(connector, req, args, kwargs)
            return original(connector, req, *args, **kwargs)

        return connect

    def _end_old(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        @functools.wraps(original)
        def _get(connector: Any, *args: Any) -> Any:
            if self._waits:
                self._end_wait(asyncio.current_task(), switch)
            return original(connector, *args)

        return _get

    def _end_wait(self, task: object, switch: Switch) -> None:
        wait = self._waits.pop(task, None)
        if wait is not None and switch.is_on:
            key, began_ns = wait
            self._fence(self._tell, key, now_ns() - began_ns)

    def _tell(self, key: Any, ns: int) -> None:
        self._waited(_server(key), ns, timed_out=False)


def _server(key: Any) -> Server:
    return Server(key.host, key.port)


def _level(connector: Any, name: str) -> HttpPoolLevel | None:
    if connector.closed:
        return None
    active = [getattr(protocol, _SERVER, None) for protocol in list(connector._acquired)]
    return HttpPoolLevel(
        name,
        limit=connector.limit or None,
        limit_per_host=connector.limit_per_host or None,
        idle_limit=None,
        servers=by_server(
            # What has no server is a place that is taken for a connection that is being made.
            active=(_server(key) for key in active if key is not None),
            idle=(
                _server(key)
                for key, kept in list(connector._conns.items())
                for protocol, _ in list(kept)
                if protocol.is_connected()
            ),
            pending=(
                _server(key) for key, waiters in list(connector._waiters.items()) for _ in range(len(waiters))
            ),
        ),
    )
