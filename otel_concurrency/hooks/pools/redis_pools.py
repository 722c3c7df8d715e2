"""Where we attach to redis-py: `get_connection` and `release` of pools, and `_connect` of connections.

Pools for threads and for asyncio, those that wait for a connection and those that refuse (redis-py 5 to 8,
`connection.py` and `asyncio/connection.py`). A client takes a connection for each command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Patches, switched
from otel_concurrency.hooks.pools.lending import Lending
from otel_concurrency.probes.connections import (
    ConnectionLevel,
    ConnectionPoolProbe,
    ConnectionProbe,
    pool_name,
)

_LOSS = "its connections are not counted"
_POOLS = ("ConnectionPool", "BlockingConnectionPool")
_CONNECTIONS = ("Connection", "UnixDomainSocketConnection")
_DENIALS = ("No connection available", "Too many connections")
_NO_LIMIT = 2**31  # what redis-py 5 to 7 take for none


class RedisPoolHook:
    """Tells of the connections of redis-py's pools.

    Args:
        probe: Counts them.
    """

    def __init__(self, probe: ConnectionProbe) -> None:
        self._lending = Lending(probe, name=name_of, level=_level, is_denial=_is_denial, locks=_locks)
        self._patches = Patches(
            (
                LatePatch("redis.connection", self._blocking, loss=_LOSS),
                LatePatch("redis.asyncio.connection", self._awaited, loss=_LOSS),
            )
        )

    def __repr__(self) -> str:
        return f"<RedisPoolHook {self._patches}>"

    def install(self) -> None:
        """Patch both kinds of pools, now or when they are imported; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put the originals back."""
        self._patches.remove()
        self._lending.forget()

    def _blocking(self, module: ModuleType) -> list[Patch]:
        return _patches(module, self._lending.lends, self._lending.takes_back, self._lending.connects)

    def _awaited(self, module: ModuleType) -> list[Patch]:
        lending = self._lending
        return _patches(module, lending.lends_async, lending.takes_back_async, lending.connects)


_Stand = Callable[..., Any]


def _patches(module: ModuleType, lends: _Stand, takes_back: _Stand, connects: _Stand) -> list[Patch]:
    return [
        *(Patch(getattr(module, pool), "get_connection", switched(lends)) for pool in _POOLS),
        *(Patch(pool, "release", switched(takes_back)) for pool in _taking_back(module)),
        *(Patch(getattr(module, connection), "_connect", switched(connects)) for connection in _CONNECTIONS),
    ]


def _taking_back(module: ModuleType) -> list[Any]:
    """Return the pools with a `release` of their own, not one that hands on to that of the plain pool."""
    pools = [getattr(module, name) for name in _POOLS]
    return [pool for pool in pools if "__class__" not in pool.release.__code__.co_freevars]


def name_of(pool: Any) -> str:
    """Return which server and database a pool is for; of a sentinel's pool, which service."""
    options = pool.connection_kwargs
    database = str(options.get("db") or 0)
    place = options.get("path") or getattr(pool, "service_name", None)
    if place is not None:
        return pool_name(str(place), None, database)
    return pool_name(str(options.get("host", "localhost")), options.get("port", 6379), database)


def _locks(pool: Any) -> list[object]:
    return [getattr(pool, name, None) for name in ("_condition", "_lock")]


def _level(pool: Any, mine: ConnectionPoolProbe) -> ConnectionLevel:
    """Tell how full a pool is, as it knows itself: a connection that it lost sight of counts no more."""
    limit = pool.max_connections
    queue = getattr(pool, "pool", None)
    if queue is None:
        used, free = len(pool._in_use_connections), list(pool._available_connections)
    else:  # of free connections, and of None for each that may be made
        used = queue.maxsize - queue.qsize()
        free = list(queue.queue if hasattr(queue, "queue") else queue._queue)
    return ConnectionLevel(
        used=used, idle=_open(free), pending=len(mine.waits), limit=None if limit >= _NO_LIMIT else limit
    )


def _open(connections: Iterable[Any]) -> int:
    """Count the connections among them that are connected."""
    return sum(1 for each in connections if each is not None and _is_open(each))


def _is_open(connection: Any) -> bool:
    inner = getattr(connection, "_conn", connection)  # the client-side cache wraps one
    return bool(inner.is_connected) if hasattr(inner, "is_connected") else inner._sock is not None


def _is_denial(error: BaseException) -> bool:
    return str(error).startswith(_DENIALS)
