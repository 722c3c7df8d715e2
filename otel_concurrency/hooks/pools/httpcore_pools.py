"""Waits for a connection of httpx: `httpcore` lends each request one of its pool, as far as there are any.

Leans on `ConnectionPool` and `AsyncConnectionPool` of httpcore 1.0, `connection_pool.py` in `httpcore/_sync`
and `httpcore/_async`, and of httpcore2, which httpx2 comes with: `wait_for_connection` of a pool's request,
which waits as long as the request's `connection` is None; `_requests` and `_connections` (`_pool` before
1.0.3). Neither is imported for our sake.

A request that has waited is asked to try its connection; if somebody else was quicker
(`ConnectionNotAvailable`), it waits again. That is one wait, until a connection has taken the request.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Awaitable, Callable
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Patches, Switch, switched
from otel_concurrency.hooks.pools.http_pools import KnownPools, Waited, by_server
from otel_concurrency.hooks.threads.pool_items import Fence, now_ns
from otel_concurrency.probes.http_pools import HttpPoolLevel, Server

_PACKAGES = ("httpcore", "httpcore2")
_SYNC, _ASYNC = "_sync.connection_pool", "_async.connection_pool"
_POOLS = {_SYNC: "ConnectionPool", _ASYNC: "AsyncConnectionPool"}
_REQUESTS = {  # before 1.0.3 both are a `RequestStatus`
    _SYNC: ("PoolRequest", "RequestStatus"),
    _ASYNC: ("AsyncPoolRequest", "RequestStatus"),
}
_WAIT = "_otel_concurrency_wait"  # attribute of a pool's request whose wait goes on


class HttpcorePoolHook:
    """Knows httpcore's pools, and tells of requests that have to wait for a connection.

    Args:
        waited: Is told.
    """

    def __init__(self, waited: Waited) -> None:
        self._waited = waited
        self._fence = Fence("httpcore's connections")
        self._pools = KnownPools()
        self._patches = Patches(
            [
                patch
                for package in _PACKAGES
                for module in (_SYNC, _ASYNC)
                for patch in (self._patch_pool(package, module), self._patch_request(package, module))
            ]
        )

    def __repr__(self) -> str:
        return f"<HttpcorePoolHook {self._pools} {self._patches}>"

    def install(self) -> None:
        """Patch the pools, now or when they are imported; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put everything back, last first."""
        self._patches.remove()
        self._pools.clear()

    def levels(self) -> list[HttpPoolLevel]:
        """Return how full each live pool is; from any thread."""
        return self._pools.read(_level)

    def _patch_pool(self, package: str, name: str) -> LatePatch:
        return LatePatch(
            f"{package}.{name}",
            lambda module: Patch(getattr(module, _POOLS[name]), "__init__", switched(self._know)),
            loss="its pools are not measured",
        )

    def _patch_request(self, package: str, name: str) -> LatePatch:
        def patch(module: ModuleType) -> Patch:
            new, old = _REQUESTS[name]
            owner = getattr(module, new, None) or getattr(module, old)
            unavailable = module.ConnectionNotAvailable
            timeout = getattr(sys.modules.get(f"{package}._exceptions"), "PoolTimeout")  # noqa: B009
            make = self._time if name == _SYNC else self._time_async

            def observe(original: Any, switch: Switch) -> Any:
                return make(original, switch, unavailable, timeout)

            return Patch(owner, "wait_for_connection", switched(observe))

        return LatePatch(f"{package}.{name}", patch, loss="waits for its connections are not told of")

    def _know(self, original: Callable[..., None], switch: Switch) -> Callable[..., None]:
        @functools.wraps(original)
        def __init__(pool: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807
            original(pool, *args, **kwargs)
            if switch.is_on:
                self._pools.add(pool)

        return __init__

    def _tell_fenced(self, request: Any, ns: int, timed_out: bool) -> None:
        self._fence(self._tell, request, ns, timed_out)

    def _tell(self, request: Any, ns: int, timed_out: bool) -> None:
        self._waited(_server(request.request.url.origin), ns, timed_out=timed_out)

    def _time(
        self,
        original: Callable[..., Any],
        switch: Switch,
        unavailable: type[Exception],
        timeout: type[Exception],
    ) -> Callable[..., Any]:
        @functools.wraps(original)
        def wait_for_connection(request: Any, *args: Any, **kwargs: Any) -> Any:
            if not (_waits(request) and switch.is_on):
                return original(request, *args, **kwargs)
            wait = getattr(request, _WAIT, None) or _Wait(request, self._tell_fenced, unavailable)
            try:
                connection = original(request, *args, **kwargs)
            except BaseException as error:
                wait.ends()
                wait.is_over(timed_out=isinstance(error, timeout))
                raise
            wait.ends()
            return _Tried(connection, wait)

        return wait_for_connection

    def _time_async(
        self,
        original: Callable[..., Awaitable[Any]],
        switch: Switch,
        unavailable: type[Exception],
        timeout: type[Exception],
    ) -> Callable[..., Awaitable[Any]]:
        async def waiting(request: Any, args: Any, kwargs: Any) -> Any:
            wait = getattr(request, _WAIT, None) or _Wait(request, self._tell_fenced, unavailable)
            try:
                connection = await original(request, *args, **kwargs)
            except GeneratorExit:  # wherever the collector runs, among others' spans
                raise
            except BaseException as error:
                wait.ends()
                wait.is_over(timed_out=isinstance(error, timeout))
                raise
            wait.ends()
            return _AsyncTried(connection, wait)

        @functools.wraps(original)
        def wait_for_connection(request: Any, *args: Any, **kwargs: Any) -> Awaitable[Any]:
            if not (_waits(request) and switch.is_on):
                return original(request, *args, **kwargs)
            return waiting(request, args, kwargs)

        return wait_for_connection


def _waits(request: Any) -> bool:
    """Tell whether a pool's request has no connection, or has had to wait for it; not one of another kind."""
    return getattr(request, "connection", request) is None or getattr(request, _WAIT, None) is not None


class _Wait:
    """One request's wait, until a connection takes the request or it gives up."""

    __slots__ = ("_began_ns", "_ended_ns", "_request", "_tell", "unavailable")

    def __init__(
        self, request: Any, tell: Callable[[Any, int, bool], None], unavailable: type[Exception]
    ) -> None:
        self._request, self._tell = request, tell
        self._began_ns = self._ended_ns = now_ns()
        self.unavailable = unavailable

    def ends(self) -> None:
        """There is a connection to try."""
        self._ended_ns = now_ns()

    def goes_on(self) -> None:
        """Somebody else was quicker."""
        try:
            setattr(self._request, _WAIT, self)
        except AttributeError:
            self.is_over()

    def is_over(self, *, timed_out: bool = False) -> None:
        """Tell of it."""
        self._tell(self._request, self._ended_ns - self._began_ns, timed_out)


class _Given:
    """Stands for a connection where its next use is to send the request that has waited for it."""

    __slots__ = ("_connection", "_wait")

    def __init__(self, connection: Any, wait: _Wait) -> None:
        self._connection, self._wait = connection, wait

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


class _Tried(_Given):
    __slots__ = ()

    def handle_request(self, request: Any) -> Any:
        try:
            response = self._connection.handle_request(request)
        except self._wait.unavailable:
            self._wait.goes_on()
            raise
        except BaseException:
            self._wait.is_over()
            raise
        self._wait.is_over()
        return response


class _AsyncTried(_Given):
    __slots__ = ()

    async def handle_async_request(self, request: Any) -> Any:
        try:
            response = await self._connection.handle_async_request(request)
        except self._wait.unavailable:
            self._wait.goes_on()
            raise
        except GeneratorExit:  # as above
            raise
        except BaseException:
            self._wait.is_over()
            raise
        self._wait.is_over()
        return response


def _server(origin: Any) -> Server:
    return Server(origin.host.decode("ascii", "replace"), origin.port)


def _level(pool: Any, name: str) -> HttpPoolLevel:
    connections = list(pool._connections if hasattr(pool, "_connections") else pool._pool)
    told = [
        (_server(_origin(connection)), bool(connection.is_idle()))
        for connection in connections
        if _is_open(connection)
    ]
    return HttpPoolLevel(
        name,
        limit=_limit(pool._max_connections),
        limit_per_host=None,
        idle_limit=_limit(pool._max_keepalive_connections),
        servers=by_server(
            active=(server for server, is_idle in told if not is_idle),
            idle=(server for server, is_idle in told if is_idle),
            pending=(
                _server(each.request.url.origin) for each in list(pool._requests) if each.connection is None
            ),
        ),
    )


def _limit(value: int) -> int | None:
    return None if value == sys.maxsize else value


def _origin(connection: Any) -> Any:
    """Return where a connection leads to, through whichever proxy."""
    return getattr(connection, "_remote_origin", None) or connection._origin


def _is_open(connection: Any) -> bool:
    """Tell whether a connection has been made, and not been closed; a proxy's has another inside."""
    inner = connection
    while hasattr(inner, "_connection"):
        inner = inner._connection
        if inner is None:
            return False
    return not connection.is_closed()
