"""Connections of asyncpg's pools, from the time that the program imports it.

Every connection goes out by `Pool._acquire`, comes back by `PoolConnectionHolder._release`, closed ones too,
and is made in `PoolConnectionHolder.connect` (asyncpg 0.27 to 0.32, `asyncpg/pool.py`). A pool cannot be
referenced weakly, nor be given an attribute; its queue of holders can, and lives as long.
"""

from __future__ import annotations

import functools
import logging
import time
from asyncio import TimeoutError as SentAway  # its own class before CPython 3.11
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Switch, switched
from otel_concurrency.hooks.weak_ids import WeakIds
from otel_concurrency.probes.connections import (
    ConnectionLevel,
    ConnectionPoolProbe,
    ConnectionProbe,
    pool_name,
)

POOL_KEY = "_otel_concurrency_pool"
"""Attribute of a pool's queue with the pool's probe, None where it is not observed."""

_logger = logging.getLogger(__name__)


class AsyncpgPoolHook:
    """Tells of each connection's way out of its pool and back.

    Args:
        probe: Counts.
    """

    def __init__(self, probe: ConnectionProbe) -> None:
        self._probe = probe
        self._marked: WeakIds[None] = WeakIds()
        self._patches = LatePatch("asyncpg.pool", self._make, loss="its pools are not observed")

    def __repr__(self) -> str:
        return f"<AsyncpgPoolHook [{self._patches}]>"

    def install(self) -> None:
        """Patch, now or when it is imported; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put the originals back, and forget all pools."""
        self._patches.remove()
        for queue, _ in self._marked.items():
            vars(queue).pop(POOL_KEY, None)
        self._marked.clear()

    def _make(self, module: ModuleType) -> Sequence[Patch]:
        return (
            Patch(module.Pool, "_acquire", switched(self._observe_acquire)),
            Patch(module.PoolConnectionHolder, "_release", switched(_observe_release)),
            Patch(module.PoolConnectionHolder, "connect", switched(self._observe_connect)),
        )

    def _observe_acquire(self, original: Callable[..., Any], switch: Switch) -> Any:
        enrolled = self._enrolled

        @functools.wraps(original)
        async def _acquire(self: Any, timeout: float | None) -> Any:
            try:
                counts: ConnectionPoolProbe | None = self._queue._otel_concurrency_pool
            except AttributeError:
                counts = enrolled(self) if switch.is_on else None
            if counts is None:
                return await original(self, timeout)
            asked = counts.asks()
            try:
                connection = await original(self, timeout)
            except SentAway:
                if timeout is None:  # it was the server that did not answer
                    counts.gives_up(asked)
                else:
                    counts.is_denied(asked)
                raise
            except BaseException as error:
                counts.gives_up(asked, error)
                raise
            counts.has(asked, id(connection._holder))
            return connection

        return _acquire

    def _observe_connect(self, original: Callable[..., Any], switch: Switch) -> Any:
        enrolled = self._enrolled

        @functools.wraps(original)
        async def connect(self: Any) -> None:
            began_ns = time.monotonic_ns()
            await original(self)
            if switch.is_on and (counts := enrolled(self._pool)) is not None:
                counts.created(time.monotonic_ns() - began_ns)

        return connect

    def _enrolled(self, pool: Any) -> ConnectionPoolProbe | None:
        """Return the probe of a pool, made now if it has none; None where the pool is not ready."""
        queue = pool._queue
        if queue is None:
            return None
        try:
            return queue._otel_concurrency_pool  # type: ignore[no-any-return]
        except AttributeError:
            pass
        counts: ConnectionPoolProbe | None = None
        try:
            # Before 0.32 it was how many are opened in the beginning.
            idle_min = pool._minsize if hasattr(pool, "_initsize") else None
            counts = self._probe.pool(_name_of(pool), queue, partial(_level, idle_min))
            self._marked.put(queue, None)
        except Exception:
            _logger.debug("a pool of asyncpg's is not observed", exc_info=True)
        setattr(queue, POOL_KEY, counts)
        return counts


def _observe_release(original: Callable[..., Any], switch: Switch) -> Any:
    @functools.wraps(original)
    def _release(self: Any) -> Any:
        if switch.is_on:
            # Before, not after: then the next one may have it already.
            counts: ConnectionPoolProbe | None = getattr(self._pool._queue, POOL_KEY, None)
            if counts is not None:
                counts.gives_back(id(self))
        return original(self)

    return _release


def _name_of(pool: Any) -> str:
    """Return the server and the database of a pool: of an open connection, else as the program said."""
    for holder in pool._holders:
        if (connection := holder._con) is not None:
            address, database = connection._addr, connection._params.database
            host, port = (address, None) if isinstance(address, str) else address[:2]
            return pool_name(host, port, database)
    said = pool._connect_kwargs
    dsn = urlsplit(next(iter(pool._connect_args), None) or said.get("dsn") or "")
    host, port = said.get("host") or dsn.hostname or "localhost", said.get("port") or dsn.port
    database = said.get("database") or dsn.path.removeprefix("/")
    return pool_name(str(host), port if isinstance(port, int) else None, database)


def _level(idle_min: int | None, queue: Any) -> ConnectionLevel | None:
    counts: ConnectionPoolProbe = getattr(queue, POOL_KEY)
    there = list(queue._queue)
    if there and there[0]._pool._closed:
        return None
    return ConnectionLevel(
        len(counts.held),
        sum(holder.is_connected() for holder in there),
        len(counts.waits),
        limit=queue.maxsize,
        idle_min=idle_min,
    )
