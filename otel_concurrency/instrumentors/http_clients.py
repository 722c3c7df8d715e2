"""Tells what requests of HTTP clients wait for a connection, and how full the clients' pools are."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor

from otel_concurrency.hooks import fork
from otel_concurrency.hooks.pools.aiohttp_connectors import AiohttpConnectorHook
from otel_concurrency.hooks.pools.httpcore_pools import HttpcorePoolHook
from otel_concurrency.probes.account import HTTP_POOL
from otel_concurrency.probes.http_pools import HttpPoolLevel, HttpPoolProbe, Server
from otel_concurrency.probes.readers import READERS
from otel_concurrency.signals.current_context import get_current
from otel_concurrency.signals.http_pool_metrics import HttpPoolMetrics, server_labels
from otel_concurrency.signals.pool_waits import tell_wait
from otel_concurrency.signals.producer import default_producer
from otel_concurrency.snapshot.pool_list import http_pools
from otel_concurrency.snapshot.sources import SOURCES


class HttpClientInstrumentor(BaseInstrumentor):
    """Measures the connection pools of aiohttp's client and of httpx."""

    _hooks: Sequence[AiohttpConnectorHook | HttpcorePoolHook] = ()
    _metrics: HttpPoolMetrics | None = None
    _undo: Sequence[Callable[[], None]] = ()

    def instrumentation_dependencies(self) -> Collection[str]:
        """Return nothing: without these clients, or with others, nothing happens."""
        return ()

    def _instrument(self, **kwargs: Any) -> None:
        probe = HttpPoolProbe()

        def waited(server: Server, ns: int, *, timed_out: bool) -> None:
            probe.waited(server, ns, timed_out=timed_out, origin=get_current(), at_unix_ns=time.time_ns())
            tell_wait(HTTP_POOL, ns, server_labels(server))

        self._hooks = (AiohttpConnectorHook(waited), HttpcorePoolHook(waited))
        read_levels = [hook.levels for hook in self._hooks]
        metrics = self._metrics = HttpPoolMetrics(probe, read_levels)

        def levels() -> list[HttpPoolLevel]:
            return probe.within_limits(level for read in read_levels for level in read())

        def begin_in_child() -> None:
            probe.reset()
            metrics.begin()

        self._undo = (
            fork.in_child(begin_in_child),
            READERS.offer("http_waits", probe.peek),
            READERS.offer("http_levels", levels),
            SOURCES.add(pools=lambda: http_pools(levels())),
        )
        for hook in self._hooks:
            hook.install()
        default_producer().register(metrics)

    def _uninstrument(self, **kwargs: Any) -> None:
        if self._metrics is not None:
            default_producer().unregister(self._metrics)
        for hook in reversed(self._hooks):
            hook.remove()
        for undo in self._undo:
            undo()
        self._hooks, self._metrics, self._undo = (), None, ()
