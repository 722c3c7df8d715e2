"""Connections of SQLAlchemy's pools, from the time that the program imports it.

Every checkout of every pool, of asyncio engines too, passes through `_ConnectionRecord.checkout`, and every
connection comes back by `_ConnectionRecord.checkin` or leaves its pool by `_ConnectionFairy.detach`; it is
made in `_ConnectionRecord.__connect` (SQLAlchemy 1.4 to 2.1, `sqlalchemy/pool/base.py`). `PoolEvents` know of
no wait, and a listener costs each checkout more than this does.

An asyncio checkout runs in a greenlet of its task and in its context; cancelled, it ends with an exception.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

from otel_concurrency.hooks.late_patch import LatePatch
from otel_concurrency.hooks.patch import Patch, Patches, Switch, switched
from otel_concurrency.hooks.weak_ids import WeakIds
from otel_concurrency.probes.connections import (
    ConnectionLevel,
    ConnectionPoolProbe,
    ConnectionProbe,
    pool_name,
)

POOL_KEY = "_otel_concurrency_pool"
"""Attribute of a pool with its probe, None where it is not observed."""

NAME_KEY = "_otel_concurrency_pool_name"
"""Attribute of an engine's dialect, which the engine's pools share, with their name."""

_NOT_OBSERVED = ("StaticPool",)  # its one connection is lent to everybody at once

_logger = logging.getLogger(__name__)


class SQLAlchemyPoolHook:
    """Tells of each connection's way out of its pool and back.

    Args:
        probe: Counts.
    """

    def __init__(self, probe: ConnectionProbe) -> None:
        self._probe = probe
        self._marked: WeakIds[None] = WeakIds()
        self._sent_away: type[Exception] = TimeoutError
        self._patches = Patches(
            (
                LatePatch("sqlalchemy.pool.base", self._make, loss="its pools are not observed"),
                LatePatch(
                    "sqlalchemy.engine.base", self._make_for_engines, loss="its pools have no good names"
                ),
            )
        )

    def __repr__(self) -> str:
        return f"<SQLAlchemyPoolHook {self._patches}>"

    def install(self) -> None:
        """Patch, now or when it is imported; a second call changes nothing."""
        self._patches.install()

    def remove(self) -> None:
        """Put the originals back, and forget all pools."""
        self._patches.remove()
        for marked, _ in self._marked.items():
            for key in (POOL_KEY, NAME_KEY):
                vars(marked).pop(key, None)
        self._marked.clear()

    def _make(self, module: ModuleType) -> Sequence[Patch]:
        self._sent_away = module.exc.TimeoutError
        record, fairy = module._ConnectionRecord, module._ConnectionFairy
        return (
            Patch(record, "checkout", switched(self._observe_checkout)),
            Patch(record, "checkin", switched(_observe_checkin)),
            Patch(record, "_ConnectionRecord__connect", switched(_observe_connect)),
            Patch(fairy, "detach", switched(_observe_detach)),
        )

    def _make_for_engines(self, module: ModuleType) -> Patch:
        # An engine calls it once it has its URL. `Engine.__init__` must stay: `create_engine` reads its code
        # (`sqlalchemy/util/langhelpers.py`, `get_cls_kwargs`) for the keywords that it may pass on.
        return Patch(module.log, "instance_logger", switched(self._observe_engine))

    def _observe_checkout(self, bound: Callable[..., Any], switch: Switch) -> Any:
        # Without `__func__` it is somebody else's replacement, which is no class method.
        get: Callable[..., Any] = getattr(bound, "__func__", None) or (lambda cls, pool: bound(pool))
        enrol, sent_away = self._enrol, self._sent_away

        @functools.wraps(bound)
        def checkout(cls: Any, pool: Any) -> Any:
            try:
                counts: ConnectionPoolProbe | None = pool._otel_concurrency_pool
            except AttributeError:
                counts = enrol(pool) if switch.is_on else None
            if counts is None:
                return get(cls, pool)
            asked = counts.asks()
            try:
                fairy = get(cls, pool)
            except sent_away:
                counts.is_denied(asked)
                raise
            except BaseException as error:
                counts.gives_up(asked, error)
                raise
            counts.has(asked, id(fairy._connection_record))
            return fairy

        return classmethod(checkout)

    def _observe_engine(self, original: Callable[..., None], switch: Switch) -> Any:
        marked = self._marked

        @functools.wraps(original)
        def instance_logger(instance: Any, *args: Any, **kwargs: Any) -> None:
            original(instance, *args, **kwargs)
            if switch.is_on:
                try:
                    url, dialect = getattr(instance, "url", None), getattr(instance, "dialect", None)
                    if url is not None and dialect is not None:
                        setattr(dialect, NAME_KEY, _name_of(url))
                        marked.put(dialect, None)
                except Exception:
                    _logger.debug("an engine has no address that we know", exc_info=True)

        return instance_logger

    def _enrol(self, pool: Any) -> ConnectionPoolProbe | None:
        counts: ConnectionPoolProbe | None = None
        try:
            if not any(kind.__name__ in _NOT_OBSERVED for kind in type(pool).__mro__):
                dialect = pool._dialect
                named = getattr(dialect, NAME_KEY, None) or getattr(dialect, "name", None) or "sqlalchemy"
                counts = self._probe.pool(pool.logging_name or named, pool, _level)
            counts = vars(pool).setdefault(POOL_KEY, counts)  # other threads may be here, too
            self._marked.put(pool, None)
        except Exception:
            _logger.debug("a pool of SQLAlchemy's is not observed", exc_info=True)
        return counts


def _observe_checkin(original: Callable[..., Any], switch: Switch) -> Any:
    @functools.wraps(original)
    def checkin(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            counts: ConnectionPoolProbe | None = self._ConnectionRecord__pool._otel_concurrency_pool
        except AttributeError:  # somebody had it before we were there
            counts = None
        if counts is not None:
            counts.gives_back(id(self))  # before, not after: then the next one may have it already
        return original(self, *args, **kwargs)

    return checkin


def _observe_detach(original: Callable[..., Any], switch: Switch) -> Any:
    @functools.wraps(original)
    def detach(self: Any) -> Any:
        counts: ConnectionPoolProbe | None = getattr(self._pool, POOL_KEY, None)
        if counts is not None:
            counts.gives_back(id(self._connection_record))
        return original(self)

    return detach


def _observe_connect(original: Callable[..., Any], switch: Switch) -> Any:
    @functools.wraps(original)
    def __connect(self: Any, *args: Any, **kwargs: Any) -> Any:
        if not switch.is_on:
            return original(self, *args, **kwargs)
        began_ns = time.monotonic_ns()
        result = original(self, *args, **kwargs)
        counts = getattr(self._ConnectionRecord__pool, POOL_KEY, None)
        if counts is not None:
            counts.created(time.monotonic_ns() - began_ns)
        return result

    return __connect


def _name_of(url: Any) -> str:
    """Return how pools of an engine's URL are called; its user and password are left out."""
    if url.host:
        return pool_name(url.host, url.port, url.database)
    return pool_name(url.get_backend_name(), None, url.database)


def _level(pool: Any) -> ConnectionLevel:
    counts: ConnectionPoolProbe = getattr(pool, POOL_KEY)
    used, pending = len(counts.held), len(counts.waits)
    if (queue := getattr(pool, "_pool", None)) is not None:  # QueuePool and its asyncio twin
        size, overflow = queue.maxsize, pool._max_overflow
        return ConnectionLevel(
            used,
            sum(record.dbapi_connection is not None for record in _waiting_in(queue)),
            pending,
            limit=None if overflow < 0 else size + overflow,
            idle_max=size or None,
        )
    if (records := getattr(pool, "_all_conns", None)) is not None:  # SingletonThreadPool
        return ConnectionLevel(used, max(len(records) - used, 0), pending)
    return ConnectionLevel(used, None, pending)


def _waiting_in(queue: Any) -> Iterable[Any]:
    """Return what is in a queue of SQLAlchemy's, a thread's or asyncio's; nothing is made for that."""
    records: Iterable[Any] | None = getattr(queue, "queue", None)
    if records is None:
        records = getattr(vars(queue).get("_queue"), "_queue", ())
    return list(records or ())
