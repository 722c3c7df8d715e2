"""What stands in the place of a pool's functions that lend a connection, and that take one back.

All pools have two such functions, of whatever name. Here they are told of to a probe, for pools whose
functions block and for those whose functions are awaited.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from otel_concurrency.hooks.patch import Switch
from otel_concurrency.hooks.pools.pool_locks import POOL_LOCKS
from otel_concurrency.hooks.weak_ids import WeakIds
from otel_concurrency.probes.connections import ConnectionLevel, ConnectionPoolProbe, ConnectionProbe

_MAX_FRESH = 1_000  # connections being made at once; more than that is not about pools

_logger = logging.getLogger(__name__)


class Lending:
    """The pools of one library that were seen at work.

    Args:
        probe: Counts.
        name: Tells the name of a pool.
        level: Tells how full a pool is.
        is_denial: Tells of an exception whether it says that a pool has no connection left.
        locks: Returns the locks and conditions by which a pool lets tasks wait.
    """

    def __init__(
        self,
        probe: ConnectionProbe,
        *,
        name: Callable[[Any], str],
        level: Callable[[Any, ConnectionPoolProbe], ConnectionLevel],
        is_denial: Callable[[BaseException], bool],
        locks: Callable[[Any], Iterable[object]],
    ) -> None:
        self._probe = probe
        self._name = name
        self._level = level
        self._is_denial = is_denial
        self._locks = locks
        self._known: WeakIds[ConnectionPoolProbe] = WeakIds()
        self._fresh: dict[int, int] = {}  # a connection that is being made: since when
        self._has_failed = False

    def __repr__(self) -> str:
        return f"<Lending [{len(self._known)} pools]>"

    def forget(self) -> None:
        """Let go of all pools, and of what is being made."""
        self._known.clear()
        POOL_LOCKS.clear()  # of all libraries: their hooks come and go together
        self._fresh.clear()

    def lends(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        """Return what tells of a function that returns a connection."""
        find, learn, fresh = self._known.by_id, self._learn, self._fresh

        @functools.wraps(original)
        def lend(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not switch.is_on:
                return original(self, *args, **kwargs)
            known = find(id(self))
            pool = learn(self) if known is None else known.value
            if pool is None:
                return original(self, *args, **kwargs)
            asked = pool.asks()
            try:
                connection = original(self, *args, **kwargs)
            except BaseException as error:
                lending._went_without(pool, asked, error)
                raise
            pool.has(asked, id(connection))
            if fresh:
                lending._is_made(pool, connection)
            return connection

        lending = self
        return lend

    def lends_async(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        """Return the same for a coroutine function."""
        find, learn, fresh = self._known.by_id, self._learn, self._fresh

        @functools.wraps(original)
        async def lend(self: Any, *args: Any, **kwargs: Any) -> Any:
            if not switch.is_on:
                return await original(self, *args, **kwargs)
            known = find(id(self))
            pool = learn(self) if known is None else known.value
            if pool is None:
                return await original(self, *args, **kwargs)
            asked = pool.asks()
            try:
                connection = await original(self, *args, **kwargs)
            except BaseException as error:
                lending._went_without(pool, asked, error)
                raise
            pool.has(asked, id(connection))
            if fresh:
                lending._is_made(pool, connection)
            return connection

        lending = self
        return lend

    def takes_back(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        """Return what tells of a function that is handed a connection."""
        find, fresh = self._known.by_id, self._fresh

        @functools.wraps(original)
        def take_back(self: Any, *args: Any, **kwargs: Any) -> Any:
            known = find(id(self))
            if known is not None and switch.is_on:
                connection = args[0] if args else next(iter(kwargs.values()), None)
                known.value.gives_back(id(connection))
                if fresh:
                    lending._is_not_made(connection)
            return original(self, *args, **kwargs)

        lending = self
        return take_back

    def takes_back_async(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        """Return the same for a coroutine function."""
        find, fresh = self._known.by_id, self._fresh

        @functools.wraps(original)
        async def take_back(self: Any, *args: Any, **kwargs: Any) -> Any:
            known = find(id(self))
            if known is not None and switch.is_on:
                connection = args[0] if args else next(iter(kwargs.values()), None)
                known.value.gives_back(id(connection))
                if fresh:
                    lending._is_not_made(connection)
            return await original(self, *args, **kwargs)

        lending = self
        return take_back

    def makes(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        """Return what times a pool's function that makes a connection."""
        known, learn = self._known, self._learn

        @functools.wraps(original)
        def make(self: Any, *args: Any, **kwargs: Any) -> Any:
            pool = (known.get(self) or learn(self)) if switch.is_on else None
            began_ns = time.monotonic_ns()
            connection = original(self, *args, **kwargs)
            if pool is not None:
                pool.created(time.monotonic_ns() - began_ns)
            return connection

        return make

    def makes_async(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        """Return the same for a coroutine function."""
        known, learn = self._known, self._learn

        @functools.wraps(original)
        async def make(self: Any, *args: Any, **kwargs: Any) -> Any:
            pool = (known.get(self) or learn(self)) if switch.is_on else None
            began_ns = time.monotonic_ns()
            connection = await original(self, *args, **kwargs)
            if pool is not None:
                pool.created(time.monotonic_ns() - began_ns)
            return connection

        return make

    def connects(self, original: Callable[..., Any], switch: Switch) -> Callable[..., Any]:
        """Return what notes when a connection begins to connect, by blocking or by a coroutine.

        It is made when its pool lends it.
        """
        fresh = self._fresh

        @functools.wraps(original)
        def connect(self: Any, *args: Any, **kwargs: Any) -> Any:
            if switch.is_on and len(fresh) < _MAX_FRESH:
                fresh[id(self)] = time.monotonic_ns()
            return original(self, *args, **kwargs)

        return connect

    def _learn(self, pool: Any) -> ConnectionPoolProbe | None:
        if self._has_failed:
            return None
        try:
            mine = self._probe.pool(self._name(pool), pool, self._read_level)
            POOL_LOCKS.add(self._locks(pool))
            return self._known.setdefault(pool, mine)  # other threads may be here, too
        except Exception:
            self._has_failed = True
            _logger.exception("a connection pool cannot be counted; more of them will not be either")
            return None

    def _read_level(self, pool: Any) -> ConnectionLevel:
        mine = self._known.get(pool)
        return ConnectionLevel(used=0) if mine is None else self._level(pool, mine)

    def _went_without(self, pool: ConnectionPoolProbe, asked: int, error: BaseException) -> None:
        if self._is_denial(error):
            pool.is_denied(asked)
        else:
            pool.gives_up(asked, error)

    def _is_made(self, pool: ConnectionPoolProbe, connection: Any) -> None:
        began_ns = self._is_not_made(connection)
        if began_ns is not None:
            pool.created(time.monotonic_ns() - began_ns)

    def _is_not_made(self, connection: Any) -> int | None:
        inner = getattr(connection, "_conn", connection)  # redis-py's client-side cache wraps one
        return self._fresh.pop(id(inner), None)
