"""Counts and times the connections of databases' pools: the hooks, joined to their metrics."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from opentelemetry import context as opentelemetry_context
from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.pools.asyncpg_pools import AsyncpgPoolHook
from otel_concurrency.hooks.pools.psycopg_pools import PsycopgPoolHook
from otel_concurrency.hooks.pools.redis_pools import RedisPoolHook
from otel_concurrency.hooks.pools.sqlalchemy_pools import SQLAlchemyPoolHook
from otel_concurrency.probes.connections import ConnectionProbe
from otel_concurrency.probes.readers import READERS
from otel_concurrency.signals.connection_metrics import ConnectionMetrics
from otel_concurrency.signals.connection_waits import ConnectionWaits
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.snapshot.pool_list import database_pools
from otel_concurrency.snapshot.sources import SOURCES


class Hook(Protocol):
    """Where we attach to a library with pools, once the program imports it."""

    def install(self) -> None:
        """Attach, now or when it is imported."""
        ...

    def remove(self) -> None:
        """Put everything back."""
        ...


HOOKS: tuple[Callable[[ConnectionProbe], Hook], ...] = (
    AsyncpgPoolHook,
    PsycopgPoolHook,
    RedisPoolHook,
    SQLAlchemyPoolHook,
)
"""One for each library."""


class ConnectionPoolInstrumentor(BaseInstrumentor):
    """Tells who waits for a database's connections, and who has them."""

    _hooks: Sequence[Hook] = ()
    _undo: Sequence[Callable[[], object]] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: without these libraries, or with others, nothing happens."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        # Where the default runtime context keeps the current span; another one has no such variable.
        origin = getattr(opentelemetry_context._RUNTIME_CONTEXT, "_current_context", None)
        probe = ConnectionProbe(origin=origin)
        waits = probe.observer = ConnectionWaits()
        metrics = ConnectionMetrics(probe)
        self._hooks = [hook(probe) for hook in HOOKS]
        for hook in self._hooks:
            hook.install()
        default_producer().register(metrics)

        def begin_in_child() -> None:
            probe.reset()
            waits.begin()
            metrics.begin()

        self._undo = (
            fork.in_child(begin_in_child),
            lambda: default_producer().unregister(metrics),
            READERS.offer("connections", probe.peek),
            READERS.offer("connection_levels", probe.levels),
            READERS.offer("holders", probe.holders),
            SOURCES.add(pools=lambda: database_pools(probe)),
        )

    def _uninstrument(self, **kwargs: Any) -> None:
        for hook in reversed(self._hooks):
            hook.remove()
        for undo in self._undo:
            undo()
        self._hooks, self._undo = (), ()
